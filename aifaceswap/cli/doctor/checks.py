"""What `doctor` looks at, piece by piece.

The key appears in nothing that is found, not even its end: reports are pasted into tickets,
and the shortest keys have little more than an end.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import attrs

from aifaceswap import _validation
from aifaceswap._limits import BASE_URL_VARIABLE, SIGNATURE_TOLERANCE
from aifaceswap._validation import Secret
from aifaceswap._version import __version__
from aifaceswap.cli.context import SITE, CommandContext
from aifaceswap.cli.failures import describe, format_duration, next_step
from aifaceswap.cli.rendering import printable
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    AuthenticationError,
    ConfigurationError,
)
from aifaceswap.models import Account

State = Literal["ok", "warning", "problem", "skipped"]

#: Seconds for each of the looks that use the network.
TIMEOUT_SECONDS = 10.0

_API_PATH = "/api/v1"
_NOTABLE_SKEW = 30.0
_RENEWAL = 14 * 86_400
_SHOWN_ADDRESSES = 3
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*?(?:>=(?P<least>[0-9.]+))?[^;>]*(?:;|$)")
_EXTRA = re.compile(r"""extra == ['"](?P<name>[^'"]+)['"]""")

# OpenSSL's numbers for what is wrong with a certificate.
_NOT_NOW = frozenset({9, 10})
_OTHER_HOST = frozenset({62, 64})


@attrs.frozen
class Check:
    """What one look has found.

    Attributes:
        name: What was looked at.
        state: How it is; what could not be looked at is skipped.
        text: The same in words.
        next: What to do about it.
        data: The same for programs.
    """

    name: str
    state: State
    text: str
    next: str | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


@attrs.frozen
class Settings:
    """What a client would begin with.

    Attributes:
        key: The API key, unchecked.
        base_url: The base URL, unchecked.
        key_fault: What is wrong with the key.
        url_fault: What is wrong with the URL.
    """

    key: Secret
    base_url: str
    key_error: ConfigurationError | None = None
    url_error: ConfigurationError | None = None

    @classmethod
    def check(cls, key: str | Secret, base_url: str) -> Settings:
        """Check both."""
        secret = Secret(key)
        del key
        return cls(
            secret,
            base_url,
            _validation_error(_validation.api_key, secret),
            _validation_error(_validation.base_url, base_url),
        )

    @property
    def parts(self) -> SplitResult | None:
        """The URL in parts; None if it is none."""
        return None if self.url_error else urlsplit(self.base_url)


@attrs.frozen
class Reply:
    """What became of the one request.

    Attributes:
        seconds: How long it took.
        ended: Unix time of its end.
        account: The account, if there was one in the answer.
        headers: The answer's headers.
        error: How it failed.
    """

    seconds: float
    ended: float
    account: Account | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    error: AIFaceSwapError | None = None

    @property
    def was_received(self) -> bool:
        """Whether there was an answer at all, whatever it said."""
        return not isinstance(self.error, APIConnectionError)


def check_versions() -> Check:
    """The package, Python, and what the package stands on."""
    found = {"aifaceswap": __version__, "python": platform.python_version()}
    missing: list[str] = []
    old: list[str] = []
    for name, least, extra in _requirements():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(f"{name} (extra {extra})" if extra else name)
            continue
        if least and _numbers(found[name]) < _numbers(least):
            old.append(f"{name} {found[name]} is older than {least}")
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    if missing:
        text += f"; not installed: {', '.join(missing)}"
    if old:
        advice = "pip install --upgrade aifaceswap, in an environment of its own"
        return Check("Versions", "problem", f"{'; '.join(old)} ({text})", advice, found)
    return Check("Versions", "ok", text, data=found)


def _requirements() -> Iterator[tuple[str, str | None, str | None]]:
    """Name, least version and extra of each requirement."""
    try:
        lines = metadata.requires("aifaceswap") or []
    except metadata.PackageNotFoundError:  # run from a checkout
        return
    for match in filter(None, map(_REQUIREMENT.match, lines)):
        extra = _EXTRA.search(match.string)
        yield match["name"], match["least"], extra and extra["name"]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", version)[:3]]


def check_key(context: CommandContext, settings: Settings, reply: Reply | None) -> Check:
    """The key: is it there, can it be sent, is it a live one?"""
    if settings.key_error is not None:
        fault, advice = describe(settings.key_error), next_step(settings.key_error, context)
        missing = "AIFACESWAP_API_KEY is not set"
        return Check("Key", "problem", fault if settings.key.reveal() else missing, advice)
    length = _length(settings.key.reveal())
    if reply is not None and isinstance(reply.error, AuthenticationError):
        advice = next_step(reply.error, context)
        return Check("Key", "problem", f"{describe(reply.error)}; {length}", advice)
    if reply is not None and reply.account is not None:
        return Check("Key", "ok", f"accepted; {length}")
    return Check("Key", "skipped", f"{length}; whether it is a live one could not be asked")


def _length(key: str) -> str:
    quotes = ", the first of them a quote" if key[0] in "'\"`" else ""
    return f"{pluralize('character', len(key))}{quotes}"


def check_base_url(context: CommandContext, settings: Settings) -> Check:
    """The base URL: may the key go there, and is the API there?"""
    if settings.url_error is not None:
        advice = next_step(settings.url_error, context)
        return Check("Base URL", "problem", describe(settings.url_error), advice)
    data = {"url": settings.base_url}
    if not urlsplit(settings.base_url).path.rstrip("/").endswith(_API_PATH):
        text = f"{settings.base_url} does not end in {_API_PATH}"
        advice = f"export {BASE_URL_VARIABLE}={settings.base_url.rstrip('/')}{_API_PATH}"
        return Check("Base URL", "warning", text, advice, data)
    return Check("Base URL", "ok", settings.base_url, data=data)


async def check_name(settings: Settings) -> Check:
    """The name in the base URL: does it resolve?"""
    if settings.parts is None:
        return Check("Name", "skipped", "there is no base URL to take it from")
    host = settings.parts.hostname or ""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "there is no answer, or it is no name"
        advice = (
            f"check the network, the DNS server, and the spelling in {BASE_URL_VARIABLE}, "
            "if it is set"
        )
        return Check("Name", "problem", f"{host} does not resolve: {reason}", advice)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    shown = ", ".join(addresses[:_SHOWN_ADDRESSES])
    text = host if [host] == addresses else f"{host} is {shown}"
    return Check("Name", "ok", text, data={"addresses": addresses})


async def check_tls(settings: Settings) -> Check:
    """TLS: does the handshake succeed, and for how long will the certificate do?"""
    parts = settings.parts
    if parts is None:
        return Check("TLS", "skipped", "there is no base URL to connect to")
    if parts.scheme == "http":
        return Check("TLS", "ok", "none: plain http, which does not leave this machine")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            version, certificate = await _handshake(parts.hostname or "", parts.port or 443)
    except ssl.SSLCertVerificationError as error:
        text = f"the certificate is not valid: {error.verify_message}"
        return Check("TLS", "problem", text, _certificate_advice(error))
    except ssl.SSLError as error:
        advice = f"what answers there does not speak TLS: correct {BASE_URL_VARIABLE}"
        return Check("TLS", "problem", f"no handshake: {error.reason or error}", advice)
    except (OSError, UnicodeError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else "no connection"
        return Check("TLS", "skipped", reason)
    return judge_certificate(version, certificate)


async def _handshake(host: str, port: int) -> tuple[str, Mapping[str, Any]]:
    """The version of TLS and the certificate. The client's HTTP library tells neither."""
    _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
    try:
        kept = writer.get_extra_info("ssl_object")
        return kept.version(), kept.getpeercert()
    finally:
        writer.transport.abort()


