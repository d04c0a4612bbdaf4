"""HTTP: the only module that imports aiohttp's client.

One attempt of a call, the loop of its attempts inside a deadline, and streams for downloads.
Whatever aiohttp raises leaves here as one of our errors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from aifaceswap._protocol import USER_AGENT, Answer, Call, read_rate_limit
from aifaceswap._retry import next_wait
from aifaceswap._telemetry import Observer, observe
from aifaceswap.budget import Permit, Purpose, RequestBudget
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConcurrencyLimitError,
    ConfigurationError,
    RateLimitError,
)
from aifaceswap.models import RateLimit

T = TypeVar("T")
R = TypeVar("R")

MAX_BODY = 8 * 1024 * 1024
_DEFAULT_PAUSE = 1.0  # seconds after a 429 that does not say
_DAY = 86_400.0
NEVER = float("inf")


@attrs.frozen(kw_only=True)
class Options:
    """How patient a call is.

    Attributes:
        timeout: Seconds for one attempt, once the budget has let it go.
        deadline: Seconds for the whole call with all its attempts and waits.
        max_retries: Attempts after the first one.
        max_wait: Seconds that the whole call may spend waiting for the service's limits.
    """

    timeout: float = 30.0
    deadline: float = 120.0
    max_retries: int = 4
    max_wait: float = NEVER


class Transport:
    """Sends calls to one base URL with one key, from any number of event loops.

    Args:
        api_key: The key; it goes to the base URL and nowhere else.
        base_url: Where the API is, with its version.
        budget: What lets attempts go; None: nothing holds them back.
        session: A session of the caller's own, never closed here.
        proxy: The URL of an HTTP proxy.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        budget: RequestBudget | None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
    ) -> None:
        self.base_url = base_url
        self._headers = {
            "Authorization": _Secret(f"Bearer {api_key}"),
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        self._budget: RequestBudget = _Unlimited() if budget is None else budget
        self._injected = session
        self._proxy = None if proxy is None else _Secret(proxy)
        self._sessions = _Sessions()
        # What the last answer said of the requests left, for whoever plans requests.
        self.rate_limit: RateLimit | None = None

    async def send(
        self,
        call: Call[T],
        options: Options,
        read: Callable[[Call[T], Answer, int], R],
    ) -> R:
        """Carry out a call: attempts, waits and all.

        Args:
            call: What to send; each attempt sends the same bytes.
            options: How patient to be.
            read: Makes the result or the error of an answer and the number of attempts.

        Returns:
            What `read` made of the last answer.

        Raises:
            AIFaceSwapError: How the last attempt ended, with the call's idempotency key.
        """
        with observe(call, self.base_url) as observer:
            try:
                return await self._carry_out(call, options, read, observer)
            except AIFaceSwapError as error:
                error.idempotency_key = call.idempotency_key
                raise
            except asyncio.CancelledError as error:
                if call.idempotency_key:
                    error.add_note(f"cancelled; idempotency key: {call.idempotency_key}")
                raise

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._sessions.close_own()

    @asynccontextmanager
    async def stream(
        self, url: str, headers: Mapping[str, str], timeout: float
    ) -> AsyncGenerator[Stream]:
        """Open a URL for download: without the key, without redirects, one attempt.

        Args:
            url: An absolute URL.
            headers: What to send besides.
            timeout: Seconds for the connection and headers, and again for each piece.

        Yields:
            The answer, its body still to come.

        Raises:
            APIConnectionError: It could not be reached, or broke off while it was read.
        """
        patience = aiohttp.ClientTimeout(
            total=None, connect=timeout, sock_read=timeout, ceil_threshold=NEVER
        )
        session = self._session() or await self._sessions.open()
        try:
            response = await session.get(
                URL(url, encoded=url.isascii()),  # a signed query must stay as it is
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
                allow_redirects=False,
                proxy=self._proxy,
                timeout=patience,
                middlewares=_ONCE,
            )
        except _RAISED as error:
            failure = connection_error(error, timeout)
        else:
            async with response:
                chunks = _mapped(response.content.iter_any(), timeout)
                yield Stream(response.status, CIMultiDict(response.headers), chunks)
            return
        raise failure

    async def _carry_out(
        self,
        call: Call[T],
        options: Options,
        read: Callable[[Call[T], Answer, int], R],
        observer: Observer,
    ) -> R:
        """The attempts of a call, and the waits between them."""
        clock = asyncio.get_running_loop().time
        now = clock()
        ends = now + options.deadline
        max_wait = options.max_wait
        attempts = 0
        while True:
            asked = now
            try:
                wanted = min(ends - asked, max_wait)
                permit = await self._budget.acquire(call.purpose, max_wait=wanted)
            except APIStatusError as error:
                error.attempts = attempts
                raise
            now = clock()
            max_wait = max(0.0, max_wait - (now - asked))
            attempts += 1
            observer.sending()
            try:
                answer = await self._attempt(call, permit, min(options.timeout, ends - now))
                observer.answered(answer)
                return read(call, answer, attempts)
            except AIFaceSwapError as error:
                self._note(error, attempts)
                limited = isinstance(error, RateLimitError)
                time_left = min(ends - clock(), max_wait if limited else NEVER)
                wait = next_wait(attempts, error, time_left, max_retries=options.max_retries)
                if wait is None:
                    raise
                observer.retrying(error, wait)
            await asyncio.sleep(wait)
            now = clock()
            if limited:
                max_wait -= wait

    async def _attempt(self, call: Call[Any], permit: Permit, timeout: float) -> Answer:
        """One exchange, which the budget has let go."""
        rate_limit = None
        try:
            answer = await self._exchange(call, timeout)
            rate_limit = read_rate_limit(answer.headers)
        except APIConnectionError as error:
            if not error.sent:
                permit.cancel()
            raise
        finally:
            permit.settle(rate_limit)
        self.rate_limit = rate_limit or self.rate_limit
        return answer

    async def _exchange(self, call: Call[Any], timeout: float) -> Answer:
        session = self._session() or await self._sessions.open()
        headers: dict[str, str] = {**self._headers, **call.headers}
        if call.idempotency_key is not None:
            headers["Idempotency-Key"] = call.idempotency_key
        try:
            async with (
                asyncio.timeout(timeout),
                session.request(
                    call.method,
                    URL(self.base_url + call.path, encoded=True),
                    data=None if call.body is None else aiohttp.BytesPayload(call.body),
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._proxy,
                    middlewares=None if call.method == "POST" else _ONCE,
                ) as response,
            ):
                body, whole = await _read(response)
                return Answer(response.status, CIMultiDict(response.headers), body, whole)
        except _RAISED as error:
            failure = connection_error(error, timeout)
        # Outside the except: aiohttp's errors hold the request's headers, and the key.
        raise failure

    def _note(self, error: AIFaceSwapError, attempts: int) -> None:
        if isinstance(error, APIConnectionError):
            error.attempts = attempts
        if isinstance(error, RateLimitError):
            self._penalize(error)

    def _penalize(self, error: RateLimitError) -> None:
        """A 429 holds back every call of the client, not the one that met it alone."""
        seconds = min(_DEFAULT_PAUSE if error.retry_after is None else error.retry_after, _DAY)
        # Polls must go on where it is swaps that have to end.
        creations_only = isinstance(error, ConcurrencyLimitError)
        self._budget.penalize(
            seconds,
            purpose="create" if creations_only else None,
            code=error.code or "rate_limited",
        )

    def _session(self) -> aiohttp.ClientSession | None:
        if self._injected is None:
            return self._sessions.current()
        if self._injected.closed:
            text = "session: the given aiohttp session is closed"
            raise ConfigurationError(text, field="session")
        return self._injected


@attrs.frozen
class Stream:
    """An answer whose body is still to come.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any case.
        chunks: The body in pieces.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class _Sessions:
    """One session for each event loop, made at its first call and closed with its loop."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}

    def current(self) -> aiohttp.ClientSession | None:
        """The running loop's session, if it has one that is open."""
        if self._process != os.getpid():
            self._abandon()
        kept = self._kept.get(asyncio.get_running_loop())
        return None if kept is None or kept.session.closed else kept.session

    async def open(self) -> aiohttp.ClientSession:
        """Give the running loop a session."""
        for loop in [loop for loop in self._kept if loop.is_closed()]:
            del self._kept[loop]
        session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
        )
        kept = self._kept[asyncio.get_running_loop()] = _Kept(session, _close_with_loop(session))
        await anext(kept.guard)
        return session

    async def close_own(self) -> None:
        """Close the running loop's session, if there is one."""
        kept = self._kept.pop(asyncio.get_running_loop(), None)
        if kept is not None and self._process == os.getpid():
            await kept.guard.aclose()

    def _abandon(self) -> None:
        """After a fork the sockets are the parent's: closing them here would disturb it."""
        _inherited.append(self._kept)
        self._kept = {}
        self._process = os.getpid()


