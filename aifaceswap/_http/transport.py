"""Sends calls over HTTP: attempts, retries and streams for downloads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from aifaceswap._api.requests import USER_AGENT, Call
from aifaceswap._api.responses import RATE_LIMITED, RawResponse, read_rate_limit
from aifaceswap._http.attempts import NEVER, CallAttempts, CallOptions
from aifaceswap._http.credentials import Credentials
from aifaceswap._http.exceptions import RAISED, SEND_ONCE, connection_error, mapped_chunks
from aifaceswap._http.proxies import Proxies
from aifaceswap._http.sessions import (
    MAX_HEADER,
    NO_TIMEOUT,
    Body,
    Sessions,
    check_session,
    forget_names,
    require_asyncio,
)
from aifaceswap._http.telemetry import CallObserver, observe
from aifaceswap._validation import Secret
from aifaceswap.budget import Permit, Purpose, RequestBudget
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    ConcurrencyLimitError,
    ConfigurationError,
    RateLimitError,
    name_call,
)
from aifaceswap.models import RateLimit

T = TypeVar("T")
R = TypeVar("R")

MAX_BODY = 8 * 1024 * 1024
_DEFAULT_PAUSE = 1.0  # seconds after a 429 without a usable Retry-After
_DAY = 86_400.0


class Transport:
    """Sends calls to one base URL with one key, from any number of event loops.

    Args:
        api_key: The key; it goes to the base URL and nowhere else.
        base_url: Where the API is, with its version.
        budget: The rate limiter; None: no limit.
        session: The caller's session, which is never closed here.
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
        if session is not None and not isinstance(session, aiohttp.ClientSession):  # pyright: ignore[reportUnnecessaryIsInstance]
            reason = "must be an aiohttp.ClientSession"
            raise ConfigurationError.for_field("session", session, reason)
        self.base_url = base_url
        self._headers = {
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        self._proxies = proxies or Proxies()
        self._credentials = Credentials(api_key, self._proxies.proxy)
        self.budget = budget
        self._budget: RequestBudget = _Unlimited() if budget is None else budget
        self._injected = session
        self._sessions = Sessions()
        # aiohttp resends a GET on a lost connection, but not a POST.
        authorize = self._credentials.authorize
        self._middlewares = ((authorize, *SEND_ONCE), (authorize,))
        # The requests left by the last response, for the polling schedule.
        self.rate_limit: RateLimit | None = None

    def fingerprint(self, salt: bytes) -> bytes:
        """What recognises this client's API key, and does not reveal it."""
        return self._credentials.fingerprint(salt)

    async def send(
        self,
        call: Call[T],
        options: CallOptions,
        read: Callable[[Call[T], RawResponse, int], R],
    ) -> R:
        """Send a call with all its attempts and waits; `read` decodes the last response."""
        require_asyncio()
        try:
            with observe(call, self.base_url) as observer:
                return await self._send_with_retries(call, options, read, observer)
        except BaseException as error:
            name_call(error, call.idempotency_key)
            raise

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._sessions.close_own()

    @asynccontextmanager
    async def stream(
        self, url: URL, headers: Mapping[str, str], timeout: float
    ) -> AsyncGenerator[Stream]:
        """Open an absolute URL for download: one attempt without the key and redirects.

        `timeout` covers the connection and the headers, and again each chunk.
        """
        limits = aiohttp.ClientTimeout(
            total=None, connect=timeout, sock_read=timeout, ceil_threshold=NEVER
        )
        session = self._session() or await self._sessions.open()
        try:
            response = await session.get(
                url,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
                allow_redirects=False,
                proxy=self._proxies.proxy_for(url),
                timeout=limits,
                middlewares=(self._credentials.make_anonymous, *SEND_ONCE),
                raise_for_status=False,
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
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
        attempts = CallAttempts(call, options)
        while True:
            permit = await self._acquire(call, attempts)
            attempts.start()
            observer.sending()
            try:
                response = await self._attempt(call, permit, attempts.timeout)
                observer.answered(response)
                return read(call, response, attempts.count)
            except AIFaceSwapError as error:
                wait = attempts.fail(error)
                if isinstance(error, RateLimitError):
                    self._penalize(error)
                if wait is None:
                    raise attempts.final_error()  # noqa: B904 - the cause is set
                observer.retrying(error, wait)
            await asyncio.sleep(wait)
            attempts.resume(wait)

    async def _acquire(self, call: Call[Any], attempts: CallAttempts) -> Permit:
        """The permit for the next attempt."""
        try:
            return await self._budget.acquire(call.purpose, max_wait=attempts.permit_wait)
        except AIFaceSwapError as rejection:
            attempts.reject(rejection)
            raise attempts.final_error()  # noqa: B904 - the cause is set

    async def _attempt(self, call: Call[Any], permit: Permit, timeout: float) -> RawResponse:
        """One exchange; its permit is settled whatever happens."""
        rate_limit = None
        try:
            response = await self._exchange(call, timeout)
            rate_limit = read_rate_limit(response.headers)
        except APIConnectionError as error:
            if not error.sent:
                permit.cancel()
            raise
        except ConfigurationError:
            permit.cancel()
            raise
        finally:
            permit.settle(rate_limit)
        self.rate_limit = rate_limit or self.rate_limit
        return response

    async def _exchange(self, call: Call[Any], timeout: float) -> RawResponse:
        session = self._session() or await self._sessions.open()
        url = URL(self.base_url + call.path, encoded=True)
        headers: dict[str, str] = {**self._headers, **call.headers}
        if call.idempotency_key is not None:
            headers["Idempotency-Key"] = call.idempotency_key
        body = None if call.body is None else Body(call.body)
        try:
            async with (
                asyncio.timeout(timeout),
                session.request(
                    call.method,
                    url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._proxies.proxy_for(url),
                    middlewares=self._middlewares[call.method == "POST"],
                    timeout=NO_TIMEOUT,
                    raise_for_status=False,
                    auto_decompress=True,
                    max_line_size=MAX_HEADER,
                    max_field_size=MAX_HEADER,
                ) as response,
            ):
                content, complete = await _read(response)
                received = CIMultiDict(response.headers)
                raw = RawResponse(response.status, received, content, complete)
                return self._credentials.redact(raw)
        except RAISED as error:
            sent = None if body is None else body.was_sent
            failure = connection_error(error, timeout, sent=sent)
            forget_names(session, failure)
        # Outside the except: aiohttp's errors hold the request's headers, and the key.
        raise failure

    def _penalize(self, error: RateLimitError) -> None:
        """A 429 delays every call of the client, not only the one that met it."""
        seconds = min(error.retry_after or _DEFAULT_PAUSE, _DAY)
        # Polls must continue: they are how slots are seen to become free.
        creations_only = isinstance(error, ConcurrencyLimitError)
        self._budget.penalize(
            seconds,
            purpose="create" if creations_only else None,
            code=error.code or RATE_LIMITED,
        )

    def _session(self) -> aiohttp.ClientSession | None:
        if self._injected is None:
            return self._sessions.current()
        return check_session(self._injected)


@attrs.frozen
class Stream:
    """A response whose body has not been read yet.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any case.
        chunks: The body in pieces.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class _FreePermit:
    """A permit without a limit."""

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        """Nothing is counted."""

    def cancel(self) -> None:
        """Nothing is counted."""


class _Unlimited:
    """The budget of a client without one."""

    _permit = _FreePermit()

    async def acquire(
        self, purpose: Purpose = "read", *, max_wait: float | None = None
    ) -> _FreePermit:
        return self._permit

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
    ) -> None:
        """Each call waits after its own 429."""


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """The decompressed body up to the cap, and whether it is complete."""
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
