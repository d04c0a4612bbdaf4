"""Each row is one Celery task and exactly one swap: `python celery_rows.py --emulator`.

With your own Redis and key: `celery --app celery_rows worker --concurrency 10`.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from celery import Celery, Task

from aifaceswap import AIFaceSwapError, Client
from aifaceswap.redis import RedisCoordinator
from rows import Row, is_final, key_of

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
# More than the longest row takes: until its slot is free, until its swap is finished.
LONGEST_ROW = int(os.environ.get("LONGEST_ROW", "1800"))

app = Celery("rows", broker=REDIS_URL, backend=REDIS_URL)
app.conf.update(
    # A row is acknowledged when it is done: if its worker dies, another one gets it.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A process reserves one row, and no others that it could lose or delay.
    worker_prefetch_multiplier=1,
    # Redis gives a row to another worker after this time, although the first still runs it.
    broker_transport_options={"visibility_timeout": LONGEST_ROW},
    broker_connection_retry_on_startup=True,
)


@functools.cache
def client() -> Client:
    """The client of this worker process: its first task makes it, so after the fork."""
    # A job can wait longer for a busy Redis than a web request.
    return Client(coordinator=RedisCoordinator(REDIS_URL, timeout=5))


@app.task(
    bind=True,
    name="make_swap",
    autoretry_for=(AIFaceSwapError,),
    retry_backoff=True,
    retry_backoff_max=300,
    max_retries=20,
)
def make_swap(_: Task, job: str, row: int, source_url: str, target_url: str) -> dict[str, Any]:
    """Make the swap of a row and return its outcome."""
    key = key_of(job, row)
    try:
        with client().swaps.slot(key):
            swap = client().swaps.run(
                source_url=source_url, target_url=target_url, idempotency_key=key, timeout=900
            )
    except AIFaceSwapError as error:
        if not is_final(error):
            raise
        return {"row": row, "error": str(error)}
    return {"row": row, "swap": swap.id, "result_url": swap.result_url}


def submit(rows: list[Row], timeout: float = 300) -> list[dict[str, Any]]:
    """Queue rows, and wait for their outcomes."""
    results = [make_swap.delay(*row) for row in rows]
    return [result.get(timeout=timeout) for result in results]


def main() -> None:
    """Run twelve rows on four worker processes, against an emulator."""
    import local_services  # noqa: PLC0415 - workers do without it

    worker = ("-m", "celery", "--app=celery_rows", "--quiet", "worker", "--loglevel=warning")
    with local_services.start() as services:
        with services.run(*worker, "--concurrency=4"):
            from celery_rows import submit  # noqa: PLC0415 - with the Redis that has started

            outcomes = submit(local_services.sample_rows())
        services.show(outcomes)


if __name__ == "__main__":
    main()
