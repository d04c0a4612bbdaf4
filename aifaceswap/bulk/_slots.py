"""Slots: how many swaps may be unfinished at once, by the service's count.

A slot whose swap timed out is doubtful: the service may or may not count it still. While nothing
but doubtful slots is left, one request to create a swap at a time finds out.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from enum import Enum, auto

import attrs

_FIRST_BACKOFF = 2.0
_LONGEST_BACKOFF = 60.0


class _State(Enum):
    HELD = auto()
    DOUBTFUL = auto()
    FREE = auto()


@attrs.define(eq=False)
class Slot:
    """One unfinished swap."""

    _slots: Slots
    is_own: bool
    is_probe: bool = False
    state: _State = _State.HELD
    _timer: asyncio.TimerHandle | None = None

    def accepted(self) -> None:
        """The service has created the swap: a doubtful slot was free, if this probed one."""
        self._slots.probe_accepted(self)

    def refused(self, retry_after: float, *, at_most: float = math.inf) -> None:
        """Others hold the slot: ask again after so many seconds at the earliest and at most."""
        self._slots.probe_refused(self, retry_after, at_most)

    def doubt(self) -> None:
        """The swap did not finish in time, or it is not known whether it exists."""
        if self.state is _State.HELD:
            self._slots.move(self, _State.DOUBTFUL)

    def doubt_in(self, seconds: float) -> None:
        """Doubt it when so much time has passed."""
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self.doubt)

    def release(self) -> None:
        """The swap has finished, or was never created."""
        if self._timer is not None:
            self._timer.cancel()
        if self.state is not _State.FREE:
            self._slots.move(self, _State.FREE)


class Slots:
    """The slots of one run; those of others that it knows of are counted.

    Args:
        own: How many swaps the run may have unfinished.
        shared: How many the service allows the key.
    """

    def __init__(self, own: int, shared: int) -> None:
        self._own = own
        self._shared = max(own, shared)
        self._loop = asyncio.get_running_loop()
        self._held = 0  # by this run
        self._others = 0
        self._doubtful: dict[Slot, None] = {}
        self._waiters: deque[asyncio.Future[Slot]] = deque()
        self._probe: Slot | None = None
        self._next_probe = 0.0
        self._backoff = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """How many slots the run is sure to hold."""
        return self._held

    async def acquire(self, *, first: bool = False) -> Slot:
        """Wait for a slot.

        Args:
            first: Whether to come before all who wait already.
        """
        waiter: asyncio.Future[Slot] = self._loop.create_future()
        (self._waiters.appendleft if first else self._waiters.append)(waiter)
        self._grant()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                waiter.result().release()
            raise

    def hold(self, *, own: bool = True) -> Slot:
        """Take a slot for a swap that the service counts already, even if none is free."""
        slot = Slot(self, own)
        self._count(slot, 1)
        return slot

    def probe_accepted(self, slot: Slot) -> None:
        """Let go of a doubtful slot: the service did not count it."""
        self._backoff = 0.0
        if slot is self._probe:
            self._probe = None
            if self._doubtful:
                next(iter(self._doubtful)).release()
            self._grant()

    def probe_refused(self, slot: Slot, retry_after: float, at_most: float) -> None:
        """Make the slot doubtful, unless it was probing one, and wait before the next probe."""
        now = self._loop.time()
        if now >= self._next_probe:
            self._backoff = min(_LONGEST_BACKOFF, 2 * self._backoff or _FIRST_BACKOFF)
        self._next_probe = now + min(at_most, max(self._backoff, retry_after))
        self.move(slot, _State.FREE if slot.is_probe else _State.DOUBTFUL)

    def move(self, slot: Slot, state: _State) -> None:
        """Count a slot in its new state."""
        self._doubtful.pop(slot, None)
        if slot.state is _State.HELD:
            self._count(slot, -1)
        if state is _State.DOUBTFUL:
            self._doubtful[slot] = None
        slot.state = state
        if slot is self._probe:
            self._probe = None
        self._grant()

    def _count(self, slot: Slot, by: int) -> None:
        if slot.is_own:
            self._held += by
        else:
            self._others += by

    def _grant(self) -> None:
        while self._waiters:
            if self._waiters[0].done():  # cancelled
                self._waiters.popleft()
            elif (slot := self._take()) is not None:
                self._waiters.popleft().set_result(slot)
            else:
                return

    def _grant_later(self) -> None:
        self._timer = None
        self._grant()

    def _take(self) -> Slot | None:
        sure = self._held + self._others
        if self._held >= self._own or sure >= self._shared:
            return None
        is_probe = sure + len(self._doubtful) >= self._shared
        if is_probe and not self._may_probe():
            return None
        slot = Slot(self, is_own=True, is_probe=is_probe)
        self._count(slot, 1)
        if is_probe:
            self._probe = slot
        return slot

    def _may_probe(self) -> bool:
        if self._probe is not None:
            return False
        wait = self._next_probe - self._loop.time()
        if wait > 0 and self._timer is None:
            self._timer = self._loop.call_later(wait, self._grant_later)
        return wait <= 0
