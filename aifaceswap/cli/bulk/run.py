"""A bulk run from the command line: rows in, outcomes out."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import attrs
import click

from aifaceswap._limits import MAX_UNFINISHED_SWAPS
from aifaceswap.bulk import AsyncBulk, BulkProgress, Outcome
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
    """The arguments of a run.

    Attributes:
        rows: The input; None: stdin.
        journal: The record of the run; None: the usual one.
        output: The folder for the results.
        retry_failed: Whether to do failed rows again.
        accept_new_key: Whether to continue a journal of another API key.
        retry_rejected: Whether to do rows again that were rejected for their content.
        concurrency: How many swaps may be unfinished at once.
        timeout: Seconds to wait for one swap.
        max_credits: The credits that the swaps of the journal may cost; None: no maximum.
        mark: Whether to put the idempotency key into the metadata.
    """

    rows: Path | None
    journal: Path | None = None
    output: Path | None = None
    retry_failed: bool = False
    accept_new_key: bool = False
    retry_rejected: bool = False
    concurrency: int = MAX_UNFINISHED_SWAPS
    timeout: float = 900.0
    max_credits: float | None = None
    mark: bool = False

    @property
    def is_file(self) -> bool:
        """Whether the rows can be read twice; what comes from a pipe is read once."""
        return self.rows is not None and self.rows.is_file()

    def find_journal(self, context: CommandContext) -> Path | None:
        """The journal that was given, or the one next to the input."""
        if self.journal is not None or context.emulated:
            return self.journal
        if self.rows is None or not self.is_file:
            raise click.UsageError(
                "--journal is required when the rows come from stdin or another pipe."
            )
        return self.rows.with_suffix(".sqlite")


def run(context: CommandContext, arguments: BulkArguments) -> int:
    """Run all rows, and return the exit code."""
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
            note(f"Output closed by the reader. To resume:\n  {context.resume}")
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
    # Rows that failed without a proof, so that the same command continues them.
    unfinished: int = 0
    _begun: float | None = None
    # Whether a row of this run had a slot: others have their outcomes from the journal.
    _has_started: bool = False
    _signal: signal.Signals | None = None
    # Rows that were handed over and have no outcome yet.
    _open: dict[int | None, Row] = attrs.field(factory=dict[int | None, Row])
    _all_read: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every row has its outcome."""
        return self._signal is None or (self._all_read and not self._open)

    async def go(self) -> None:
        budget = CountingBudget()
        # Lines of JSON on the same terminal would run into the display.
        silent = self.context.as_json and sys.stdout.isatty()
        display = BulkDisplay(budget, silent=silent)
        async with runtime.connect(self.context, budget.over) as client:
            if display.is_live:
                display.total = count_rows(self.arguments.rows)
                display.credits = await _credits(client)
            requests = self._requests()
            bulk = client.swaps.bulk(
                requests if self.arguments.is_file else in_threads(requests),
                journal=self.journal,
                download_to=self.arguments.output,
                concurrency=self.arguments.concurrency,
                accept_new_key=self.arguments.accept_new_key,
                retry_failed="all"
                if self.arguments.retry_rejected
                else self.arguments.retry_failed,
                timeout=self.arguments.timeout,
                max_credits=self.arguments.max_credits,
                mark=self.arguments.mark,
                on_progress=partial(self._show_progress, display),
            )
            async with bulk as outcomes:
                self._begun = time.monotonic()
                self._install_signal_handlers(outcomes, display)
                with display:
                    async for outcome in outcomes:
                        self._take(outcome, display)

    def raise_signal(self) -> NoReturn:
        """Raise the exception of the signal that stopped the run."""
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise asyncio.CancelledError

    def summarize(self) -> None:
        """Show what became of the rows, and where everything is."""
        if self._begun is None:
            return
        counts = f"{self.done:,} done, {self.failed:,} failed"
        if self._has_started or self.invalid or not self.done + self.failed:
            note(f"{counts} in {format_duration(time.monotonic() - self._begun)}.")
        else:
            rows = self.done + self.failed
            note(f"Nothing to do: all {rows:,} rows were finished earlier ({counts}).")
        if self.arguments.output is not None and self.done:
            note(f"Results: {rendering.printable(self.arguments.output)}")
        if self.journal is not None:
            note(f"Journal: {rendering.printable(self.journal)}")

    def show_next_step(self) -> None:
        """Show what to do about rows that have failed."""
        if self.invalid:
            note(f"Invalid rows that were not sent: {self.invalid:,}. Correct them first.")
        if self.unfinished and not self.context.emulated:
            rows = f"{self.unfinished:,} rows are not finished"
            note(f"{rows}. Next: continue them (creates no second swap):\n  {self.context.resume}")
        if self.failed > self.invalid + self.unfinished and not self.context.emulated:
            flag = "" if self.arguments.retry_failed else " --retry-failed"
            command = f"{self.context.retyped()}{flag}"
            note(f"Next: retry the failed rows (creates new swaps):\n  {command}")
        if self.context.emulated and self.journal is not None:
            note("The journal contains swaps of the emulator: use another one for the service.")

    def _requests(self) -> Iterator[SwapRequest | Mapping[str, Any]]:
        for row in self.rows:
            self._open[row.number] = row
            self.context.has_files |= row.has_files
            # The run rejects an invalid row; its own error replaces that of the run.
            yield row.item
        self._all_read = True

    def _show_progress(self, display: BulkDisplay, progress: BulkProgress) -> None:
        self._has_started |= progress.in_flight > 0
        display.show(progress)

    def _take(self, outcome: Outcome, display: BulkDisplay) -> None:
        row = self._open.pop(outcome.row, None)
        line = None if row is None else row.line
        if row is not None and row.error is not None:
            outcome = attrs.evolve(outcome, error=row.error)
        self.done += outcome.ok
        self.failed += not outcome.ok
        self.invalid += isinstance(outcome.error, InvalidRequestError)
        self.unfinished += outcome.is_open
        display.add(outcome, line)
        if not self.context.shows_table:
            fields = outcome_fields(outcome)
            rendering.write_json({"row": fields.pop("row"), "line": line, **fields})

    def _install_signal_handlers(self, outcomes: AsyncBulk, display: BulkDisplay) -> None:
        """Let the first signal stop the run in order, and the second one at once."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[object]", asyncio.current_task())

        def stop(number: signal.Signals) -> None:
            is_first, self._signal = self._signal is None, number
            if is_first:
                outcomes.stop()
                text = "finishing swaps in progress; press Ctrl-C again to stop now"
                display.note(f"Stopping: {text}.")
            else:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, stop, number)


async def _credits(client: AsyncClient) -> float | None:
    with suppress(AIFaceSwapError):  # the run itself reports what is wrong
        return (await client.with_options(deadline=10).me()).credits.total
    return None
