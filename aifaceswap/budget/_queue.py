"""Those who wait for a permit, on any number of event loops, and who of them goes next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

from aifaceswap._api.requests import Purpose

P = TypeVar("P")

PURPOSES: tuple[Purpose, ...] = ("create", "read", "poll")

# When all of them queue, a poll goes after every fourth creation and every fourth read.
_COSTS: dict[Purpose, float] = {"create": 1.0, "read": 1.0, "poll": 4.0}
_LARGEST_COST = 4.0


class Waiter(Generic[P]):
    """One call that waits for a permit, on its own event loop."""

    __slots__ = ("_granted", "loop", "order", "permit", "purpose", "since")

    def __init__(
        self, purpose: Purpose, order: int, loop: asyncio.AbstractEventLoop, since: float
    ) -> None:
        self.purpose: Purpose = purpose
        self.order = order
        self.loop = loop
        self.since = since
        self.permit: P | None = None
        self._granted: asyncio.Future[P] = loop.create_future()

    async def wait(self, max_wait: float | None) -> P:
        """Wait for the permit; `TimeoutError` after so many seconds."""
        if max_wait is None:
            return await self._granted
        async with asyncio.timeout(max_wait):
            return await self._granted

    def grant(self, permit: P) -> None:
        """Hand over a permit, from whatever thread."""
        self.permit = permit
        # The loop may be closed at any moment by its own thread.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._wake, permit)

    def _wake(self, permit: P) -> None:
        if not self._granted.done():
            self._granted.set_result(permit)


class _Line(Generic[P]):
    """Those who wait on one event loop, and when its alarm rings."""

    __slots__ = ("alarm", "loop", "queues")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.alarm: float | None = None
        # Ordered, and quick to leave from the middle.
        self.queues: dict[Purpose, OrderedDict[Waiter[P], None]] = {
            purpose: OrderedDict() for purpose in PURPOSES
        }


class FairQueue(Generic[P]):
    """First come, first served in each purpose, and fair shares between purposes.

    Shares are kept by start-time fair queueing: each grant moves its purpose's next turn on by
    the purpose's cost, and the earliest turn goes next. So no purpose can starve another.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.lines: dict[asyncio.AbstractEventLoop, _Line[P]] = {}
        self._turn = 0.0
        self._turns: dict[Purpose, float] = dict.fromkeys(PURPOSES, 0.0)

    def add(self, waiter: Waiter[P]) -> bool:
        """Queue a waiter; True if it is the first of its purpose in its loop."""
        purpose = waiter.purpose
        line = self.lines.get(waiter.loop)
        if line is None:
            line = self.lines[waiter.loop] = _Line(waiter.loop)
        queue = line.queues[purpose]
        if not (queue or self.number_waiting(purpose)):
            self._turns[purpose] = max(self._turns[purpose], self._turn)
        queue[waiter] = None
        return len(queue) == 1

    def remove(self, waiter: Waiter[P]) -> None:
        """Take a waiter out, if it is still there."""
        line = self.lines.get(waiter.loop)
        if line is not None:
            line.queues[waiter.purpose].pop(waiter, None)
            if not any(line.queues.values()):
                del self.lines[waiter.loop]

    def pop(self, waiter: Waiter[P]) -> None:
        """Take out the one who goes now: its purpose has had a turn."""
        self.remove(waiter)
        start = self._start(waiter.purpose)
        self._turn = max(self._turn, start)
        self._turns[waiter.purpose] = start + _COSTS[waiter.purpose]

    def heads(self) -> list[Waiter[P]]:
        """The first of each queue, without the loops that have closed or stopped."""
        for loop in [loop for loop in self.lines if loop.is_closed()]:
            del self.lines[loop]
        lines = [line for line in self.lines.values() if line.loop.is_running()]
        return [next(iter(q)) for line in lines for q in line.queues.values() if q]

    def next_of(self, heads: list[Waiter[P]], now: float) -> Waiter[P] | None:
        """Who of them goes next."""
        return min(heads, key=lambda head: (self._rank(head, now), head.order), default=None)

    def number_ahead(self, purpose: Purpose, rivals: Iterable[Purpose]) -> int:
        """How many of the purpose and its rivals get a permit before one who comes now."""
        ahead = self.number_waiting(purpose)
        end = self._start(purpose) + (ahead + 1) * _COSTS[purpose]
        for rival in rivals:
            turns = int((end - self._start(rival)) / _COSTS[rival])
            ahead += min(self.number_waiting(rival), max(0, turns))
        return ahead

    def number_waiting(self, purpose: Purpose) -> int:
        """How many wait, on loops that run."""
        lines = self.lines.values()
        return sum(len(line.queues[purpose]) for line in lines if line.loop.is_running())

    def set_alarms(self, when: float, ring: Callable[[], object]) -> None:
        """Have every loop call `ring` at this moment: any of them may be the next to end."""
        running = _running_loop()
        for line in self.lines.values():
            if line.alarm is None or when < line.alarm:
                line.alarm = when
                if line.loop is running:
                    self._arm(line, when, ring)
                else:
                    with suppress(RuntimeError):  # closed at this moment
                        line.loop.call_soon_threadsafe(self._arm, line, when, ring)

    def _arm(self, line: _Line[P], when: float, ring: Callable[[], object]) -> None:
        line.loop.call_at(when, self._ring, line, when, ring)

    def _ring(self, line: _Line[P], when: float, ring: Callable[[], object]) -> None:
        if line.alarm == when:  # else an earlier alarm has taken its place
            line.alarm = None
            ring()

    def _rank(self, head: Waiter[P], now: float) -> float:
        """The virtual time at which a turn ends; for who has waited long, at which it starts."""
        is_old = head.since <= now - self._patience
        return self._start(head.purpose) + (0.0 if is_old else _COSTS[head.purpose])

    def _start(self, purpose: Purpose) -> float:
        """When a purpose's next turn starts; who was paused has not saved up many turns."""
        return max(self._turns[purpose], self._turn - _LARGEST_COST)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
