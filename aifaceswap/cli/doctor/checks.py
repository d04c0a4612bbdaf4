"""The checks of `doctor`.

No result contains any part of the key: reports are pasted into tickets.
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
from yarl import URL

from aifaceswap import _validation
from aifaceswap._http.proxies import Proxies
from aifaceswap._limits import API_KEY_VARIABLE, BASE_URL_VARIABLE, SIGNATURE_TOLERANCE
from aifaceswap._validation import Secret
from aifaceswap._version import __version__
from aifaceswap.cli.context import SITE, CommandContext
from aifaceswap.cli.failures import API_PATH, describe, format_duration, next_step
from aifaceswap.cli.rendering import printable
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    AuthenticationError,
    ConfigurationError,
)
from aifaceswap.models import Account

State = Literal["ok", "warning", "problem", "skipped"]

#: Seconds for each check that uses the network.
TIMEOUT_SECONDS = 10.0


_NOTABLE_SKEW = 30.0
_RENEWAL = 14 * 86_400
_SHOWN_ADDRESSES = 3
_PROXY_CONNECTS = "needs a direct connection; the proxy connects to the service"
_PROXIES = ("HTTPS_PROXY", "ALL_PROXY")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*?(?:>=(?P<least>[0-9.]+))?[^;>]*(?:;|$)")
_EXTRA = re.compile(r"""extra == ['"](?P<name>[^'"]+)['"]""")

# OpenSSL's numbers for what is wrong with a certificate.
_NOT_NOW = frozenset({9, 10})
_OTHER_HOST = frozenset({62, 64})


@attrs.frozen
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        state: The verdict; ``skipped`` if a check that it needs has failed.
        text: The verdict in words.
        next: What to do about it.
        data: The verdict for programs.
    """

    name: str
    state: State
    text: str
    next: str | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


@attrs.frozen
class Settings:
    """What a client would start with.

    Attributes:
        key: The API key, unchecked.
        base_url: The base URL, unchecked.
        proxy: The proxy that was typed, or ``"environment"``.
        key_error: What is wrong with the key.
        url_error: What is wrong with the URL.
        uses_proxy: Whether requests to the base URL go through a proxy.
    """

    key: Secret
    base_url: str
    proxy: str | None = attrs.field(default=None, repr=False)
    key_error: ConfigurationError | None = None
    url_error: ConfigurationError | None = None
    uses_proxy: bool = False

    @classmethod
    def check(cls, key: str | Secret, base_url: str, *, proxy: str | None = None) -> Settings:
        """Check the key and the base URL."""
        secret = Secret(key)
        del key
        url_error = _validation_error(_validation.base_url, base_url)
        proxies = Proxies.of(None if proxy is None else Secret(proxy))
        return cls(
            secret,
            base_url,
            proxy,
            _validation_error(_validation.api_key, secret),
            url_error,
            url_error is None and proxies.proxy_for(URL(base_url)) is not None,
        )

    @property
    def parts(self) -> SplitResult | None:
        """The parts of the URL; None if it is malformed."""
        return None if self.url_error else urlsplit(self.base_url)


@attrs.frozen
class Reply:
    """The outcome of the one request.

    Attributes:
        seconds: How long it took.
        ended: Unix time when it finished.
        account: The account, if the response has one.
        headers: The headers of the response.
        error: How it failed.
    """

    seconds: float
    ended: float
    account: Account | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    error: AIFaceSwapError | None = None

    @property
    def was_received(self) -> bool:
        """Whether there was any response."""
        return not isinstance(self.error, APIConnectionError)


def check_versions() -> Check:
    """Versions of the package, of Python and of the dependencies."""
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
        advice = "install the package again, in its own virtual environment"
        return Check("Versions", "problem", f"{'; '.join(old)} ({text})", advice, found)
    return Check("Versions", "ok", text, data=found)


