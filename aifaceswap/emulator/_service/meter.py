"""Counts the requests of one API key and rejects those over its limits."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import attrs

from aifaceswap.emulator._service.errors import Problem, Rejected
from aifaceswap.emulator._times import TICK

if TYPE_CHECKING:
    from typing import Final

    from aifaceswap.emulator.limits import Limits

DAY: Final = 86_400

#: The value of the headers for a limit that is off: the headers are documented as always present.
UNLIMITED: Final = 1_000_000_000


@attrs.define(eq=False)
class Meter:
    """The request counters of one API key. Rejected requests are not counted.

    Attributes:
        limits: What is allowed.
        recent: When the requests of the window were counted, oldest first.
        day: The UTC day of the latest request, in days since 1970.
        today: Requests of that day.
    """

    limits: Limits
    recent: deque[float] = attrs.field(factory=deque[float], init=False)
    day: int = attrs.field(default=0, init=False)
    today: int = attrs.field(default=0, init=False)

    def admit(self, now: float) -> None:
        """Count one request, or raise `Rejected`."""
        self.forget(now)
        if self.remaining() <= 0:
            raise Rejected(rate_limited(self.reset(now) - now))
        if self.limits.per_day is not None and self.today >= self.limits.per_day:
            raise Rejected(rate_limited_daily(now))
        self.today += 1
        if self.limits.per_minute is not None:
            self.recent.append(now)

    def remaining(self) -> int:
        """Return the requests left in the window, as of the last `admit()`."""
        return self.limit - len(self.recent)

    @property
    def limit(self) -> int:
        """Requests allowed in the window."""
        return UNLIMITED if self.limits.per_minute is None else self.limits.per_minute

    def reset(self, now: float) -> float:
        """Return when the oldest counted request leaves the window, in unix seconds."""
        return (self.recent[0] if self.recent else now) + self.limits.window

    def forget(self, now: float) -> None:
        """Drop what has left the window, and the count of another day."""
        recent, window = self.recent, self.limits.window
        while recent and recent[0] + window <= now + TICK:
            recent.popleft()
        if self.day != now // DAY:
            self.day, self.today = int(now // DAY), 0


def retry_after(seconds: float) -> tuple[tuple[str, str]]:
    """Return the `Retry-After` header: seconds as an integer, rounded up, at least 1."""
    return (("Retry-After", str(max(1, math.ceil(seconds - TICK)))),)


def rate_limited(wait: float) -> Problem:
    """Return the error for too many requests in the sliding window."""
    message = "Too many requests in the last minute."
    return Problem(429, "rate_limited", message, retry_after(wait))


def rate_limited_daily(now: float) -> Problem:
    """Return the error for too many requests in this UTC day."""
    wait = (now // DAY + 1) * DAY - now
    return Problem(429, "rate_limited_daily", "Too many requests today.", retry_after(wait))


def rate_limited_concurrent(wait: float) -> Problem:
    """Return the error for too many unfinished swaps."""
    message = "Too many unfinished swaps. Wait until one has finished."
    return Problem(429, "rate_limited_concurrent", message, retry_after(wait))