@attrs.frozen
class _Kept:
    session: aiohttp.ClientSession
    guard: AsyncGenerator[None]


# Kept from the garbage collector for as long as the process lives.
_inherited: list[dict[asyncio.AbstractEventLoop, _Kept]] = []


async def _close_with_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    """A generator that is never finished: `asyncio.run()` closes those before it ends."""
    try:
        yield
    finally:
        # An upload that has stalled must not hold up the end of the program.
        with suppress(TimeoutError):
            await asyncio.wait_for(session.close(), timeout=2.0)


class _Secret(str):
    """Text that no traceback, log line or debugger shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class _Free:
    """A permit that holds nothing back."""

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        """Nothing to count."""

    def cancel(self) -> None:
        """Nothing to give back."""


class _Unlimited:
    """The budget of a client without one."""

    _permit = _Free()

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> _Free:
        return self._permit

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = "rate_limited"
    ) -> None:
        """Each call obeys its own 429."""


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """The body up to the cap, decompressed, and whether that is all of it."""
    chunks: list[bytes] = []
    size = 0
    while not response.content.at_eof():
        chunk = await response.content.readany()
        size += len(chunk)
        if size > MAX_BODY:
            response.close()
            return b"".join(chunks), False
        chunks.append(chunk)
    return b"".join(chunks), True


async def _mapped(chunks: AsyncIterator[bytes], timeout: float) -> AsyncGenerator[bytes]:
    """The same pieces; where they end in one of aiohttp's errors, it is one of ours."""
    try:
        async for chunk in chunks:
            yield chunk
    except _RAISED as error:
        failure = connection_error(error, timeout)
    else:
        return
    raise failure


