"""The limits of one API key: a sliding window and a UTC day."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import attrs

from aifaceswap.emulator._service import validators
from aifaceswap.emulator._service.errors import Problem, Refused
from aifaceswap.emulator.clock import TICK

if TYPE_CHECKING:
    from typing import Final

DAY: Final = 86_400

#: What answers say for a limit that is off: the headers are documented to be always there.
UNLIMITED: Final = 1_000_000_000


@attrs.frozen
class Limits:
    """What one API key may do; None switches a limit off.

    Attributes:
        per_minute: Requests in a sliding window.
        per_day: Requests in a UTC day.
        concurrent: Unfinished swaps.
        window: Length of the sliding window in seconds; the service's is 60.
    """

    per_minute: int | None = attrs.field(
        default=60, validator=validators.whole(least=1, optional=True)
    )
    per_day: int | None = attrs.field(
        default=10_000, validator=validators.whole(least=1, optional=True)
    )
    concurrent: int | None = attrs.field(
        default=10, validator=validators.whole(least=1, optional=True)
    )
    window: float = attrs.field(default=60.0, validator=validators.number(above=0.0))


@attrs.define(eq=False)
class Meter:
    """Counts the requests of one API key. Refused requests are not counted.

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
        """Count one request, or refuse it."""
        self.forget(now)
        if not self.remaining():
            raise Refused(rate_limited(self.reset(now) - now))
        if self.limits.per_day is not None and self.today >= self.limits.per_day:
            raise Refused(rate_limited_daily(now))
        self.today += 1
        if self.limits.per_minute is not None:
            self.recent.append(now)

    def remaining(self) -> int:
        """Requests left in the window, as of the last `admit()`."""
        return self.limit - len(self.recent)

    @property
    def limit(self) -> int:
        """Requests allowed in the window."""
        return UNLIMITED if self.limits.per_minute is None else self.limits.per_minute

    def reset(self, now: float) -> float:
        """When the oldest counted request leaves the window, in unix seconds."""
        return (self.recent[0] if self.recent else now) + self.limits.window

    def forget(self, now: float) -> None:
        """Let go of what has left the window, and of another day."""
        recent, window = self.recent, self.limits.window
        while recent and recent[0] + window <= now + TICK:
            recent.popleft()
        if self.day != now // DAY:
            self.day, self.today = int(now // DAY), 0


def retry_after(seconds: float) -> tuple[tuple[str, str]]:
    """The `Retry-After` header: whole seconds, rounded up, at least 1."""
    return (("Retry-After", str(max(1, math.ceil(seconds - TICK)))),)


def rate_limited(wait: float) -> Problem:
    """Too many requests in the sliding window."""
    message = "Too many requests in the last minute."
    return Problem(429, "rate_limited", message, retry_after(wait))


def rate_limited_daily(now: float) -> Problem:
    """Too many requests in this UTC day."""
    wait = (now // DAY + 1) * DAY - now
    return Problem(429, "rate_limited_daily", "Too many requests today.", retry_after(wait))


def rate_limited_concurrent(wait: float) -> Problem:
    """Too many unfinished swaps."""
    message = "Too many unfinished swaps; wait until one has ended."
    return Problem(429, "rate_limited_concurrent", message, retry_after(wait))
