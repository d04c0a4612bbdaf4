"""How long swaps take, and when a poll is worth a request.

Two things say when a swap will finish: how long others took, and its own ``progress``. What the
service means by progress is not documented, so it counts only while it proves right.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Sequence

import attrs

_REMEMBERED = 64
_ENOUGH = 8
# Seconds that a finished swap may hold its slot, before a poll is worth one request: for each
# swap, and for all of them. Measured: docs/benchmarks.md.
_IDLE_PER_SWAP = 0.3
_IDLE_AT_MOST = 3.0
# Forecasts count while half of the last ones missed by no more than this share of their range.
_GOOD_FORECAST = 0.25
# With good forecasts the longest interval can be this much longer, or this many seconds.
_STRETCH = 2.0
_STRETCHED_TO = 15.0
_STEPS = 40
# The moments between which a swap has finished are at most so far apart, or half of its duration.
_CLOSE = 1.0
# A list that fails is tried again after so long, then after twice as long each time.
_LIST_RETRY = 5.0
_LIST_RETRY_AT_MOST = 300.0


@attrs.frozen
class PolledSwap:
    """An unfinished swap, in seconds from the last poll.

    Attributes:
        began: When its wait began; negative before the last poll.
        forecast: When it will finish by its progress, or None.
    """

    began: float
    forecast: float | None


class PollSchedule:
    """The durations of the swaps that finished last, and how good forecasts of them were."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []
        self._forecast_errors: deque[float] = deque(maxlen=_REMEMBERED)
        self._forecasts_are_good = False

    @property
    def typical_duration(self) -> float:
        """The median in seconds; 0 until one is known."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else 0.0

    @property
    def long_duration(self) -> float:
        """What nine of ten swaps stay below, in seconds; 0 until one is known."""
        return self._sorted[len(self._sorted) * 9 // 10] if self._sorted else 0.0

    def record_end(self, began: float, earliest: float, latest: float) -> bool:
        """A swap has finished between two moments; whether they are close enough to say much."""
        if latest - earliest > max(_CLOSE, (latest - began) / 2):
            return False
        self.record_duration((earliest + latest) / 2 - began)
        return True

    def record_duration(self, seconds: float) -> None:
        """A swap has taken this long."""
        self._newest.append(seconds)
        insort(self._sorted, seconds)
        if len(self._newest) > _REMEMBERED:
            self._sorted.remove(self._newest.popleft())

    def record_forecast(self, forecast: float, made: float, earliest: float, latest: float) -> None:
        """A swap has finished between two moments; its end was forecast at an earlier one."""
        error = max(earliest - forecast, forecast - latest, 0.0)
        errors = self._forecast_errors
        errors.append(error / max(forecast - made, 1.0))
        good = sum(one <= _GOOD_FORECAST for one in errors)
        self._forecasts_are_good = len(errors) >= _ENOUGH and good * 2 >= len(errors)

    def next_poll_in(
        self, swaps: Sequence[PolledSwap], shortest: float, longest: float, scarcity: float
    ) -> float:
        """Seconds after the last poll at which finished swaps have idled as long as a poll costs.

        It is at least `shortest`, and at most `longest` without good forecasts. `scarcity` is
        how expensive a request is, 1 to 5.
        """
        if len(self._newest) < _ENOUGH:
            return longest
        if self._forecasts_are_good:
            longest = min(_STRETCH * longest, max(longest, _STRETCHED_TO))
        worth = min(_IDLE_AT_MOST, _IDLE_PER_SWAP * len(swaps)) * scarcity**0.5
        step = longest / _STEPS
        idle = 0.0
        for number in range(1, _STEPS):
            moment = number * step
            idle += step * sum(self._probably_finished(swap, moment) for swap in swaps)
            if moment >= shortest and idle >= worth:
                return moment
        return longest

    def _probably_finished(self, swap: PolledSwap, moment: float) -> float:
        """How likely it is that a swap has finished at this moment, 0 to 1."""
        if swap.forecast is not None and self._forecasts_are_good:
            return float(moment >= swap.forecast)
        age = moment - swap.began
        if age <= 0:
            return 0.0
        unfinished_at_poll = 1.0 - self._share_below(max(0.0, -swap.began))
        return 1.0 - (1.0 - self._share_below(age)) / unfinished_at_poll

    def _share_below(self, age: float) -> float:
        """The share of swaps that took no longer than this."""
        return bisect_right(self._sorted, age) / (len(self._sorted) + 1)


@attrs.define
class ListHealth:
    """Whether the list of swaps is worth a request: part of its form is not documented."""

    failures: int = 0
    off_until: float = float("-inf")

    def fail(self, now: float, *, after: int = 1) -> None:
        """Do without the list for a while, longer each time that it fails."""
        self.failures += 1
        if self.failures >= after:
            seconds = _LIST_RETRY * 2.0 ** min(self.failures - after, 10)
            self.off_until = now + min(_LIST_RETRY_AT_MOST, seconds)


@attrs.define
class _OtherSwap:
    began: float
    unfinished_at: float


class OtherSwaps:
    """Swaps that other processes wait for: their ends count in the schedule that all share."""

    def __init__(self, schedule: PollSchedule) -> None:
        self._schedule = schedule
        self._swaps: dict[str, _OtherSwap] = {}
        self._listed_at: float | None = None

    def see_list(self, ids: Iterable[str], now: float) -> None:
        """A list has shown these as unfinished; what is new was created since the last one."""
        began = now if self._listed_at is None else (self._listed_at + now) / 2
        known, self._swaps, self._listed_at = self._swaps, {}, now
        for swap_id in ids:
            swap = self._swaps[swap_id] = known.get(swap_id) or _OtherSwap(began, now)
            swap.unfinished_at = now

    def see_end(self, swap_id: str, now: float) -> None:
        """One has finished since it was listed."""
        if (swap := self._swaps.pop(swap_id, None)) is not None:
            self._schedule.record_end(swap.began, swap.unfinished_at, now)

    def began_at(self) -> list[float]:
        """When each of the unfinished ones was created, about."""
        return [swap.began for swap in self._swaps.values()]
