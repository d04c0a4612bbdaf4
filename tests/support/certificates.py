"""A private certificate authority's certificate for the name localhost, and its key."""

import ssl
from pathlib import Path

# Made for these tests; nobody else trusts them.
TLS_KEY = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIOsH7zukHv2woiLJMCHguzJNiDuroLHNRl1/NKi9WfIQoAoGCCqGSM49
AwEHoUQDQgAE60WsdjtdAQ/u4bVf6MDvH+z1zDjARt60TWosW6QKeLRCoBjUQ4XV
oxotLjmvGK3+D1gL1jhoUntZsh8AbO+eew==
-----END EC PRIVATE KEY-----
"""
# From 2026 to 2126.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBtTCCAVygAwIBAgIUOWz2aKGBMG/DsSYJxMWLJ6OhYQMwCgYIKoZIzj0EAwIw
LTEXMBUGA1UECgwOVGVzdCBBdXRob3JpdHkxEjAQBgNVBAMMCWxvY2FsaG9zdDAg
Fw0yNjExMjMwOTA1NTZaGA8yMTI2MTAzMDA5MDU1NlowLTEXMBUGA1UECgwOVGVz
dCBBdXRob3JpdHkxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABOtFrHY7XQEP7uG1X+jA7x/s9cw4wEbetE1qLFukCni0QqAY1EOF
1aMaLS45rxit/g9YC9Y4aFJ7WbIfAGzvnnujWDBWMBQGA1UdEQQNMAuCCWxvY2Fs
aG9zdDAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQU
TpBTBQRIQic+URbFSi77Y+sbRmYwCgYIKoZIzj0EAwIDRwAwRAIgHtFQRDorTH9W
f864MIDni+h6z7aF4BPW6vMqDuLTZvwCIG0TU8xUFmFfLL8/f2kwkDQoHI8oOArt
y4Sr+dgOICPg
-----END CERTIFICATE-----
"""


def server_context(folder: Path) -> ssl.SSLContext:
    """TLS for a server that has this certificate."""
    path = folder / "server.pem"
    path.write_text(CERTIFICATE + TLS_KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
