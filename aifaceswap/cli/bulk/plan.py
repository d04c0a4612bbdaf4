"""What a bulk run will take, before anything is paid."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from aifaceswap._limits import MAX_UNFINISHED_SWAPS, REQUESTS_PER_DAY, REQUESTS_PER_WINDOW
from aifaceswap.bulk._journal import Journal, State
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.bulk.rows import open_rows
from aifaceswap.cli.bulk.run import BulkArguments
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import format_duration
from aifaceswap.cli.rendering import note
from aifaceswap.errors import InvalidRequestError

_DAY = 86_400


@attrs.frozen(kw_only=True)
class Plan:
    """What a run will take by the documented limits.

    Attributes:
        rows: How many swaps there are to be made.
        per_minute: How many of them will end in a minute.
        seconds: How long it will take.
        requests: How many requests will be made.
    """

    rows: int
    per_minute: float
    seconds: float
    requests: int

    @classmethod
    def of(cls, rows: int, *, job: float, concurrency: int) -> Plan:
        """Reckon."""
        slots = min(concurrency, MAX_UNFINISHED_SWAPS)
        # One request of each pause goes to the poll, and an end is seen half a pause late.
        paces = (
            (min(REQUESTS_PER_WINDOW - 60 / pause, slots * 60 / (job + pause / 2)), pause)
            for pause in range(2, 61)
        )
        per_minute, pause = max(paces)
        minutes = rows / per_minute
        requests = rows + math.ceil(minutes * 60 / pause) if rows else 0
        # What one day does not allow is done after the next midnight.
        days_waited = max(0, requests - 1) // REQUESTS_PER_DAY
        seconds = max(minutes * 60, days_waited * _DAY) + (job if rows else 0)
        return cls(rows=rows, per_minute=per_minute, seconds=seconds, requests=requests)


def dry_run(context: CommandContext, arguments: BulkArguments, job: float) -> None:
    """Check every row, ask for the credits, and tell what the run will take."""
    rows = _check(arguments)
    runtime.run_job(lambda: _tell(context, arguments, rows, job))


def _check(arguments: BulkArguments) -> int:
    number = wrong = 0
    with open_rows(arguments.rows) as rows:
        for row in rows:
            number += 1
            if row.error is not None:
                wrong += 1
                note(rendering.printable(row.error.message))
    if wrong:
        raise InvalidRequestError(f"{wrong:,} of {number:,} rows are wrong")
    return number


async def _tell(context: CommandContext, arguments: BulkArguments, rows: int, job: float) -> None:
    ended = await _count_ended(context, arguments)
    plan = Plan.of(max(0, rows - ended), job=job, concurrency=arguments.concurrency)
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
    """How many rows an earlier run has done."""
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
    left = "" if plan.rows == rows else f", of which {plan.rows:,} are left"
    yield "Rows", f"{rows:,}, all right{left}"
    yield "Time", f"about {format_duration(plan.seconds)} at {plan.per_minute:.0f} swaps a minute"
    enough = "enough" if have >= plan.rows else f"{plan.rows - have:,.10g} too few"
    yield "Credits", f"{plan.rows:,} of {have:,.10g}: {enough}"
    days = math.ceil(plan.requests / REQUESTS_PER_DAY)
    fits = "enough" if days <= 1 else f"it takes {days} UTC days"
    yield "Requests", f"about {plan.requests:,} of {REQUESTS_PER_DAY:,} a day: {fits}"
    yield "Assumed", f"{job:g} s for a swap (--assume-seconds)"
    yield "", "1 credit for a row: the price is not documented"
    yield "", "nothing else uses the key, today's requests so far included"
    yield (
        "Limits",
        f"{REQUESTS_PER_WINDOW} requests a minute, {MAX_UNFINISHED_SWAPS} unfinished swaps",
    )
