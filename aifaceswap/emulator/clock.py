"""The emulator's clocks: one follows the event loop, one moves only on request."""

from __future__ import annotations

import abc
import asyncio
import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

import attrs

from aifaceswap.emulator import _validators as validators
from aifaceswap.emulator._times import TICK

if TYPE_CHECKING:
    from typing import TypeAlias

#: Where a `VirtualClock` starts by default: 2026-01-01T00:00:00Z.
EPOCH = 1_767_225_600.0

_FARTHEST = 1e12
_NANOSECONDS = 1_000_000_000
_Sleeper: TypeAlias = "tuple[float, int, asyncio.AbstractEventLoop, asyncio.Future[None]]"


class Clock(abc.ABC):
    """What the emulator asks of a clock."""

    @abc.abstractmethod
    def now(self) -> float:
        """The time in unix seconds. Never goes back."""

    @abc.abstractmethod
    async def sleep_until(self, when: float) -> None:
        """Return when the clock has reached `when`, in unix seconds."""

    @abc.abstractmethod
    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, from any thread, and wake who has slept long enough."""

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: B027 (optional)
        """Called by the emulator when it starts in `loop`."""

    def restart(self) -> None:  # noqa: B027 (optional)
        """Called by the emulator when it is reset."""


@attrs.define(eq=False)
class RealClock(Clock):
    """The event loop's time, from the wall clock's at the start.

    Attributes:
        speed: Seconds of the emulator's time for each second of the loop's; greater than 0, at
            most 1e6.
    """

    speed: float = attrs.field(default=1.0, validator=validators.number(above=0.0, most=1e6))
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False, repr=False)
    _wall: float = attrs.field(default=0.0, init=False, repr=False)
    _start: float = attrs.field(default=0.0, init=False, repr=False)
    _sleepers: set[asyncio.Future[None]] = attrs.field(
        factory=set[asyncio.Future[None]], init=False, repr=False
    )

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow `loop` from now on."""
        if loop is not self._loop:
            self._wall, self._start, self._loop = self.now(), loop.time(), loop

    def now(self) -> float:
        """The time in unix seconds."""
        if self._loop is None:
            return max(time.time(), self._wall)
        return self._wall + (self._loop.time() - self._start) * self.speed

    def restart(self) -> None:
        """Continue from the wall clock's time."""
        self._wall = time.time()
        if self._loop is not None:
            self._start = self._loop.time()

    async def sleep_until(self, when: float) -> None:
        """Return when the clock has reached `when`, in unix seconds."""
        loop = asyncio.get_running_loop()
        self.bind(loop)
        while when > self.now():
            # Before the time is read: `advance()` may come from another thread in between.
            self._sleepers.add(alarm := loop.create_future())
            timer = loop.call_later((when - self.now()) / self.speed, _finish, alarm)
            try:
                await alarm
            finally:
                timer.cancel()
                self._sleepers.discard(alarm)

    def advance(self, seconds: float) -> None:
        """Jump ahead by `seconds`, in addition to running; from any thread.

        Args:
            seconds: 0 to 1e12.

        Raises:
            ValueError: `seconds` is negative, or too great for a clock.
            TypeError: `seconds` is not a number.
        """
        _require_ahead(seconds)
        if self._loop is None:
            self._wall = self.now() + seconds
        else:
            self._wall += seconds
        for alarm in list(self._sleepers):
            _wake(alarm.get_loop(), alarm)


@attrs.define(eq=False)
class VirtualClock(Clock):
    """A clock that moves only by `advance()`, from any thread.

    Attributes:
        start: Where it starts, in unix seconds.
    """

    start: float = attrs.field(default=EPOCH, validator=validators.number())
    _time: int = attrs.field(init=False, repr=False)
    _sleepers: list[_Sleeper] = attrs.field(factory=list[_Sleeper], init=False, repr=False)
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Integers of nanoseconds: ten steps of 0.1 s are one second.
        self._time = round(self.start * _NANOSECONDS)

    def now(self) -> float:
        """The time in unix seconds."""
        return self._time / _NANOSECONDS

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, and wake who has slept long enough, in order.

        Args:
            seconds: 0 to 1e12.

        Raises:
            ValueError: `seconds` is negative, or too great for a clock.
            TypeError: `seconds` is not a number.
        """
        _require_ahead(seconds)
        with self._lock:
            self._time += round(seconds * _NANOSECONDS)
            while self._sleepers and self._sleepers[0][0] <= self.now() + TICK:
                _, _, loop, future = heapq.heappop(self._sleepers)
                _wake(loop, future)

    def restart(self) -> None:
        """Go back to the start. Tasks that sleep continue to sleep."""
        with self._lock:
            self._time = round(self.start * _NANOSECONDS)

    async def sleep_until(self, when: float) -> None:
        """Return when the clock has reached `when`, in unix seconds."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if when <= self.now() + TICK:
                return
            future: asyncio.Future[None] = loop.create_future()
            heapq.heappush(self._sleepers, (when, next(self._numbers), loop, future))
        await future


def to_clock(clock: Clock | None) -> Clock:
    """Turn None into a clock that follows the event loop."""
    return RealClock() if clock is None else clock


def _require_ahead(seconds: float) -> None:
    validators.require_number("seconds", seconds)
    if not 0 <= seconds <= _FARTHEST:
        raise ValueError(f"seconds must be at least 0 and at most 1e12; got {seconds!r}")


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_finish, future)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
