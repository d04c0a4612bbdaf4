"""The estimate of a bulk run, before anything is charged."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import partial
from typing import Any

import attrs

from aifaceswap._limits import (
    BASE_URL_VARIABLE,
    DEFAULT_BASE_URL,
    MAX_PAGE_SIZE,
    MAX_UNFINISHED_SWAPS,
    REQUESTS_PER_DAY,
    REQUESTS_PER_WINDOW,
)
from aifaceswap.bulk._files import RowFiles
from aifaceswap.bulk._journal import JournalEntry, JournalView, State
from aifaceswap.bulk._rows import RejectedRow, Rows
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.bulk.display import row_label
from aifaceswap.cli.bulk.rows import Row, open_rows
from aifaceswap.cli.bulk.run import BulkArguments
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import format_duration
from aifaceswap.cli.rendering import note
from aifaceswap.client import AsyncClient
from aifaceswap.errors import AIFaceSwapError, InvalidRequestError
from aifaceswap.files._publisher import Publisher
from aifaceswap.models import SwapRequest

_DAY = 86_400


@attrs.frozen(kw_only=True)
class Plan:
    """The estimate of a run by the documented limits.

    Attributes:
        rows: How many swaps are to be created.
        per_minute: How many of them finish in a minute.
        seconds: How long the run takes.
        requests: How many requests it sends.
    """

    rows: int
    per_minute: float
    seconds: float
    requests: int

    @classmethod
    def estimate(cls, rows: int, *, job: float, concurrency: int) -> Plan:
        """Estimate a run of so many rows, with swaps of `job` seconds."""
        slots = min(concurrency, MAX_UNFINISHED_SWAPS)
        # Each pause costs one poll, and a finished swap is seen half a pause late.
        paces = (
            (min(REQUESTS_PER_WINDOW - 60 / pause, slots * 60 / (job + pause / 2)), pause)
            for pause in range(2, 61)
        )
        per_minute, pause = max(paces)
        minutes = rows / per_minute
        requests = rows + math.ceil(minutes * 60 / pause) if rows else 0
        # What exceeds the day's requests waits for midnight.
        days_waited = max(0, requests - 1) // REQUESTS_PER_DAY
        seconds = max(minutes * 60, days_waited * _DAY) + (job if rows else 0)
        return cls(rows=rows, per_minute=per_minute, seconds=seconds, requests=requests)


def dry_run(context: CommandContext, arguments: BulkArguments, job: float) -> None:
    """Check all rows, fetch the credits, and show what the run will take."""
    runtime.run_job(lambda: _show_plan(context, arguments, job))


@attrs.define
class _Counts:
    """The rows of the input and of the journal, by what the run will do with them."""

    new: int = 0
    done: int = 0
    failed: int = 0
    open: int = 0
    gone: int = 0  # in the journal alone, whatever their state
    invalid: int = 0
    # The swaps to be created, by type; those of failed rows apart.
    to_create: Counter[str] = attrs.field(factory=Counter[str])
    to_retry: Counter[str] = attrs.field(factory=Counter[str])

    def add(self, row: JournalEntry | RejectedRow) -> None:
        if isinstance(row, JournalEntry) and row.row is not None:
            if row.state in (State.NEW, State.INTENDED):
                self.to_create[row.swap_type] += 1
            elif row.state == State.FAILED:
                self.to_retry[row.swap_type] += 1
        if isinstance(row, RejectedRow):
            self.invalid += 1
        elif row.row is None:
            self.gone += 1
        elif row.state == State.NEW:
            self.new += 1
        elif row.state == State.DONE:
            self.done += 1
        elif row.state == State.FAILED:
            self.failed += 1
        else:
            self.open += 1

    @property
    def total(self) -> int:
        return self.new + self.done + self.failed + self.open + self.invalid

    def left(self, arguments: BulkArguments) -> int:
        return self.new + self.open + (self.failed if arguments.retry_failed else 0)

    def cost(self, arguments: BulkArguments, prices: Mapping[str, float]) -> float:
        """The credits that the run needs, where a type of unknown price costs 1."""
        retried: Counter[str] = self.to_retry if arguments.retry_failed else Counter()
        swaps = self.to_create + retried
        return sum(number * prices.get(kind, 1.0) for kind, number in swaps.items())


async def _learn_prices(client: AsyncClient) -> dict[str, float]:
    """What the key's newest swap of each type cost."""
    prices: dict[str, float] = {}
    with suppress(AIFaceSwapError):  # the run needs no list
        for swap in await client.swaps.list(limit=MAX_PAGE_SIZE):
            if swap.credit_cost is not None:
                prices.setdefault(str(swap.type), swap.credit_cost)
    return prices


def _open_journal(
    context: CommandContext, arguments: BulkArguments
) -> AbstractContextManager[JournalView | None]:
    has_journal = arguments.journal is not None or arguments.is_file
    path = arguments.find_journal(context) if has_journal else None
    return JournalView.open(path) if path is not None and path.exists() else nullcontext()


