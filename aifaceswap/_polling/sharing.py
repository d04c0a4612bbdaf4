"""What processes with one API key share of its swaps, and whose turn it is to poll them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aifaceswap.coordination import Ends, SwapReport
from aifaceswap.models import Swap

# Seconds between two signs of life of the process that polls.
_RENEWAL = 1.5
# Seconds between two questions for a turn: its holder may end it early.
_SHORTEST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


class Publisher(Protocol):
    """Passes on what was seen of swaps, and frees the slots of those that have finished."""

    def publish_soon(self, report: SwapReport) -> None:
        """Pass on a report in the background, from any thread."""


class SharedPublisher:
    """Passes on what was seen of swaps to all processes."""

    def __init__(self, ends: Ends, aclose: Callable[[], Awaitable[None]]) -> None:
        self._ends = ends
        self._aclose = aclose
        self._tasks: set[asyncio.Task[None]] = set()

    def publish_soon(self, report: SwapReport) -> None:
        """Pass on a report in the background; a thread without a loop waits for it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._publish_once(report))
            return
        task = loop.create_task(self._ends.publish(report))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish_once(self, report: SwapReport) -> None:
        await self._ends.publish(report)
        await self._aclose()


class SharedPolls:
    """One event loop's view of what all processes see: read only while someone waits."""

    def __init__(self, ends: Ends, receive: Callable[[SwapReport, bool], None]) -> None:
        self._ends = ends
        self._receive = receive
        self._position = ""
        self._is_wanted = False
        self._reading: asyncio.Task[None] | None = None
        self.origin = os.urandom(8).hex()

    def start(self) -> None:
        """Read until `stop()`."""
        self._is_wanted = True
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())

    def stop(self) -> None:
        """Nobody waits: the read in progress, which ends within a moment, is the last one."""
        self._is_wanted = False

    async def publish_list(self, swaps: Sequence[Swap], age: float) -> None:
        """Pass on the key's newest swaps as they were a moment ago."""
        await self._ends.publish(SwapReport(swaps, self.origin, list_age=age))

    @asynccontextmanager
    async def turn(self, pause: float) -> AsyncGenerator[float]:
        """Poll while no other process does: yields 0, or the seconds after which to ask again."""
        token = os.urandom(8).hex()
        wait = await self._ends.begin_poll(token)
        if wait:
            yield min(max(wait, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            return
        renewal = asyncio.get_running_loop().create_task(self._keep_turn(token))
        try:
            yield 0.0
        except asyncio.CancelledError:
            pause = 0.0  # another one may poll at once
            raise
        finally:
            renewal.cancel()
            await self._ends.end_poll(token, pause)

    async def _keep_turn(self, token: str) -> None:
        while True:
            await asyncio.sleep(_RENEWAL)
            await self._ends.begin_poll(token)

    async def _read(self) -> None:
        """Take in what was published since the last time, then what comes."""
        is_new = False
        while self._is_wanted:
            reports, self._position = await self._ends.read(self._position, wait=is_new)
            for report in reports:
                if report.origin != self.origin:
                    self._receive(report, is_new)
            is_new = True