def judge_certificate(version: str, certificate: Mapping[str, Any]) -> Check:
    """For how long a valid certificate will do."""
    expires = ssl.cert_time_to_seconds(certificate["notAfter"])
    names = {name: value for part in certificate["issuer"] for name, value in part}
    issuer = printable(names.get("organizationName") or names.get("commonName") or "nobody")
    until = datetime.fromtimestamp(expires, UTC)
    text = f"{version}, certificate by {issuer}, valid until {until:%Y-%m-%d}"
    data = {"version": version, "issuer": issuer, "expires": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
    left = expires - time.time()
    if left < _RENEWAL:
        advice = f"renew the server's certificate; every call will fail in {format_duration(left)}"
        return Check("TLS", "warning", text, advice, data)
    return Check("TLS", "ok", text, data=data)


def _certificate_advice(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _NOT_NOW:
        return "set this machine's clock; if it is right, tell whoever runs the server"
    if error.verify_code in _OTHER_HOST:
        return f"it is another host's: correct {BASE_URL_VARIABLE}"
    return (
        "install the system's certificates (ca-certificates), or, if a proxy or a server of "
        "your own answers there, set SSL_CERT_FILE to a file with its authority's certificate, too"
    )


def check_service(context: CommandContext, reply: Reply | None) -> Check:
    """The service: does it answer, and as the API does?"""
    if reply is None:
        return Check("Service", "skipped", "not asked, for want of a key or a base URL")
    took = f"{reply.seconds * 1000:,.0f} ms"
    data = {"seconds": round(reply.seconds, 3)}
    if reply.error is None:
        return Check("Service", "ok", f"answered in {took}", data=data)
    if isinstance(reply.error, AuthenticationError):  # that is the key's line
        return Check("Service", "ok", f"answered {reply.error.status} in {took}", data=data)
    advice = next_step(reply.error, context)
    return Check("Service", "problem", describe(reply.error), advice, data)


def check_clock(reply: Reply | None) -> Check:
    """This machine's clock beside the service's: deliveries are refused by their age."""
    if reply is None or not reply.headers:
        return Check("Clock", "skipped", "not known: the service has not answered")
    try:
        server = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return Check("Clock", "skipped", "the service does not say what time it is")
    # The header is cut to whole seconds, and is written at any moment of the request.
    skew = reply.ended - reply.seconds / 2 - (server + 0.5)
    off = f"{format_duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the service's"
    data = {"skew_seconds": round(skew, 1)}
    advice = "set the clock, e.g.: sudo timedatectl set-ntp true"
    if abs(skew) <= _NOTABLE_SKEW:
        return Check("Clock", "ok", f"within {_NOTABLE_SKEW:g} s of the service's", data=data)
    if abs(skew) < SIGNATURE_TOLERANCE:
        text = f"{off}; webhook deliveries are refused from {SIGNATURE_TOLERANCE:g} s on"
        return Check("Clock", "warning", text, advice, data)
    text = f"{off}; every webhook delivery is refused, as too old or too far ahead"
    return Check("Clock", "problem", text, advice, data)


def check_credits(reply: Reply | None) -> Check:
    """The credits left."""
    if reply is None or reply.account is None:
        return Check("Credits", "skipped", "not known: the key has not been accepted")
    total = reply.account.credits.total
    data = {"total": total}
    if total <= 0:
        return Check("Credits", "problem", "none left", f"top up on {SITE}", data)
    return Check("Credits", "ok", f"{total:,.10g} left", data=data)


def check_requests(reply: Reply | None) -> Check:
    """The requests left in the window that has begun."""
    if reply is None or reply.account is None:
        return Check("Requests", "skipped", "not known: the key has not been accepted")
    rate = reply.account.rate_limit
    window = "" if rate.window_seconds is None else f" in {rate.window_seconds:g} s"
    text = f"{rate.remaining:,.10g} of {rate.limit:,.10g} left{window}"
    data = {"remaining": rate.remaining, "limit": rate.limit}
    if rate.remaining <= 0:
        advice = "wait a minute; if that does not help, see what else uses the key"
        return Check("Requests", "warning", text, advice, data)
    return Check("Requests", "ok", text, data=data)


def check_proxies(reply: Reply | None) -> Check:
    """Proxies in the environment, which the client does not use."""
    names = [name for name in (*_PROXIES, *map(str.lower, _PROXIES)) if os.environ.get(name)]
    if not names:
        return Check("Proxies", "ok", "none in the environment")
    text = f"{', '.join(names)}: set, and not used"
    data = {"ignored": names}
    if reply is not None and reply.was_received:
        return Check("Proxies", "ok", f"{text}; the service is reached without", data=data)
    advice = (
        "if this machine needs a proxy, use the package from Python: AsyncClient(proxy=...); "
        "the command line cannot use one"
    )
    return Check("Proxies", "warning", text, advice, data)


def pluralize(word: str, count: int) -> str:
    """A number of things in words."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _validation_error(
    check: Callable[[object], object], value: str | Secret
) -> ConfigurationError | None:
    try:
        check(value)
    except ConfigurationError as error:
        return error
    return None