def _publisher(context: CommandContext) -> Publisher:
    """What checks files as a run does, also without a key."""
    base_url = os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    return Publisher.of(context.files, "http://127.0.0.1" if context.emulated else base_url)


async def _count(context: CommandContext, arguments: BulkArguments) -> _Counts:
    counts = _Counts()
    with ExitStack() as opened:
        journal = opened.enter_context(_open_journal(context, arguments))
        source = _Source(opened.enter_context(open_rows(arguments.rows)))
        rows = Rows(
            requests=source.requests(),
            journal=journal,
            files=RowFiles(partial(_publisher, context), 0.0, lambda: None),
            retry_failed=False,
            with_pictures=arguments.output is not None,
            checks_files=True,
        )
        async for row in rows.read():
            counts.add(row)
            if isinstance(row, RejectedRow):
                source.explain(row.error)
    if counts.invalid:
        raise InvalidRequestError(f"{counts.invalid:,} of {counts.total:,} rows are invalid")
    return counts


@attrs.define
class _Source:
    """The rows of the input, and the one that was read last."""

    rows: Iterator[Row]
    last: Row | None = None

    def requests(self) -> Iterator[SwapRequest | Mapping[str, Any]]:
        for row in self.rows:
            self.last = row
            yield row.item

    def explain(self, error: AIFaceSwapError) -> None:
        """Show why the last row is rejected: its own error comes before that of a run."""
        assert self.last is not None  # noqa: S101 - what is rejected was read
        error = self.last.error or error
        label = row_label(self.last.number, self.last.line)
        note(rendering.printable(f"{label}: {error.message}"))


async def _show_plan(context: CommandContext, arguments: BulkArguments, job: float) -> None:
    counts = await _count(context, arguments)
    plan = Plan.estimate(counts.left(arguments), job=job, concurrency=arguments.concurrency)
    async with runtime.connect(context) as client:
        with _open_journal(context, arguments) as journal:
            if journal is not None:
                owner = client.swaps.bulk([]).owner
                journal.check_owner(owner, accept_new_key=arguments.accept_new_key)
        have = (await client.me()).credits.total
        prices = await _learn_prices(client)
    cost = counts.cost(arguments, prices)
    if context.shows_table:
        rendering.show_fields(_fields(plan, counts, have, job, cost, prices))
        note(f"Nothing was created. Next: {context.retyped()}".replace(" --dry-run", ""))
        return
    rendering.write_json(
        {
            "rows": counts.total,
            "rows_left": plan.rows,
            "rows_new": counts.new,
            "rows_open": counts.open,
            "rows_done": counts.done,
            "rows_failed": counts.failed,
            "rows_gone": counts.gone,
            "seconds": round(plan.seconds),
            "credits_needed": cost,
            "credits": have,
            "credits_suffice": have >= cost,
            "prices": prices,
            "requests_needed": plan.requests,
            "requests_per_day": REQUESTS_PER_DAY,
            "day_suffices": plan.requests <= REQUESTS_PER_DAY,
            "assumed": {"seconds_per_swap": job, "credits_per_row": 1},
        }
    )


def _fields(  # noqa: PLR0917 - what is shown
    plan: Plan,
    counts: _Counts,
    have: float,
    job: float,
    cost: float,
    prices: Mapping[str, float],
) -> Iterator[tuple[str, str]]:
    yield "Rows", f"{counts.total:,}, all valid"
    yield "New", f"{counts.new:,}"
    yield "Open", f"{counts.open:,} (begun in an earlier run)"
    yield "Done", f"{counts.done:,}"
    yield "Failed", f"{counts.failed:,}"
    yield "Gone", f"{counts.gone:,} (in the journal and no longer in the input)"
    yield "Time", f"about {format_duration(plan.seconds)} at {plan.per_minute:.0f} swaps a minute"
    enough = "sufficient" if have >= cost else f"{cost - have:,.10g} too few"
    yield "Credits", f"{cost:,.10g} of {have:,.10g}: {enough}"
    days = math.ceil(plan.requests / REQUESTS_PER_DAY)
    fits = "sufficient" if days <= 1 else f"takes {days} UTC days"
    yield "Requests", f"about {plan.requests:,} of {REQUESTS_PER_DAY:,} a day: {fits}"
    yield "Assumed", f"{job:g} s for a swap (--assume-seconds)"
    known = ", ".join(f"{kind} {price:g}" for kind, price in prices.items())
    yield "", f"credits by type: {known}" if known else "1 credit a row (no price is known)"
    yield "", "nothing else uses the key today"
    yield (
        "Limits",
        f"{REQUESTS_PER_WINDOW} requests a minute, {MAX_UNFINISHED_SWAPS} unfinished swaps",
    )
