"""The limits of one API key: a sliding window and a UTC day."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import attrs

from . import _checks
from ._problems import Problem, Refused
from .clock import TICK

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
        default=60, validator=_checks.whole(least=1, optional=True)
    )
    per_day: int | None = attrs.field(
        default=10_000, validator=_checks.whole(least=1, optional=True)
    )
    concurrent: int | None = attrs.field(
        default=10, validator=_checks.whole(least=1, optional=True)
    )
    window: float = attrs.field(default=60.0, validator=_checks.number(above=0.0))


@attrs.define(eq=False)
class Meter:
    """Counts the requests of one API key. Refused requests are not counted."""

    limits: Limits
    _recent: deque[float] = attrs.field(factory=deque[float], init=False)
    _day: int = attrs.field(default=0, init=False)
    _today: int = attrs.field(default=0, init=False)

    def admit(self, now: float) -> None:
        """Count one request, or refuse it."""
        self._forget(now)
        if not self.remaining():
            raise Refused(rate_limited(self.reset(now) - now))
        if self.limits.per_day is not None and self._today >= self.limits.per_day:
            raise Refused(rate_limited_daily(now))
        self._today += 1
        if self.limits.per_minute is not None:
            self._recent.append(now)

    def remaining(self) -> int:
        """Requests left in the window, as of the last `admit()`."""
        return self.limit - len(self._recent)

    @property
    def limit(self) -> int:
        """Requests allowed in the window."""
        return UNLIMITED if self.limits.per_minute is None else self.limits.per_minute

    def reset(self, now: float) -> float:
        """When the oldest counted request leaves the window, in unix seconds."""
        return (self._recent[0] if self._recent else now) + self.limits.window

    def _forget(self, now: float) -> None:
        recent, window = self._recent, self.limits.window
        while recent and recent[0] + window <= now + TICK:
            recent.popleft()
        if self._day != now // DAY:
            self._day, self._today = int(now // DAY), 0


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
