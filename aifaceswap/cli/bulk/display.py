"""The live display of a bulk run, on stderr of a terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from aifaceswap._api.responses import RATE_LIMITED
from aifaceswap._limits import REQUESTS_PER_DAY, REQUESTS_PER_WINDOW, WINDOW
from aifaceswap.budget import Permit, Purpose, RequestBudget
from aifaceswap.bulk import BulkProgress, Outcome
from aifaceswap.cli import rendering
from aifaceswap.cli.failures import format_duration

_SHOWN_FAILURES = 10


def row_label(row: int | None, line: int | None) -> str:
    """The name of a row in messages: its number from 0, and its line from 1 if known."""
    if row is None:
        return "a row that is no longer in the input"
    return f"row {row}" if line is None else f"row {row} (line {line})"


class CountingBudget:
    """A rate limiter that also counts requests.

    Attributes:
        used: The requests so far.
    """

    def __init__(self) -> None:
        self.used: int = 0
        self._budget: RequestBudget

    def over(self, budget: RequestBudget) -> CountingBudget:
        """Count the requests of this rate limiter."""
        self._budget = budget
        return self

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        """Wait until a request may be sent."""
        permit = await self._budget.acquire(purpose, max_wait=max_wait)
        self.used += 1
        return permit

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
    ) -> None:
        """Send nothing for a while."""
        self._budget.penalize(seconds, purpose=purpose, code=code)


class BulkDisplay:
    """The live display of a run; it shows on a terminal alone.

    Args:
        budget: What counts the requests.
        silent: Whether to show nothing on a terminal, either.
        clock: The time in seconds.

    Attributes:
        total: How many rows there are; None if unknown.
        credits: What the account had at the start; None if unknown.
    """

    def __init__(
        self,
        budget: CountingBudget,
        *,
        silent: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total: int | None = None
        self.credits: float | None = None
        self._budget = budget
        self._silent = silent
        self._progress = BulkProgress(total=None)
        self._clock = clock
        self._began = self._shown_at = clock()
        self._ends: deque[float] = deque()
        self._ended = 0
        self._price = 1.0
        self._failures = 0
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self._render,
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=5,
        )

    @property
    def is_live(self) -> bool:
        """Whether there is anything to see."""
        return (
            not self._silent
            and not rendering.is_quiet()
            and sys.stderr.isatty()
            and self._live.console.is_interactive
        )

    def __enter__(self) -> Self:
        if self.is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_live:
            self._live.stop()

    def note(self, text: str) -> None:
        """Write a line to stderr that stays."""
        rendering.note(text, console=self._live.console)

    def show(self, progress: BulkProgress) -> None:
        """Show how far the run is."""
        # A slot that is free again: a swap of this run has finished, not one of an earlier run.
        ended = max(0, self._progress.in_flight - progress.in_flight)
        self._ended += ended
        self._ends.extend([self._clock()] * ended)
        self._progress = progress
        self._shown_at = self._clock()

    def add(self, outcome: Outcome, line: int | None) -> None:
        """Learn from an outcome, and name a row that has failed."""
        if outcome.swap is not None and outcome.swap.credit_cost is not None:
            self._price = outcome.swap.credit_cost
        if outcome.error is None or not self.is_live:
            return
        self._failures += 1
        if self._failures > _SHOWN_FAILURES:
            return
        self.note(rendering.printable(f"{row_label(outcome.row, line)}: {outcome.error.message}"))
        if self._failures == _SHOWN_FAILURES:
            self.note("Further failures are counted, but not shown; the journal has all of them.")

    def _render(self) -> RenderableType:
        progress = self._progress
        finished = progress.done + progress.failed
        bar = Table.grid(padding=(0, 1))
        of = "" if self.total is None else f" of {self.total:,}"
        pulse = self.total is None
        bar.add_row(
            self._spinner,
            ProgressBar(self.total, finished, width=24, pulse=pulse),
            f"{finished:,}{of}",
            Text(f" {self._pace(finished)}", style="cyan"),
        )
        failed = Text(f"{progress.failed:,} failed", style="red" if progress.failed else "")
        counts = Text("  ").join(
            [Text(f"  {progress.done:,} done"), failed, Text(f"{progress.in_flight:,} in progress")]
        )
        lines: list[RenderableType] = [bar, counts, Text(f"  {self._spent()}", style="dim")]
        if note := self._waits_for():
            lines.append(Text(f"  {note}", style="dim", overflow="ellipsis", no_wrap=True))
        return Group(*lines)

    def _waits_for(self) -> str | None:
        """What the run waits for: the end of a pause, or its oldest swap."""
        progress = self._progress
        if progress.paused is not None:
            return rendering.printable(f"paused: {progress.paused.message}")
        if progress.oldest_id is None:
            return None
        age = progress.oldest_seconds + self._clock() - self._shown_at
        return rendering.printable(f"oldest: {progress.oldest_id} ({format_duration(age)})")

    def _pace(self, finished: int) -> str:
        now = self._clock()
        while self._ends and self._ends[0] < now - WINDOW:
            self._ends.popleft()
        elapsed = now - self._began
        rate = len(self._ends) * WINDOW / max(1.0, min(WINDOW, elapsed))
        if elapsed < WINDOW:  # a burst at the beginning does not last
            rate = min(rate, REQUESTS_PER_WINDOW)
        if not rate:
            return "estimating time left"
        left = (
            ""
            if self.total is None
            else f", {format_duration((self.total - finished) * 60 / rate)} left"
        )
        return f"{rate:.0f}/min{left}"

    def _spent(self) -> str:
        requests = f"{self._budget.used:,} of the day's {REQUESTS_PER_DAY:,} requests"
        if self.credits is None:
            return requests
        return f"{requests}  about {self.credits - self._ended * self._price:,.10g} credits left"
