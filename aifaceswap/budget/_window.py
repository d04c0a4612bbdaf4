"""How many requests the service's window and day have room for. No I/O, no locks, no clocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from aifaceswap.models import RateLimit

# How long the first request may keep the others waiting for what its headers say.
_PROBE_SECONDS = 2.0
# Fewer requests than this cannot meet many 429s at once.
_PROBE_FROM = 10
# A wall clock may jump into the next day while someone waits for it.
_CLOCK_CHECK_SECONDS = 1.0
# `x-ratelimit-reset` is rounded to seconds.
_RESET_ROUNDING = 1.0
_SECONDS_A_DAY = 86_400


class _Dated(Protocol):
    """A request in flight."""

    @property
    def day(self) -> int:
        """The UTC day that it counts for."""
        ...


P = TypeVar("P", bound=_Dated)


class Window(Generic[P]):
    """The requests of the last window and of the day, and what response headers say of others.

    Moments are monotonic seconds (``now``); ``clock`` gives the Unix time for days and resets.
    """

    def __init__(
        self, requests: int, per: float, per_day: int | None, clock: Callable[[], float]
    ) -> None:
        self.requests = requests
        self.per = per
        self.per_day = per_day
        self.clock = clock
        self.in_flight: set[P] = set()
        # When the permits of settled requests become free, earliest first.
        self._frees: deque[float] = deque()
        self.day = 0
        self._used_today = 0
        # What the headers say: the window's limit, and how many requests of others it holds.
        self._limit: float | None = None
        self._last_limit: float | None = None
        self._others = 0.0
        self._others_until = 0.0
        # The one request that goes first when nothing is known of the window.
        self._probe: P | None = None
        self._probe_until = 0.0
        self._must_probe = True
        self._known_until = 0.0

    def has_room(self, now: float) -> bool:
        """Whether window and day have room for one more request."""
        frees = self._frees
        while frees and frees[0] <= now:
            frees.popleft()
        capacity = self.requests if self._limit is None else self._capacity(now, self._limit)
        return len(self.in_flight) + len(frees) < capacity and not self.until_tomorrow()

    def may_send(self, now: float) -> bool:
        """Whether there is room, and no request has gone first whose headers are to come."""
        if self._probe is not None and now < self._probe_until:
            return False
        return self.has_room(now)

    def add(self, permit: P, now: float) -> None:
        """Count a request that is about to be sent."""
        if self._must_probe or now > self._known_until:
            self._must_probe = False
            self._known_until = now + 2 * self.per
            if self.requests >= _PROBE_FROM:
                self._probe, self._probe_until = permit, now + _PROBE_SECONDS
        self.in_flight.add(permit)
        self._used_today += 1

    def settle(self, permit: P, now: float) -> None:
        """Free a request's permit one window from now."""
        self.in_flight.remove(permit)
        self._frees.append(now + self.per)
        self._known_until = now + 2 * self.per
        if permit is self._probe:
            self._probe = None

    def discard(self, permit: P) -> None:
        """Take back a request that was never sent."""
        self.in_flight.remove(permit)
        if permit is self._probe:
            self._probe, self._must_probe = None, True
        if permit.day == self.day:
            self._used_today -= 1

    def pause(self, until: float) -> None:
        """Nothing is known after a pause: the service says when to come back, not what is free."""
        self._others_until = min(self._others_until, until)
        self._must_probe = True

    def learn(self, rate_limit: RateLimit, now: float) -> None:
        """Count the requests of others with the same key, until the service frees them."""
        limit, last, self._last_limit = rate_limit.limit, self._last_limit, rate_limit.limit
        ends = self._end_of_window(rate_limit, now)
        # The limits of other windows (a day's, a path's) come and go between responses.
        is_ours = self._limit is None or limit in (self.requests, self._limit, last)
        if limit < 1 or ends is None or not is_ours:
            return
        self._limit, self._others_until = limit, ends
        counted = limit - rate_limit.remaining
        settled = len(self._frees)
        # Requests of ours in flight are among those that were counted, or are not yet.
        self._others = counted - settled if counted > settled + len(self.in_flight) else 0.0

    def until_tomorrow(self) -> float:
        """Seconds until the next UTC day if this one is used up, else 0."""
        if self.per_day is None:
            return 0.0
        day, elapsed = divmod(self.clock(), _SECONDS_A_DAY)
        if day != self.day:
            # A clock that is put back over midnight does not give a second day.
            self._used_today = 0 if day > self.day else self._used_today
            self.day = int(day)
        return 0.0 if self._used_today < self.per_day else _SECONDS_A_DAY - elapsed

    def delay(self, now: float, ahead: int = 0) -> float:
        """Seconds, at the least, until there is room for one with so many ahead."""
        used = len(self.in_flight) + len(self._frees) + ahead + 1
        delay = self._freed_in(used - self.requests, now)
        if self._limit is not None:
            by_service = self._freed_in(used - int(self._capacity(now, self._limit)), now)
            if self._others:
                by_service = min(by_service, max(0.0, self._others_until - now))
            delay = max(delay, by_service)
        return max(delay, self.until_tomorrow())

    def next_check(self, now: float) -> float:
        """Seconds until it is worth asking again whether there is room."""
        delay = self.delay(now)
        if self._probe is not None:
            delay = max(delay, self._probe_until - now)
        return min(delay, _CLOCK_CHECK_SECONDS) if self.until_tomorrow() else delay

    def _capacity(self, now: float, limit: float) -> float:
        """How many requests of ours the service's window may hold."""
        if self._others and self._others_until <= now:
            self._others, self._must_probe = 0.0, True
        return min(self.requests, limit - self._others)

    def _end_of_window(self, rate_limit: RateLimit, now: float) -> float | None:
        """When the counted requests are free again; None if the headers are of another window."""
        if rate_limit.reset is None:
            return now + self.per
        seconds = rate_limit.reset - self.clock()
        fits = -self.per <= seconds <= self.per + _RESET_ROUNDING
        return now + seconds if fits else None

    def _freed_in(self, missing: int, now: float) -> float:
        """Seconds, at the least, until so many permits of the window are freed."""
        if missing <= 0:
            return 0.0
        if missing <= len(self._frees):
            return self._frees[missing - 1] - now
        return self.per * (1 + (missing - len(self._frees) - 1) // self.requests)
