"""Each row is one taskiq task and exactly one swap: `python taskiq_rows.py --emulator`.

With your own Redis and key, two commands:
`taskiq worker taskiq_rows:broker --workers 2 --max-async-tasks 5`,
`taskiq scheduler taskiq_rows:scheduler`.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from taskiq import TaskiqEvents, TaskiqScheduler, TaskiqState
from taskiq.middlewares import SmartRetryMiddleware
from taskiq.schedule_sources import LabelScheduleSource
from taskiq_redis import ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from aifaceswap import AIFaceSwapError, AsyncClient
from aifaceswap.redis import RedisCoordinator
from rows import Row, is_final, key_of

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
# More than the longest row takes: until its slot is free, until its swap is finished.
LONGEST_ROW = int(os.environ.get("LONGEST_ROW", "1800"))

broker = RedisStreamBroker(
    REDIS_URL,
    # Another worker takes over a row after this time, although the first may still run it.
    idle_timeout=LONGEST_ROW * 1000,
    # A worker reserves one row at a time, and no others that it could lose or delay.
    xread_count=1,
    # Rows that were queued before the first worker started are not skipped.
    consumer_id="0",
    # The lock of a worker that died does not stay.
    unacknowledged_lock_timeout=60,
).with_result_backend(RedisAsyncResultBackend(REDIS_URL, result_ex_time=86_400))
retries = ListRedisScheduleSource(REDIS_URL)
broker.add_middlewares(
    SmartRetryMiddleware(
        default_retry_count=20,
        default_retry_label=True,
        use_delay_exponent=True,
        use_jitter=True,
        # Without a source this broker ignores the delay.
        schedule_source=retries,
    )
)
scheduler = TaskiqScheduler(broker, [LabelScheduleSource(broker), retries])


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    """Open the client of this worker process, which all its rows share."""
    # A job can wait longer for a busy Redis than a web request.
    state.coordinator = RedisCoordinator(REDIS_URL, timeout=5)
    state.client = AsyncClient(coordinator=state.coordinator)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    """Close it."""
    await state.client.aclose()
    await state.coordinator.aclose()


@broker.task("make_swap", ack_type="when_saved")
async def make_swap(job: str, row: int, source_url: str, target_url: str) -> dict[str, Any]:
    """Make the swap of a row and return its outcome."""
    client: AsyncClient = broker.state.client
    key = key_of(job, row)
    try:
        async with client.swaps.slot(key):
            swap = await client.swaps.run(
                source_url=source_url, target_url=target_url, idempotency_key=key, timeout=900
            )
    except AIFaceSwapError as error:
        if not is_final(error):
            raise
        return {"row": row, "error": str(error)}
    return {"row": row, "swap": swap.id, "result_url": swap.result_url}


# A worker looks for the rows of dead workers only after a new message: this is one.
@broker.task("look_for_stuck_rows", schedule=[{"interval": max(1, LONGEST_ROW // 60)}])
async def look_for_stuck_rows() -> None:
    """Do nothing."""


async def submit(rows: list[Row], timeout: float = 300) -> list[dict[str, Any]]:
    """Queue rows, and wait for their outcomes."""
    await broker.startup()
    try:
        tasks = [await make_swap.kiq(*row) for row in rows]
        results = [await task.wait_result(timeout=timeout) for task in tasks]
        return [result.return_value for result in results]
    finally:
        await broker.shutdown()


def main() -> None:
    """Run twelve rows on two worker processes, against an emulator."""
    import local_services  # noqa: PLC0415 - workers do without it

    worker = ("-m", "taskiq", "worker", "taskiq_rows:broker", "--workers=2", "--max-async-tasks=5")
    scheduler = ("-m", "taskiq", "scheduler", "taskiq_rows:scheduler", "--log-level=WARNING")
    with local_services.start() as services:
        with services.run(*worker, "--log-level=WARNING"), services.run(*scheduler):
            from taskiq_rows import submit  # noqa: PLC0415 - with the Redis that has started

            outcomes = asyncio.run(submit(local_services.sample_rows()))
        services.show(outcomes)


if __name__ == "__main__":
    main()
