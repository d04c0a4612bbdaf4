"""Nothing raw leaks out: every exception of aiohttp's client has one of ours."""

from __future__ import annotations

import inspect
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aifaceswap._http import exceptions
from aifaceswap._http.exceptions import connection_error
from aifaceswap.errors import APIConnectionError, APITimeoutError

SECRET = "zq9Secret"
SENT, NEVER_SENT = True, False

KEY = ConnectionKey("api.example.com", 443, True, True, None, None, None)
RESPONSE_HEADERS = CIMultiDict({"Set-Cookie": f"session={SECRET}"})
URL_WITH_QUERY = URL(f"https://api.example.com/api/v1/swaps?cursor={SECRET}")
INFO = RequestInfo(
    url=URL_WITH_QUERY,
    method="POST",
    headers=CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {SECRET}"})),
    real_url=URL_WITH_QUERY,
)
REFUSED = ConnectionRefusedError(111, "Connection refused")
UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")


def bare(cls: type[Exception]) -> Exception:
    return cls(f"raised with {SECRET} in it")


def of_the_system(cls: Any) -> Exception:
    error: Exception = cls(104, f"Connection reset by peer at {SECRET}")
    return error


def of_an_answer(cls: Any) -> Exception:
    error: Exception = cls(
        INFO, (), status=400, message="Bad status line", headers=RESPONSE_HEADERS
    )
    return error


def of_a_connection(cls: Any) -> Exception:
    error: Exception = cls(KEY, REFUSED)
    return error


def of_tls(cls: Any) -> Exception:
    error: Exception = cls(KEY, ssl.SSLError(1, "wrong version number"))
    return error


def of_a_url(cls: Any) -> Exception:
    error: Exception = cls(URL_WITH_QUERY, "Host could not be detected")
    return error


Maker = Callable[[Any], Exception]

# How aiohttp makes each, whether the request may have been sent, and the words of ours.
TABLE: dict[str, tuple[Maker, bool, str]] = {
    "ClientError": (bare, SENT, "the connection was lost"),
    "ClientResponseError": (of_an_answer, SENT, "the response is not HTTP"),
    "ContentTypeError": (of_an_answer, SENT, "the response is not HTTP"),
    "WSServerHandshakeError": (of_an_answer, SENT, "the response is not HTTP"),
    "ClientHttpProxyError": (
        of_an_answer,
        NEVER_SENT,
        "the proxy rejected the request with status 400",
    ),
    "TooManyRedirects": (of_an_answer, SENT, "the response is not HTTP"),
    "ClientConnectionError": (bare, SENT, "the connection was lost"),
    "ClientConnectionResetError": (of_the_system, SENT, "the connection was lost"),
    "ClientOSError": (of_the_system, SENT, "the connection was lost"),
    "ClientConnectorError": (
        of_a_connection,
        NEVER_SENT,
        "cannot connect to api.example.com:443: Connection refused",
    ),
    "ClientConnectorDNSError": (
        of_a_connection,
        NEVER_SENT,
        "the name 'api.example.com' does not resolve",
    ),
    "ClientProxyConnectionError": (
        of_a_connection,
        NEVER_SENT,
        "cannot connect to api.example.com:443: Connection refused",
    ),
    "UnixClientConnectorError": (
        lambda cls: cls("/run/api.sock", KEY, REFUSED),
        NEVER_SENT,
        "cannot connect to api.example.com:443: Connection refused",
    ),
    "ServerConnectionError": (bare, SENT, "the connection was lost"),
    "ServerDisconnectedError": (bare, SENT, "the connection was lost"),
    "ServerTimeoutError": (bare, SENT, "no complete response within 30 s"),
    "ConnectionTimeoutError": (bare, NEVER_SENT, "no connection within 30 s"),
    "SocketTimeoutError": (bare, SENT, "no complete response within 30 s"),
    "ServerFingerprintMismatch": (
        lambda cls: cls(b"expected", b"got", "api.example.com", 443),
        NEVER_SENT,
        "the certificate does not have the expected fingerprint",
    ),
    "ClientPayloadError": (bare, SENT, "the response was truncated or cannot be decompressed"),
    "UploadAbortedError": (bare, SENT, "the connection was lost"),
    "InvalidURL": (of_a_url, NEVER_SENT, "the URL is malformed"),
    "InvalidUrlClientError": (of_a_url, NEVER_SENT, "the URL is malformed"),
    "RedirectClientError": (bare, SENT, "the connection was lost"),
    "NonHttpUrlClientError": (bare, NEVER_SENT, "the URL is malformed"),
    "InvalidUrlRedirectClientError": (of_a_url, NEVER_SENT, "the URL is malformed"),
    "NonHttpUrlRedirectClientError": (bare, NEVER_SENT, "the URL is malformed"),
    "ClientSSLError": (
        of_tls,
        NEVER_SENT,
        "cannot connect to api.example.com:443: wrong version number",
    ),
    "ClientConnectorSSLError": (
        of_tls,
        NEVER_SENT,
        "cannot connect to api.example.com:443: wrong version number",
    ),
    "ClientConnectorCertificateError": (
        lambda cls: cls(KEY, UNTRUSTED),
        NEVER_SENT,
        "the certificate of 'api.example.com' is not valid",
    ),
}
# Raised by its web sockets alone, which this package does not use.
NOT_OURS = {"WSMessageTypeError"}
# In newer releases alone.
NOT_EVERYWHERE = {"UploadAbortedError"}

