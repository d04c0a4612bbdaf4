"""Connections to Redis: one client for each event loop, commands that end in time, outages."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import attrs
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from aifaceswap._validation import Secret
from aifaceswap.errors import ConfigurationError

T = TypeVar("T")
Command = Callable[[Any], Awaitable[T]]
Factory = Callable[[], Any]

# Seconds after a failure in which nothing is tried: calls do not each wait for a timeout.
_PAUSE = 1.0
# A server that rejects only some commands would else be reported each second.
_WARNING_PAUSE = 60.0
_CONNECTIONS = 8
# A response may lie in the socket while the event loop is blocked: redis-py waits for longer
# than we do, and is cancelled.
_SOCKET_EXTRA = 5.0
_LATE = 1.2
_MAX_REPORTS = 1000
_CLOSE_SECONDS = 2.0
_SHOWN = 200  # characters of redis-py's message
MUST_BE = (
    "url_or_factory must be a URL like 'redis://localhost:6379/0' (redis, rediss or unix) with "
    "options that redis-py knows, or a function that returns a new redis.asyncio client"
)

_log = logging.getLogger("aifaceswap")


class UnreachableError(Exception):
    """Redis sent no usable response in time. Never leaves this package.

    Attributes:
        may_have_run: Whether the command may have been carried out.
    """

    def __init__(self, reason: str, *, may_have_run: bool) -> None:
        super().__init__(reason)
        self.may_have_run = may_have_run


class Script:
    """A Lua script, sent by its hash if the server knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha: str = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@attrs.frozen
class _Report:
    """A script whose result nobody waits for."""

    script: Script
    keys: list[str]
    arguments: tuple[str | float, ...]
    ends: float  # monotonic seconds, after which it is not worth sending


@attrs.define(eq=False, repr=False)
class _Client:
    """A client of redis-py. Closed while it runs a command it would connect again."""

    redis: Any
    commands: set[asyncio.Task[Any]] = attrs.field(factory=set[asyncio.Task[Any]])

    async def close(self) -> None:
        """Close it when its commands have ended."""
        if self.commands:
            await asyncio.wait(self.commands)
        # A stalled connection must not hold up the end of a program.
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.redis.aclose()


@attrs.define(eq=False)
class _Link:
    """What belongs to one event loop."""

    client: _Client | None = None
    keeper: asyncio.Task[None] | None = None
    reports: deque[_Report] = attrs.field(factory=lambda: deque(maxlen=_MAX_REPORTS))
    has_reports: asyncio.Event = attrs.field(factory=asyncio.Event)