def _requirements() -> Iterator[tuple[str, str | None, str | None]]:
    """Name, lowest version and extra of each requirement."""
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
    """Whether there is a key, it can be sent, and the service accepts it."""
    if settings.key_error is not None:
        fault, advice = describe(settings.key_error), next_step(settings.key_error, context)
        missing = f"{API_KEY_VARIABLE} is not set"
        return Check("Key", "problem", fault if settings.key.reveal() else missing, advice)
    length = _length(settings.key.reveal())
    if reply is not None and isinstance(reply.error, AuthenticationError):
        advice = next_step(reply.error, context)
        return Check("Key", "problem", f"{describe(reply.error)}; {length}", advice)
    if reply is not None and reply.account is not None:
        return Check("Key", "ok", f"accepted; {length}")
    return Check("Key", "skipped", f"{length}; the service could not be asked whether it is valid")


def _length(key: str) -> str:
    quotes = ", the first one a quote" if key[0] in "'\"`" else ""
    return f"{pluralize('character', len(key))}{quotes}"


def check_base_url(context: CommandContext, settings: Settings) -> Check:
    """Whether the key may be sent to the base URL, and the API is there."""
    if settings.url_error is not None:
        advice = next_step(settings.url_error, context)
        return Check("Base URL", "problem", describe(settings.url_error), advice)
    data = {"url": settings.base_url}
    if not urlsplit(settings.base_url).path.rstrip("/").endswith(API_PATH):
        text = f"{settings.base_url} does not end in {API_PATH}"
        advice = f"export {BASE_URL_VARIABLE}={settings.base_url.rstrip('/')}{API_PATH}"
        return Check("Base URL", "warning", text, advice, data)
    return Check("Base URL", "ok", settings.base_url, data=data)


async def check_name(settings: Settings) -> Check:
    """Whether the host name of the base URL resolves."""
    if settings.parts is None or settings.uses_proxy:
        reason = "needs a base URL" if settings.parts is None else _PROXY_CONNECTS
        return Check("Name", "skipped", reason)
    host = settings.parts.hostname or ""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no response from DNS, or not a valid name"
        advice = (
            f"check the network, the DNS server, and the spelling in {BASE_URL_VARIABLE}, "
            "if you have set it"
        )
        return Check("Name", "problem", f"{host} does not resolve: {reason}", advice)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    shown = ", ".join(addresses[:_SHOWN_ADDRESSES])
    text = host if [host] == addresses else f"{host} is {shown}"
    return Check("Name", "ok", text, data={"addresses": addresses})


async def check_tls(settings: Settings) -> Check:
    """Whether the TLS handshake succeeds, and how long the certificate is valid."""
    parts = settings.parts
    if parts is None or settings.uses_proxy:
        reason = "needs a base URL" if parts is None else _PROXY_CONNECTS
        return Check("TLS", "skipped", reason)
    if parts.scheme == "http":
        return Check("TLS", "ok", "not used: plain http, which does not leave this machine")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            version, certificate = await _handshake(parts.hostname or "", parts.port or 443)
    except ssl.SSLCertVerificationError as error:
        text = f"the certificate is not valid: {error.verify_message}"
        return Check("TLS", "problem", text, _certificate_advice(error))
    except ssl.SSLError as error:
        advice = f"the server there does not use TLS; correct {BASE_URL_VARIABLE}"
        return Check("TLS", "problem", f"handshake failed: {error.reason or error}", advice)
    except (OSError, UnicodeError) as error:
        reason = "no response in time" if isinstance(error, TimeoutError) else "no connection"
        return Check("TLS", "skipped", reason)
    return judge_certificate(version, certificate)


async def _handshake(host: str, port: int) -> tuple[str, Mapping[str, Any]]:
    """The version of TLS and the certificate, which the client's HTTP library does not show."""
    _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
    try:
        kept = writer.get_extra_info("ssl_object")
        return kept.version(), kept.getpeercert()
    finally:
        writer.transport.abort()


def judge_certificate(version: str, certificate: Mapping[str, Any]) -> Check:
    """How long a certificate stays valid."""
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
        return "set this machine's clock; if it is right, the server needs a new certificate"
    if error.verify_code in _OTHER_HOST:
        return f"the certificate belongs to another host; correct {BASE_URL_VARIABLE}"
    return (
        "install the system's certificates (ca-certificates); behind a proxy or a server of your "
        "own, set SSL_CERT_FILE to a file that also has the certificate of its authority"
    )