class _Lost(Exception):  # noqa: N818 - a carrier, never seen outside
    """Carries a lost connection past aiohttp, which would send a GET again unasked."""


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Lost(error) from error


_ONCE = (_send_once,)
_RAISED = (aiohttp.ClientError, _Lost, OSError, ValueError, RuntimeError)
_NEVER_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ServerFingerprintMismatch,
    ValueError,
    RuntimeError,
)


def connection_error(error: BaseException, timeout: float) -> APIConnectionError:
    """Our error for one of aiohttp's. Its words are ours: theirs may hold headers and URLs.

    Args:
        error: What aiohttp raised.
        timeout: The attempt's timeout in seconds, for the message.

    Returns:
        The error, with `sent` telling whether the request may have reached the service.
    """
    if isinstance(error, _Lost):
        error = error.args[0]
    sent = not isinstance(error, _NEVER_SENT)
    if isinstance(error, TimeoutError):
        return APITimeoutError(f"no whole answer within {timeout:.3g} s", sent=sent)
    return APIConnectionError(f"{_what_happened(error)} ({type(error).__name__})", sent=sent)


def _what_happened(error: BaseException) -> str:  # noqa: C901, PLR0911 - a table of words
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host!r} does not resolve"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {error.host!r} is not valid: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused: {error.status} {error.message}"
        case aiohttp.ClientResponseError():
            # Its first line alone: what follows are bytes of the answer.
            return f"the answer is not HTTP: {error.message.partition(chr(10))[0]}"
        case aiohttp.ClientPayloadError():
            return "the answer broke off or cannot be decompressed"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "the URL is malformed"
        case RuntimeError():
            return "the session is closed or belongs to another event loop"
        case aiohttp.ServerFingerprintMismatch():
            return "the certificate is not the one that was expected"
        case ValueError():
            return "the request cannot be sent"
        case _:
            return "the connection was lost before a whole answer came"
