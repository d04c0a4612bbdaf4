"""One of several workers that create the swaps of one job: each row in a slot of its own.

``python slot_worker.py REDIS KEY BASE_URL FOLDER NAME``: rows are files. A worker takes one by
moving it from ``todo`` into a folder of its own; when its swap is done, it moves it into ``done``.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

import aifaceswap
from aifaceswap.redis import RedisCoordinator

TASKS = 5
JOB = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


async def main(redis: str, key: str, base_url: str, folder: str, name: str) -> None:
    rows = Path(folder)
    mine = rows / name
    mine.mkdir(exist_ok=True)

    def take() -> Path | None:
        for row in sorted((rows / "todo").iterdir(), key=lambda path: int(path.name)):
            try:
                return row.rename(mine / row.name)
            except FileNotFoundError:  # another worker has it
                continue
        return None

    async def work() -> None:
        while (row := take()) is not None:
            idempotency_key = str(uuid.uuid5(JOB, row.name))
            async with client.swaps.slot(idempotency_key):
                await client.swaps.run(
                    source_url="https://example.com/face.jpg",
                    target_url=f"https://example.com/{row.name}/target.jpg",
                    idempotency_key=idempotency_key,
                )
            row.rename(rows / "done" / row.name)

    shared = RedisCoordinator(redis, requests=100_000, timeout=5)
    client = aifaceswap.AsyncClient(
        key, base_url=base_url, coordinator=shared, deadline=600, max_retries=20
    )
    print("ready", flush=True)
    async with client, shared:
        await asyncio.gather(*(work() for _ in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
