"""aiohttp sessions: one for each event loop, closed with its loop; and the caller's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

import aiohttp
import attrs
from aiohttp.abc import AbstractStreamWriter

from aifaceswap.errors import APIConnectionError, ConfigurationError

# Of each request, so that the settings of a caller's session do not apply.
NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, ceil_threshold=float("inf"))
MAX_HEADER: Final = 64 * 1024  # bytes; proxies add long policies and cookies


class Sessions:
    """One session for each event loop, made at its first call and closed with its loop."""

    def __init__(self) -> None:
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}

    def current(self) -> aiohttp.ClientSession | None:
        """The running loop's session, if it has one that is open."""
        kept = self._kept.get(asyncio.get_running_loop())
        return None if kept is None or kept.session.closed else kept.session

    async def open(self) -> aiohttp.ClientSession:
        """Give the running loop a session."""
        # A copy: other threads, each with a loop, may open sessions meanwhile.
        for loop in list(self._kept):
            if loop.is_closed():
                self._kept.pop(loop, None)
        session = aiohttp.ClientSession(
            connector=_Connector(), cookie_jar=aiohttp.DummyCookieJar(), timeout=NO_TIMEOUT
        )
        kept = self._kept[asyncio.get_running_loop()] = _Kept(session, _close_with_loop(session))
        await anext(kept.guard)
        return session

    async def close_own(self) -> None:
        """Close the running loop's session, if there is one."""
        kept = self._kept.pop(asyncio.get_running_loop(), None)
        if kept is not None:
            await kept.guard.aclose()


def require_asyncio() -> None:
    """Check that the caller runs in asyncio's event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        text = (
            "AsyncClient must run in an asyncio event loop; "
            "with trio, call the blocking Client in a thread (trio.to_thread.run_sync)"
        )
        raise ConfigurationError(text) from None


def forget_names(session: aiohttp.ClientSession, failure: APIConnectionError) -> None:
    """After a failed connect the next attempt resolves the host's name again."""
    if not failure.sent and isinstance(session.connector, aiohttp.TCPConnector):
        session.connector.clear_dns_cache()


class Body(aiohttp.BytesPayload):
    """The body of one attempt, which knows whether it may have been sent."""

    was_sent = False

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self.was_sent = True
        await super().write_with_length(writer, content_length)


class _Connector(aiohttp.TCPConnector):
    """Does not reuse a connection on which the server has sent something unasked."""

    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(*args, **kwargs)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            # What came would be read as the response to the next request.
            connection.close()


def check_session(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """Check that the running loop can use a caller's session; its settings are overridden."""
    loop = asyncio.get_running_loop()
    if session.closed:
        reason = "must be open; the given aiohttp session is closed"
    elif getattr(session, "_loop", loop) is not loop:  # its public name is deprecated
        reason = "must belong to the running event loop; create it there"
    else:
        return session
    raise ConfigurationError(f"session {reason}", field="session")


@attrs.frozen
class _Kept:
    session: aiohttp.ClientSession
    guard: AsyncGenerator[None]


async def _close_with_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    """A generator that is never finished: `asyncio.run()` closes those before it ends."""
    try:
        yield
    finally:
        # An upload that has stalled must not hold up the end of the program.
        with suppress(TimeoutError):
            await asyncio.wait_for(session.close(), timeout=2.0)
