"""How long swaps take, and when it is worth a request to see which have ended.

Two things tell when a swap will end: how long others took, and its own ``progress``. What the
service means by progress is not documented, so it is believed only while it proves right.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence

import attrs

_REMEMBERED = 64
_ENOUGH = 8
# Seconds of a slot that nobody uses which are worth one request, for each swap that is watched,
# and for all of them. Measured: docs/benchmarks.md.
_WORTH_EACH = 0.3
_WORTH_ALL = 3.0
# Forecasts by progress are believed while half of them are this good, as a share of the time
# that they looked ahead.
_GOOD_FORECAST = 0.25
# With good forecasts there need not be a look just because none has been for a while.
_STRETCH = 2.0
_LONGEST = 15.0
_STEPS = 40


@attrs.frozen
class Watched:
    """A swap that is being watched.

    Attributes:
        begin: When it began, in seconds from the last look; negative before it.
        forecast: When it will end by its progress, in seconds from the last look, or None.
    """

    begin: float
    forecast: float | None


class PollSchedule:
    """The durations of the swaps that ended last, and how good forecasts of them were."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []
        self._misses: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def typical(self) -> float:
        """The median in seconds; 0 until one is known."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else 0.0

    def learn(self, seconds: float) -> None:
        """Remember how long a swap took."""
        self._newest.append(seconds)
        insort(self._sorted, seconds)
        if len(self._newest) > _REMEMBERED:
            self._sorted.remove(self._newest.popleft())

    def judge(self, forecast: float, ahead: float, earliest: float, latest: float) -> None:
        """Remember how good a forecast was.

        Args:
            forecast: When the swap was to end.
            ahead: How many seconds before that it was forecast.
            earliest: When it had not ended yet.
            latest: When it had.
        """
        missed = max(earliest - forecast, forecast - latest, 0.0)
        self._misses.append(missed / max(ahead, 1.0))

    def next_poll_in(
        self, watched: Sequence[Watched], shortest: float, longest: float, scarcity: float
    ) -> float:
        """When the next look pays: when slots that nobody uses have cost as much as a request.

        Args:
            watched: The swaps, all unfinished at the last look.
            shortest: Seconds after the last look before which there is none.
            longest: Seconds after it at which there is one without good forecasts.
            scarcity: How dear a request is, 1 to 5.

        Returns:
            Seconds after the last look.
        """
        if len(self._newest) < _ENOUGH:
            return longest
        if self._progress_is_right():
            longest = min(_STRETCH * longest, max(longest, _LONGEST))
        worth = min(_WORTH_ALL, _WORTH_EACH * len(watched)) * scarcity**0.5
        step = longest / _STEPS
        wasted = 0.0
        for number in range(1, _STEPS):
            moment = number * step
            wasted += step * sum(self._has_ended(swap, moment) for swap in watched)
            if moment >= shortest and wasted >= worth:
                return moment
        return longest

    def _has_ended(self, swap: Watched, moment: float) -> float:
        """How likely it is that a swap has ended at this moment."""
        if swap.forecast is not None and self._progress_is_right():
            return float(moment >= swap.forecast)
        age = moment - swap.begin
        if age <= 0:
            return 0.0
        left = 1.0 - self._share(max(0.0, -swap.begin))
        return 1.0 - (1.0 - self._share(age)) / left

    def _progress_is_right(self) -> bool:
        good = sum(miss <= _GOOD_FORECAST for miss in self._misses)
        return len(self._misses) >= _ENOUGH and good * 2 >= len(self._misses)

    def _share(self, age: float) -> float:
        """The share of swaps that take no longer than this."""
        return bisect_right(self._sorted, age) / (len(self._sorted) + 1)