class Connection:
    """Runs commands on the running event loop's client, which closes with its loop.

    A command runs in a task of its own: it ends within `timeout` whatever happens to its caller,
    because redis-py can lose a cancellation.
    """

    def __init__(self, source: Secret | Factory, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._links: dict[asyncio.AbstractEventLoop, _Link] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self._outage = ""
        self._warned_at = -_WARNING_PAUSE
        self._is_warned = False
        if isinstance(source, Secret) and not _can_connect(self._connect):
            # Not the URL, nor redis-py's message about it: they may show a password.
            raise ConfigurationError(MUST_BE, field="url_or_factory")

    async def run(self, command: Command[T]) -> T:
        """Run a command; raise `UnreachableError` within the timeout if it fails."""
        if time.monotonic() < self._retry_at:
            raise UnreachableError(self._outage, may_have_run=False)
        link = self._link()
        # To connect takes a round trip of its own.
        timeout = self._timeout if link.client else 2 * self._timeout
        client = link.client or self._open(link)
        task = self.start(_awaited(command, client.redis))
        client.commands.add(task)
        task.add_done_callback(client.commands.discard)
        error = await _error_of(task, timeout)
        if error is None:
            self._note_recovery()
            return task.result()
        # Outside an except block: redis-py's errors hold frames with the password.
        raise self._failed(link, client, error)

    async def evaluate(self, script: Script, keys: list[str], *arguments: str | float) -> Any:
        """Run a script; raise `UnreachableError` if it fails."""

        async def command(client: Any) -> Any:
            try:
                return await client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await client.eval(script.source, len(keys), *keys, *arguments)

        return await self.run(command)

    def report(
        self, script: Script, keys: list[str], *arguments: str | float, max_age: float
    ) -> None:
        """Run a script in the background, again after an outage unless it is older then."""
        link = self._link()
        link.reports.append(_Report(script, keys, arguments, time.monotonic() + max_age))
        link.has_reports.set()
        self._ensure_keeper(link)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    async def undo_if_cancelled(
        self, work: Coroutine[Any, Any, T], undo: Callable[[], Awaitable[object]]
    ) -> T:
        """Do something; if the caller is cancelled meanwhile, undo it once it has been done."""
        task = self.start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.start(_undo(task, undo))
            raise

    async def aclose(self) -> None:
        """Send what is left to report, and close the running loop's client."""
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None and link.keeper is not None:
            link.keeper.cancel()
            await asyncio.wait({link.keeper})

    @property
    def is_down(self) -> bool:
        """Whether the last command failed."""
        return bool(self._outage)

    def _link(self) -> _Link:
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            for other in [other for other in list(self._links) if other.is_closed()]:
                self._links.pop(other, None)
            link = self._links[loop] = _Link()
        return link

    def _open(self, link: _Link) -> _Client:
        link.client = _Client(self._connect())
        self._ensure_keeper(link)
        return link.client

    def _ensure_keeper(self, link: _Link) -> None:
        if link.keeper is None or link.keeper.done():
            # Not in the context of the call that happens to be the first.
            link.keeper = asyncio.get_running_loop().create_task(
                self._keep(link), context=contextvars.Context()
            )

    async def _keep(self, link: _Link) -> None:
        """Send reports. When the loop ends, which cancels it, send the last ones and close."""
        try:
            while True:
                await link.has_reports.wait()
                link.has_reports.clear()
                await self._send_reports(link)
        finally:
            # Calls that are cancelled at the same moment have something to report, too.
            for _ in range(3):
                await asyncio.sleep(0)
            with suppress(UnreachableError):
                while link.reports:
                    await self._send(link.reports.popleft())
            loop = asyncio.get_running_loop()
            if started := [task for task in list(self._tasks) if task.get_loop() is loop]:
                await asyncio.wait(started, timeout=self._timeout)
            if link.client is not None:
                await link.client.close()

    async def _send_reports(self, link: _Link) -> None:
        while link.reports:
            report = link.reports.popleft()
            try:
                await self._send(report)
            except UnreachableError:
                if time.monotonic() < report.ends:
                    link.reports.appendleft(report)
                    await asyncio.sleep(_PAUSE)
            except asyncio.CancelledError:
                link.reports.appendleft(report)
                raise

    async def _send(self, report: _Report) -> None:
        await self.evaluate(report.script, report.keys, *report.arguments)

    def _connect(self) -> Any:
        if not isinstance(self._source, Secret):
            return _made_by(self._source)
        pools: Any = BlockingConnectionPool
        pool = pools.from_url(
            self._source.reveal(),
            max_connections=_CONNECTIONS,
            timeout=self._timeout,
            socket_timeout=self._timeout + _SOCKET_EXTRA,
            socket_connect_timeout=self._timeout,
            # Again at once: the server may have closed an idle connection.
            retry=Retry(NoBackoff(), 1),
        )
        return Redis.from_pool(pool)

    def _failed(self, link: _Link, client: _Client, error: BaseException) -> UnreachableError:
        reason = f"{type(error).__name__}: {str(error)[:_SHOWN]}"
        # The event loop ends, or another command has failed and closed the client.
        if isinstance(error, asyncio.CancelledError) or link.client is not client:
            return UnreachableError(reason, may_have_run=True)
        # After a failover its other connections would fail one by one.
        link.client = None
        self.start(client.close())
        now = time.monotonic()
        with self._lock:
            is_new = not self._outage and now >= self._warned_at + _WARNING_PAUSE
            self._outage, self._retry_at = reason, now + _PAUSE
            if is_new:
                self._warned_at, self._is_warned = now, True
        if is_new:
            _log_safely(_log.warning, "Redis is unreachable (%s); trying again each second", reason)
        return UnreachableError(reason, may_have_run=True)

    def _note_recovery(self) -> None:
        if not self._outage:
            return
        with self._lock:
            self._outage = ""
            was_warned, self._is_warned = self._is_warned, False
        if was_warned:
            _log_safely(_log.info, "Redis is reachable again")

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: the caller may be gone


async def _error_of(task: asyncio.Task[Any], timeout: float) -> BaseException | None:
    """Wait for the end of a command; the error that it ended with."""
    started = time.monotonic()
    done, _ = await asyncio.wait({task}, timeout=timeout)
    if not done and time.monotonic() - started > _LATE * timeout:
        # The event loop was blocked: the response may have been here all the time.
        done, _ = await asyncio.wait({task}, timeout=timeout)
    if not done:
        task.cancel()
        return TimeoutError(f"no response within {timeout:g} s")
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def _awaited(command: Command[T], client: Any) -> T:
    return await command(client)


def _can_connect(connect: Callable[[], Any]) -> bool:
    """Whether redis-py accepts the URL with its options; nothing is sent."""
    try:
        connect().connection_pool.make_connection()
    except Exception:  # ValueError, TypeError, AttributeError: whatever the URL leads to
        return False
    return True


def _made_by(factory: Factory) -> Any:
    try:
        client = factory()
    except Exception as error:
        text = f"url_or_factory must return a redis.asyncio client; it raised {error!r}"
        raise ConfigurationError(text, field="url_or_factory") from error
    if isinstance(client, Redis | RedisCluster):
        return client
    text = f"url_or_factory must return a redis.asyncio client; got {type(client).__name__}"
    raise ConfigurationError(text, field="url_or_factory")


def _log_safely(log: Callable[..., None], text: str, *arguments: object) -> None:
    with suppress(Exception):  # an error of a log handler ends no call
        log(text, *arguments)


async def _undo(task: asyncio.Task[Any], undo: Callable[[], Awaitable[object]]) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await undo()
