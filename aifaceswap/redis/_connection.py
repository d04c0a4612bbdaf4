"""Connections to Redis: one client for each event loop, commands that end in time, outages."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import attrs
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

T = TypeVar("T")
Command = Callable[[Any], Awaitable[T]]

# Seconds after a failure in which no command is tried: calls do not each wait for a timeout.
_PAUSE = 1.0
_CONNECTIONS = 8
# The share of the timeout by which a blocked event loop is noticed.
_LATE = 1.2

_log = logging.getLogger("aifaceswap")


class UnreachableError(Exception):
    """Redis sent no usable response in time. Never leaves this package."""


@attrs.frozen
class Script:
    """A Lua script, sent by its hash where the server knows it."""

    source: str
    sha: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


class Connection:
    """Runs commands on the running event loop's client.

    A command runs in a task of its own: it ends within `timeout` whatever happens to its caller,
    because redis-py can lose a cancellation.
    """

    def __init__(self, source: str | Callable[[], Any], timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._process = os.getpid()
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._retry_at = 0.0
        self._is_down = False

    async def run(self, command: Command[T]) -> T:
        """Run a command; raise `UnreachableError` within the timeout if it fails."""
        if time.monotonic() < self._retry_at:
            raise UnreachableError
        task = self.start(self._execute(command))
        started = time.monotonic()
        done, _ = await asyncio.wait({task}, timeout=self._timeout)
        if not done and time.monotonic() - started > _LATE * self._timeout:
            # The event loop was blocked: the response may have been here all the time.
            done, _ = await asyncio.wait({task}, timeout=self._timeout)
        if not done:
            task.cancel()
            raise self._failed(TimeoutError(f"no response within {self._timeout:g} s"))
        try:
            result = task.result()
        except (RedisError, OSError, TimeoutError, asyncio.CancelledError) as error:
            raise self._failed(error) from None
        if self._is_down:
            self._is_down = False
            _log.info("Redis responds again")
        return result

    async def evaluate(self, script: Script, keys: list[str], *arguments: str | float) -> Any:
        """Run a script; raise `UnreachableError` if it fails."""

        async def command(client: Any) -> Any:
            try:
                return await client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await client.eval(script.source, len(keys), *keys, *arguments)

        return await self.run(command)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in the background; `aclose()` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Finish what runs on the running loop, and close its client."""
        loop = asyncio.get_running_loop()
        if tasks := [task for task in self._tasks if task.get_loop() is loop]:
            await asyncio.wait(tasks, timeout=2 * self._timeout)
        client = self._clients.pop(loop, None)
        if client is not None:
            await client.aclose()

    def client(self) -> Any:
        """The running loop's client; after a fork a new one."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._clients = {}
            self._tasks = set()
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            for closed in [other for other in self._clients if other.is_closed()]:
                del self._clients[closed]
            client = self._clients[loop] = self._connect()
        return client

    async def _execute(self, command: Command[T]) -> T:
        return await command(self.client())

    def _connect(self) -> Any:
        if callable(self._source):
            return self._source()
        pools: Any = BlockingConnectionPool
        pool = pools.from_url(
            self._source,
            max_connections=_CONNECTIONS,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            # Once more at once: the server may have closed an idle connection.
            retry=Retry(NoBackoff(), 1),
        )
        return Redis.from_pool(pool)

    def _failed(self, error: BaseException) -> UnreachableError:
        self._retry_at = time.monotonic() + _PAUSE
        if not self._is_down:
            self._is_down = True
            _log.warning("Redis is unreachable (%s); it is tried again", type(error).__name__)
        return UnreachableError()