def check_service(context: CommandContext, reply: Reply | None) -> Check:
    """Whether the service responds as the API does."""
    if reply is None:
        return Check("Service", "skipped", "needs a key and a base URL")
    took = f"{reply.seconds * 1000:,.0f} ms"
    data = {"seconds": round(reply.seconds, 3)}
    if reply.error is None:
        return Check("Service", "ok", f"responded in {took}", data=data)
    if isinstance(reply.error, AuthenticationError):  # the line of the key shows it
        return Check("Service", "ok", f"responded with {reply.error.status} in {took}", data=data)
    advice = next_step(reply.error, context)
    return Check("Service", "problem", describe(reply.error), advice, data)


def check_clock(reply: Reply | None) -> Check:
    """This machine's clock against the service's: webhook deliveries are rejected by age."""
    if reply is None or not reply.headers:
        return Check("Clock", "skipped", "needs a response from the service")
    try:
        server = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return Check("Clock", "skipped", "the response has no Date header")
    # The header is truncated to seconds, and is written at any moment of the request.
    skew = reply.ended - reply.seconds / 2 - (server + 0.5)
    off = f"{format_duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the service's"
    data = {"skew_seconds": round(skew, 1)}
    advice = "set the clock, e.g.: sudo timedatectl set-ntp true"
    if abs(skew) <= _NOTABLE_SKEW:
        return Check("Clock", "ok", f"within {_NOTABLE_SKEW:g} s of the service's", data=data)
    if abs(skew) < SIGNATURE_TOLERANCE:
        text = f"{off}; from {SIGNATURE_TOLERANCE:g} s on, webhook deliveries are rejected"
        return Check("Clock", "warning", text, advice, data)
    text = f"{off}; all webhook deliveries are rejected as too old or too far ahead"
    return Check("Clock", "problem", text, advice, data)


def check_credits(reply: Reply | None) -> Check:
    """The remaining credits."""
    if reply is None or reply.account is None:
        return Check("Credits", "skipped", "needs an accepted key")
    total = reply.account.credits.total
    data = {"total": total}
    if total <= 0:
        return Check("Credits", "problem", "none left", f"add credits on {SITE}", data)
    return Check("Credits", "ok", f"{total:,.10g} left", data=data)


def check_requests(reply: Reply | None) -> Check:
    """The remaining requests of the current window."""
    if reply is None or reply.account is None:
        return Check("Requests", "skipped", "needs an accepted key")
    rate = reply.account.rate_limit
    window = "" if rate.window_seconds is None else f" in {rate.window_seconds:g} s"
    text = f"{rate.remaining:,.10g} of {rate.limit:,.10g} left{window}"
    data = {"remaining": rate.remaining, "limit": rate.limit}
    if rate.remaining <= 0:
        advice = "wait a minute; if that does not help, find out what else uses the key"
        return Check("Requests", "warning", text, advice, data)
    return Check("Requests", "ok", text, data=data)


def check_proxies(settings: Settings, reply: Reply | None) -> Check:
    """The proxy that is used, and those in the environment that are not."""
    names = [name for name in (*_PROXIES, *map(str.lower, _PROXIES)) if os.environ.get(name)]
    given = settings.proxy not in {None, "environment"}
    source = "--proxy" if given else ", ".join(names)
    if not source:
        return Check("Proxies", "ok", "none in the environment")
    data = {"from": source, "used": settings.uses_proxy}
    if not settings.uses_proxy:
        return Check("Proxies", "ok", f"{source}: not used for this base URL", data=data)
    if reply is None or reply.was_received:
        return Check("Proxies", "ok", f"{source}: used", data=data)
    advice = "check the proxy; to connect without one, add the host to NO_PROXY"
    return Check("Proxies", "warning", f"{source}: used, and nothing came back", advice, data)


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