DEFINED: dict[str, type[Exception]] = {
    name: cls
    for name, cls in vars(client_exceptions).items()
    if inspect.isclass(cls)
    and issubclass(cls, Exception)
    and cls.__module__ == client_exceptions.__name__
}
MAPPED = [name for name in TABLE if name in DEFINED]

OTHERS: list[tuple[BaseException, type[APIConnectionError], bool]] = [
    (TimeoutError(), APITimeoutError, SENT),
    (TimeoutError(), APITimeoutError, SENT),
    (TimeoutError(110, f"Connection timed out {SECRET}"), APITimeoutError, SENT),
    (OSError(f"raised with {SECRET} in it"), APIConnectionError, SENT),
    (OSError(5, f"Input/output error {SECRET}"), APIConnectionError, SENT),
    (ConnectionResetError(104, f"reset {SECRET}"), APIConnectionError, SENT),
    (ConnectionAbortedError(103, f"aborted {SECRET}"), APIConnectionError, SENT),
    (BrokenPipeError(32, f"broken pipe {SECRET}"), APIConnectionError, SENT),
    (socket.gaierror(-2, f"Name or service not known {SECRET}"), APIConnectionError, SENT),
    (ssl.SSLError(1, f"decryption failed {SECRET}"), APIConnectionError, SENT),
    (ssl.SSLEOFError(8, f"EOF occurred {SECRET}"), APIConnectionError, SENT),
    (ValueError(f"newline in header {SECRET}"), APIConnectionError, NEVER_SENT),
    (UnicodeError(f"label too long {SECRET}"), APIConnectionError, NEVER_SENT),
    (RuntimeError("Session is closed"), APIConnectionError, NEVER_SENT),
    (RuntimeError(f"Event loop is closed {SECRET}"), APIConnectionError, NEVER_SENT),
]


def name_of(value: object) -> str | None:
    return type(value).__name__ if isinstance(value, BaseException) else None


def test_the_table_is_complete() -> None:
    """An exception that aiohttp has newly defined must be looked at before it is let pass."""
    assert set(TABLE) - NOT_EVERYWHERE <= set(DEFINED) - NOT_OURS
    assert set(DEFINED) - NOT_OURS <= set(TABLE)


@pytest.mark.parametrize("name", MAPPED)
def test_it_is_caught(name: str) -> None:
    """Every exception that aiohttp's client can raise is caught where it would leave."""
    assert issubclass(DEFINED[name], exceptions.RAISED)


@pytest.mark.parametrize("name", MAPPED)
def test_it_is_mapped(name: str) -> None:
    """Each has our class, and tells whether the request may have reached the service."""
    make, sent, words = TABLE[name]
    error = make(DEFINED[name])

    ours = connection_error(error, 30.0)

    late = isinstance(error, TimeoutError)
    assert (APITimeoutError if late else APIConnectionError) is type(ours)
    assert sent is ours.sent
    assert ours.message.startswith(words)


