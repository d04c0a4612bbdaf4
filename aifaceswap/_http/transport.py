"""Sends calls over HTTP: attempts, retries and streams for downloads."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from html import escape
from json import dumps
from typing import Any, SupportsIndex, TypeVar
from urllib.parse import quote

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from aifaceswap import _validation
from aifaceswap._api.requests import USER_AGENT, Call
from aifaceswap._api.responses import RATE_LIMITED, RawResponse, read_rate_limit
from aifaceswap._http.exceptions import RAISED, SEND_ONCE, connection_error, mapped_chunks
from aifaceswap._http.proxies import Proxies
from aifaceswap._http.retry import next_wait
from aifaceswap._http.sessions import Sessions, forget_names, require_asyncio
from aifaceswap._http.telemetry import CallObserver, observe
from aifaceswap._limits import ATTEMPT_TIMEOUT
from aifaceswap._validation import Proxy, Secret
from aifaceswap.budget import Permit, Purpose, RequestBudget
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIStatusError,
    ConcurrencyLimitError,
    ConfigurationError,
    RateLimitError,
    short_repr,
)
from aifaceswap.models import RateLimit

T = TypeVar("T")
R = TypeVar("R")

MAX_BODY = 8 * 1024 * 1024
_DEFAULT_PAUSE = 1.0  # seconds after a 429 that does not say
_DAY = 86_400.0
NEVER = float("inf")
# A shorter key, as in a test, may be part of any word.
_SHORTEST_ECHO = 8
_ANONYMOUS_HEADERS = frozenset(
    {"Accept", "Accept-Encoding", "Connection", "Host", "If-Range", "Range", "User-Agent"}
)


def _seconds(instance: object, field: attrs.Attribute[float], value: object) -> None:
    _validation.seconds(field.name, value)


def _non_negative(instance: object, field: attrs.Attribute[int], value: object) -> None:
    _validation.non_negative_integer(field.name, value)


@attrs.frozen(kw_only=True)
class CallOptions:
    """Timeouts and retries of a call; wrong values raise `ConfigurationError`.

    Attributes:
        timeout: Seconds for one attempt, once the budget has let it go.
        deadline: Seconds for the call with all its attempts and waits.
        max_retries: Attempts after the first one.
        max_wait: Seconds that the call may spend waiting for rate limits.
    """

    timeout: float = attrs.field(default=ATTEMPT_TIMEOUT, validator=_seconds)
    deadline: float = attrs.field(default=120.0, validator=_seconds)
    max_retries: int = attrs.field(default=4, validator=_non_negative)
    max_wait: float = attrs.field(default=NEVER, converter=_validation.max_wait)


class Transport:
    """Sends calls to one base URL with one key, from any number of event loops.

    Args:
        api_key: The key; it goes to the base URL and nowhere else.
        base_url: Where the API is, with its version.
        budget: What lets attempts go; None: nothing holds them back.
        session: A session of the caller's own, never closed here.
        proxies: The HTTP proxy, if there is one.
    """

    def __init__(
        self,
        *,
        api_key: Secret,
        base_url: str,
        budget: RequestBudget | None,
        session: aiohttp.ClientSession | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            text = f"session must be an aiohttp.ClientSession; got {short_repr(session)}"
            raise ConfigurationError(text, field="session")
        self.base_url = base_url
        self._proxies = proxies or Proxies()
        self._authorization = Secret(f"Bearer {api_key.reveal()}")
        self._echoes = [Secret(text) for text in _echoes(api_key, self._proxies.proxy)]
        self._headers = {
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        self.budget = budget
        self._budget: RequestBudget = _Unlimited() if budget is None else budget
        self._injected = session
        self._sessions = Sessions()
        # The requests left according to the last response.
        self.rate_limit: RateLimit | None = None

    def fingerprint(self, salt: bytes) -> bytes:
        """What recognises this client's API key, and does not reveal it."""
        return hmac.digest(salt, self._authorization.reveal().encode(), "sha256")

    async def send(
        self,
        call: Call[T],
        options: CallOptions,
        read: Callable[[Call[T], RawResponse, int], R],
    ) -> R:
        """Carry out a call: attempts, waits and all.

        Args:
            call: What to send; each attempt sends the same bytes.
            options: Timeouts and retries.
            read: Builds the result or the error from a response and the number of attempts.

        Returns:
            What `read` returned for the last response.

        Raises:
            AIFaceSwapError: How the last attempt ended, with the call's idempotency key.
        """
        require_asyncio()
        with observe(call, self.base_url) as observer:
            try:
                return await self._send_with_retries(call, options, read, observer)
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
        self, url: URL, headers: Mapping[str, str], timeout: float
    ) -> AsyncGenerator[Stream]:
        """Open a URL for download: without the key, without redirects, one attempt.

        Args:
            url: An absolute URL.
            headers: What to send besides.
            timeout: Seconds for the connection and headers, and again for each piece.

        Yields:
            The response, before its body is read.

        Raises:
            APIConnectionError: It could not be reached, or was interrupted while it was read.
        """
        patience = aiohttp.ClientTimeout(
            total=None, connect=timeout, sock_read=timeout, ceil_threshold=NEVER
        )
        session = self._session() or await self._sessions.open()
        try:
            response = await session.get(
                url,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
                allow_redirects=False,
                proxy=self._proxies.proxy_for(url),
                timeout=patience,
                raise_for_status=False,
                middlewares=(self._make_anonymous, *SEND_ONCE),
            )
        except RAISED as error:
            failure = connection_error(error, timeout)
            forget_names(session, failure)
        else:
            async with response:
                chunks = mapped_chunks(response.content.iter_any(), timeout)
                yield Stream(response.status, CIMultiDict(response.headers), chunks)
            return
        raise failure

    async def _send_with_retries(
        self,
        call: Call[T],
        options: CallOptions,
        read: Callable[[Call[T], RawResponse, int], R],
        observer: CallObserver,
    ) -> R:
        """The attempts of a call, and the waits between them."""
        clock = asyncio.get_running_loop().time
        now = clock()
        ends = now + options.deadline
        max_wait = options.max_wait
        attempts = 0
        is_poll = call.purpose == "poll"
        while True:
            asked = now
            try:
                # The time that a poll spends in the queue does not count towards its deadline.
                wanted = max_wait if is_poll else min(ends - asked, max_wait)
                permit = await self._budget.acquire(call.purpose, max_wait=wanted)
            except APIStatusError as error:
                error.attempts = attempts
                raise
            now = clock()
            max_wait = max(0.0, max_wait - (now - asked))
            if is_poll:
                ends += now - asked
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
                # A poll that meets a 429 comes again at its next turn.
                if wait is None or (is_poll and limited):
                    raise
                observer.retrying(error, wait)
            await asyncio.sleep(wait)
            now = clock()
            if limited:
                max_wait -= wait

    async def _attempt(self, call: Call[Any], permit: Permit, timeout: float) -> RawResponse:
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

    async def _exchange(self, call: Call[Any], timeout: float) -> RawResponse:
        session = self._session() or await self._sessions.open()
        url = URL(self.base_url + call.path, encoded=True)
        headers: dict[str, str] = {**self._headers, **call.headers}
        if call.idempotency_key is not None:
            headers["Idempotency-Key"] = call.idempotency_key
        try:
            async with (
                asyncio.timeout(timeout),
                session.request(
                    call.method,
                    url,
                    data=None if call.body is None else aiohttp.BytesPayload(call.body),
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._proxies.proxy_for(url),
                    raise_for_status=False,
                    middlewares=(self._authorize, *(() if call.method == "POST" else SEND_ONCE)),
                ) as response,
            ):
                body, whole = await _read(response)
                raw = RawResponse(response.status, CIMultiDict(response.headers), body, whole)
                return self._redacted(raw)
        except RAISED as error:
            failure = connection_error(error, timeout)
            forget_names(session, failure)
        # Outside the except: aiohttp's errors hold the request's headers, and the key.
        raise failure

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Add the key where no frame of aiohttp has it in a local."""
        if request.proxy is not None and not request.is_ssl():
            text = "session must not send plain http through a proxy, which would see the key"
            raise ConfigurationError(text, field="session")
        request.headers["Authorization"] = _Hidden(self._authorization.reveal())
        self._authorize_proxy(request)
        return await handler(request)

    async def _make_anonymous(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Take off what an injected session or a netrc file added: results can be anywhere."""
        for name in {name for name in request.headers if name.title() not in _ANONYMOUS_HEADERS}:
            request.headers.popall(name)
        self._authorize_proxy(request)
        return await handler(request)

    def _authorize_proxy(self, request: aiohttp.ClientRequest) -> None:
        proxy = self._proxies.proxy
        if request.proxy is not None and proxy is not None and proxy.authorization is not None:
            header = _Hidden(proxy.authorization.reveal())
            request.proxy_headers = CIMultiDict({"Proxy-Authorization": header})

    def _redacted(self, response: RawResponse) -> RawResponse:
        """The same without secrets that a proxy's page or a debug header may echo."""
        headers, body = response.headers, response.body
        for echo in self._echoes:
            body = body.replace(echo.reveal().encode(), b"***")
            if any(echo.reveal() in value for value in headers.values()):
                headers = CIMultiDict(
                    (name, value.replace(echo.reveal(), "***")) for name, value in headers.items()
                )
        if body is response.body and headers is response.headers:
            return response
        return attrs.evolve(response, headers=headers, body=body)

    def _note(self, error: AIFaceSwapError, attempts: int) -> None:
        if isinstance(error, APIConnectionError):
            error.attempts = attempts
        if isinstance(error, RateLimitError):
            self._penalize(error)

    def _penalize(self, error: RateLimitError) -> None:
        """A 429 holds back every call of the client, not the one that met it alone."""
        seconds = min(_DEFAULT_PAUSE if error.retry_after is None else error.retry_after, _DAY)
        # Polls must continue, because they see swaps finish.
        creations_only = isinstance(error, ConcurrencyLimitError)
        self._budget.penalize(
            seconds,
            purpose="create" if creations_only else None,
            code=error.code or RATE_LIMITED,
        )

    def _session(self) -> aiohttp.ClientSession | None:
        if self._injected is None:
            return self._sessions.current()
        if self._injected.closed:
            text = "session must be open; the given aiohttp session is closed"
            raise ConfigurationError(text, field="session")
        return self._injected


@attrs.frozen
class Stream:
    """A response whose body is not read yet.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any case.
        chunks: The body in pieces.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class _Hidden(str):
    """A header's value that no traceback shows, nor a slice of it: aiohttp needs a string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice, /) -> str:
        return _Hidden(super().__getitem__(index))


def _echoes(api_key: Secret, proxy: Proxy | None) -> set[str]:
    """The secrets as a page can repeat them: as they are, and escaped for HTML, URLs and JSON."""
    texts = [api_key.reveal()]
    if proxy is not None and proxy.authorization is not None:
        texts.append(proxy.authorization.reveal().removeprefix("Basic "))
    ways: tuple[Callable[[str], str], ...] = (str, escape, quote, lambda text: dumps(text)[1:-1])
    return {way(text) for text in texts if len(text) >= _SHORTEST_ECHO for way in ways}


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
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
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
