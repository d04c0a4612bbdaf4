"""The emulator's clocks: one follows the event loop, one moves only when told to."""

from __future__ import annotations

import abc
import asyncio
import email.utils
import functools
import heapq
import itertools
import math
import threading
import time
from typing import TYPE_CHECKING

import attrs

from aifaceswap.emulator._service import validators

if TYPE_CHECKING:
    from typing import TypeAlias

#: Two readings nearer than this are the same moment: floats of unix time are 0.24 µs apart.
TICK = 1e-6

#: Where a `VirtualClock` starts unless told otherwise: 2026-01-01T00:00:00Z.
EPOCH = 1_767_225_600.0

_FARTHEST = 1e12
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
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

    def restart(self, at: float | None = None) -> None:  # noqa: B027 (optional)
        """Called by the emulator when its state is a fresh one, or a loaded one of `at`."""


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

    def restart(self, at: float | None = None) -> None:
        """Go on from the wall clock's time, or from `at` where that is later."""
        self._wall = max(time.time(), at or 0.0)
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
        """Jump ahead by `seconds`, besides going on; from any thread.

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
        # Whole nanoseconds: ten steps of 0.1 s are one second.
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

    def restart(self, at: float | None = None) -> None:
        """Go to `at`, in unix seconds, or back to the start. Who sleeps sleeps on."""
        with self._lock:
            self._time = round((self.start if at is None else at) * _NANOSECONDS)

    async def sleep_until(self, when: float) -> None:
        """Return when the clock has reached `when`, in unix seconds."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if when <= self.now() + TICK:
                return
            future: asyncio.Future[None] = loop.create_future()
            heapq.heappush(self._sleepers, (when, next(self._numbers), loop, future))
        await future


def _require_ahead(seconds: float) -> None:
    validators.require_number("seconds", seconds)
    if not 0 <= seconds <= _FARTHEST:
        raise ValueError(f"seconds must be at least 0 and at most 1e12, not {seconds!r}")


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_finish, future)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def http_date(when: float) -> str:
    """`when` (unix seconds) as a `Date` header has it."""
    return _http_second(_to_second(when))


def _to_second(when: float) -> int:
    """The whole second, of those that calendars can say."""
    return max(0, min(math.floor(when), _LAST_SECOND))


@functools.lru_cache(maxsize=1024)
def _http_second(second: int) -> str:
    return email.utils.formatdate(second, usegmt=True)


def iso(when: float) -> str:
    """`when` (unix seconds) as ISO 8601 with milliseconds and `Z`."""
    whole = _to_second(when)
    return f"{_iso_second(whole)}.{int((when - whole) * 1000) % 1000:03d}Z"


@functools.lru_cache(maxsize=1024)
def _iso_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
