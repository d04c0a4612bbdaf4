"""A bulk run from the command line: rows in, outcomes out, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import attrs
import click

from aifaceswap._limits import MAX_UNFINISHED_SWAPS
from aifaceswap.bulk import AsyncBulk, Outcome
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.bulk.display import BulkDisplay, CountingBudget
from aifaceswap.cli.bulk.records import outcome_fields
from aifaceswap.cli.bulk.rows import Row, count_rows, in_threads, open_rows
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import FAILED, format_duration
from aifaceswap.cli.rendering import note
from aifaceswap.client import AsyncClient
from aifaceswap.errors import AIFaceSwapError, InvalidRequestError
from aifaceswap.models import SwapRequest


@attrs.frozen(kw_only=True)
class BulkArguments:
    """A run to be made.

    Attributes:
        rows: The input; None: stdin.
        journal: The record of the run; None: the usual one.
        output: The folder for the results.
        retry_failed: Whether to do failed rows again.
        concurrency: How many swaps may be unfinished at once.
    """

    rows: Path | None
    journal: Path | None = None
    output: Path | None = None
    retry_failed: bool = False
    concurrency: int = MAX_UNFINISHED_SWAPS

    def find_journal(self, context: CommandContext) -> Path | None:
        """The journal: the one that was given, or one beside the input."""
        if self.journal is not None or context.emulated:
            return self.journal
        if self.rows is None:
            raise click.UsageError("--journal is needed where the rows come from stdin.")
        return self.rows.with_suffix(".sqlite")


def run(context: CommandContext, arguments: BulkArguments) -> int:
    """Make the run."""
    journal = arguments.find_journal(context)
    same = "  # with the same rows on stdin" if arguments.rows is None else ""
    context.set_resume(context.retyped() + same)
    with open_rows(arguments.rows) as rows:
        work = _Run(context, arguments, journal, rows)
        try:
            runtime.run_job(work.go)
        except asyncio.CancelledError:
            work.raise_signal()
        except BrokenPipeError:
            note(f"Nobody reads on. To go on:\n  {context.resume}")
            raise
        finally:
            work.summarize()
    if not work.is_complete:
        work.raise_signal()
    work.show_next_step()
    return FAILED if work.failed else 0


@attrs.define(eq=False)
class _Run:
    context: CommandContext
    arguments: BulkArguments
    journal: Path | None
    rows: Iterator[Row]
    done: int = 0
    failed: int = 0
    invalid: int = 0
    _begun: float | None = None
    _signal: signal.Signals | None = None
    # Rows that were handed over and have no outcome yet.
    _open: dict[int, Row] = attrs.field(factory=dict[int, Row])
    _all_read: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every row has had its outcome."""
        return self._signal is None or (self._all_read and not self._open)

    async def go(self) -> None:
        budget = CountingBudget()
        # Lines of JSON on the same terminal would run into the display.
        silent = self.context.as_json and sys.stdout.isatty()
        display = BulkDisplay(budget, silent=silent)
        async with runtime.connect(self.context, budget) as client:
            if display.is_live:
                display.total = (
                    None if self.arguments.rows is None else count_rows(self.arguments.rows)
                )
                display.credits = await _credits(client)
            requests = self._requests()
            bulk = client.swaps.bulk(
                requests if self.arguments.rows is not None else in_threads(requests),
                journal=self.journal,
                download_to=self.arguments.output,
                concurrency=self.arguments.concurrency,
                retry_failed=self.arguments.retry_failed,
                on_progress=display.show,
            )
            async with bulk as outcomes:
                self._begun = time.monotonic()
                self._install_signal_handlers(outcomes, display)
                with display:
                    async for outcome in outcomes:
                        self._take(outcome, display)

    def raise_signal(self) -> NoReturn:
        """Raise what the signal means that stopped the run."""
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise asyncio.CancelledError

    def summarize(self) -> None:
        """Say what became of the rows, and where everything is."""
        if self._begun is None:
            return
        took = format_duration(time.monotonic() - self._begun)
        note(f"{self.done:,} done, {self.failed:,} failed in {took}.")
        if self.arguments.output is not None and self.done:
            note(f"Results: {rendering.printable(self.arguments.output)}")
        if self.journal is not None:
            note(f"Journal: {rendering.printable(self.journal)}")

    def show_next_step(self) -> None:
        """Say what to do about rows that have failed."""
        if self.invalid:
            note(f"{self.invalid:,} of the rows are wrong and were not sent: correct them first.")
        if self.failed and not self.context.emulated:
            again = "" if self.arguments.retry_failed else " --retry-failed"
            note(
                f"Next: do the failed rows again, as new swaps:\n  {self.context.retyped()}{again}"
            )
        if self.context.emulated and self.journal is not None:
            note("The journal holds swaps of the emulator: with a key, use another one.")

    def _requests(self) -> Iterator[SwapRequest | Mapping[str, Any]]:
        for row in self.rows:
            self._open[row.number] = row
            # A wrong row takes part as one that the run refuses; its own error is put in then.
            yield row.request or {}
        self._all_read = True

    def _take(self, outcome: Outcome, display: BulkDisplay) -> None:
        row = self._open.pop(outcome.row, None)
        line = None if row is None else row.line
        if row is not None and row.error is not None:
            outcome = attrs.evolve(outcome, error=row.error)
        self.done += outcome.ok
        self.failed += not outcome.ok
        self.invalid += isinstance(outcome.error, InvalidRequestError)
        display.add(outcome, line)
        if not self.context.shows_table:
            fields = outcome_fields(outcome)
            rendering.write_json({"row": fields.pop("row"), "line": line, **fields})

    def _install_signal_handlers(self, outcomes: AsyncBulk, display: BulkDisplay) -> None:
        """Have the first signal stop the run in order, and the second one at once."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[object]", asyncio.current_task())

        def stop(number: signal.Signals) -> None:
            is_first, self._signal = self._signal is None, number
            if is_first:
                outcomes.stop()
                text = "what is under way is finished first; once more stops at once"
                display.note(f"Stopping: {text}.")
            else:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, stop, number)


async def _credits(client: AsyncClient) -> float | None:
    with suppress(AIFaceSwapError):  # the run itself says what is the matter
        return (await client.with_options(deadline=10).me()).credits.total
    return None