@pytest.mark.parametrize("name", MAPPED)
def test_it_takes_no_secret_along(name: str) -> None:
    """Neither a header nor a query string of the request or the answer is in our error."""
    make, _, _ = TABLE[name]

    ours = connection_error(make(DEFINED[name]), 30.0)

    shown = f"{ours} {ours!r} {vars(ours)}"
    assert SECRET not in shown
    for word in ("Authorization", "Bearer", "Set-Cookie", "cursor", "?"):
        assert word not in shown
    assert (ours.__cause__, ours.__context__) == (None, None)


@pytest.mark.parametrize(("error", "cls", "sent"), OTHERS, ids=name_of)
def test_what_comes_from_below(
    error: BaseException, cls: type[APIConnectionError], sent: bool
) -> None:
    """What asyncio and the sockets raise is caught and mapped as well, without its words."""
    ours = connection_error(error, 0.25)

    assert isinstance(error, exceptions.RAISED)
    assert (cls, sent) == (type(ours), ours.sent)
    assert SECRET not in f"{ours!r} {vars(ours)}"


@pytest.mark.parametrize(
    "inner",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(104, "Connection reset by peer"),
        aiohttp.ClientConnectorError(KEY, REFUSED),
        aiohttp.ConnectionTimeoutError("too late"),
    ],
    ids=name_of,
)
def test_a_carrier_is_seen_through(inner: Exception) -> None:
    """What carries a lost connection past aiohttp is mapped as what it carries."""
    direct = connection_error(inner, 30.0)
    carried = connection_error(exceptions._Lost(inner), 30.0)

    assert (type(direct), direct.message, direct.sent) == (
        type(carried),
        carried.message,
        carried.sent,
    )
    assert issubclass(exceptions._Lost, exceptions.RAISED)


@pytest.mark.parametrize(
    ("timeout", "words"),
    [
        (30.0, "no complete response within 30 s"),
        (0.25, "no complete response within 0.25 s"),
        (1e-05, "no complete response within 1e-05 s"),
        (12.3456, "no complete response within 12.3 s"),
    ],
)
def test_the_words_of_a_timeout(timeout: float, words: str) -> None:
    """A timeout says how long was waited."""
    assert words == str(connection_error(TimeoutError(), timeout))


@pytest.mark.parametrize("name", MAPPED)
def test_no_word_of_aiohttp_is_quoted(name: str) -> None:
    """Its messages may quote headers: ours hold none of them."""
    make, _, _ = TABLE[name]
    error = make(DEFINED[name])

    message = getattr(error, "message", "") or str(error)

    assert message not in connection_error(error, 30.0).message


@pytest.mark.parametrize("error", [RuntimeError("x"), ValueError("x"), aiohttp.ClientError("x")])
@pytest.mark.parametrize("sent", [True, False])
def test_a_body_that_was_sent_counts_more_than_the_class(error: Exception, sent: bool) -> None:
    """Once the body is known to be sent or not, nothing is concluded from the exception."""
    assert sent is connection_error(error, 30.0, sent=sent).sent


def test_permanent_failures() -> None:
    """A certificate, a URL or a proxy's rejection will not change; a proxy's own failure may."""
    make = TABLE["ClientHttpProxyError"][0]
    rejected = make(aiohttp.ClientHttpProxyError)
    failed = aiohttp.ClientHttpProxyError(INFO, (), status=502, message="Bad Gateway")

    assert connection_error(rejected, 30.0).permanent
    assert not connection_error(failed, 30.0).permanent
    permanent = {
        name for name in MAPPED if connection_error(TABLE[name][0](DEFINED[name]), 30.0).permanent
    }
    assert permanent == {
        "ClientHttpProxyError",
        "ClientConnectorCertificateError",
        "InvalidURL",
        "InvalidUrlClientError",
        "InvalidUrlRedirectClientError",
        "NonHttpUrlClientError",
        "NonHttpUrlRedirectClientError",
        "ServerFingerprintMismatch",
    }


def test_an_unknown_exception_counts_as_sent() -> None:
    """A kind of failure that nobody has seen yet is taken for one after which money is at stake."""

    class NewFailure(aiohttp.ClientError):
        pass

    ours = connection_error(NewFailure(SECRET), 30.0)

    assert ours.sent
    assert ours.message == "the connection was lost before the response was complete (NewFailure)"
