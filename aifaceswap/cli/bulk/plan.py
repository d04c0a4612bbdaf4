"""The estimate of a bulk run, before anything is charged."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from aifaceswap._limits import MAX_UNFINISHED_SWAPS, REQUESTS_PER_DAY, REQUESTS_PER_WINDOW
from aifaceswap.bulk._journal import Journal, State
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.bulk.display import row_label
from aifaceswap.cli.bulk.rows import open_rows
from aifaceswap.cli.bulk.run import BulkArguments
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import format_duration
from aifaceswap.cli.rendering import note
from aifaceswap.errors import InvalidRequestError

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
    rows = _check(arguments)
    runtime.run_job(lambda: _show_plan(context, arguments, rows, job))


def _check(arguments: BulkArguments) -> int:
    number = wrong = 0
    with open_rows(arguments.rows) as rows:
        for row in rows:
            number += 1
            if row.error is not None:
                wrong += 1
                note(rendering.printable(f"{row_label(row.number, row.line)}: {row.error.message}"))
    if wrong:
        raise InvalidRequestError(f"{wrong:,} of {number:,} rows are invalid")
    return number


async def _show_plan(
    context: CommandContext, arguments: BulkArguments, rows: int, job: float
) -> None:
    ended = await _count_ended(context, arguments)
    plan = Plan.estimate(max(0, rows - ended), job=job, concurrency=arguments.concurrency)
    async with runtime.connect(context) as client:
        have = (await client.me()).credits.total
    if context.shows_table:
        rendering.show_fields(_fields(plan, rows, have, job))
        note(f"Nothing was created. Next: {context.retyped()}".replace(" --dry-run", ""))
        return
    rendering.write_json(
        {
            "rows": rows,
            "rows_left": plan.rows,
            "seconds": round(plan.seconds),
            "credits_needed": plan.rows,
            "credits": have,
            "credits_suffice": have >= plan.rows,
            "requests_needed": plan.requests,
            "requests_per_day": REQUESTS_PER_DAY,
            "day_suffices": plan.requests <= REQUESTS_PER_DAY,
            "assumed": {"seconds_per_swap": job, "credits_per_row": 1},
        }
    )


async def _count_ended(context: CommandContext, arguments: BulkArguments) -> int:
    """How many rows an earlier run has finished."""
    given = arguments.journal is not None or arguments.rows is not None
    path = arguments.find_journal(context) if given else None
    if path is None or not path.exists():
        return 0
    journal = await Journal.open(path)
    try:
        counts = await journal.counts()
    finally:
        await journal.close()
    failed = 0 if arguments.retry_failed else counts.get(State.FAILED, 0)
    return counts.get(State.DONE, 0) + failed


def _fields(plan: Plan, rows: int, have: float, job: float) -> Iterator[tuple[str, str]]:
    left = "" if plan.rows == rows else f", {plan.rows:,} left"
    yield "Rows", f"{rows:,}, all valid{left}"
    yield "Time", f"about {format_duration(plan.seconds)} at {plan.per_minute:.0f} swaps a minute"
    enough = "sufficient" if have >= plan.rows else f"{plan.rows - have:,.10g} too few"
    yield "Credits", f"{plan.rows:,} of {have:,.10g}: {enough}"
    days = math.ceil(plan.requests / REQUESTS_PER_DAY)
    fits = "sufficient" if days <= 1 else f"takes {days} UTC days"
    yield "Requests", f"about {plan.requests:,} of {REQUESTS_PER_DAY:,} a day: {fits}"
    yield "Assumed", f"{job:g} s for a swap (--assume-seconds)"
    yield "", "1 credit a row (the price is not documented)"
    yield "", "nothing else uses the key today"
    yield (
        "Limits",
        f"{REQUESTS_PER_WINDOW} requests a minute, {MAX_UNFINISHED_SWAPS} unfinished swaps",
    )
