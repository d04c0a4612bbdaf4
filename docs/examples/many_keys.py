"""Rows over several API keys, each row exactly one swap: `python many_keys.py --emulator`.

An idempotency key belongs to its API key: the same row sent with another one is a second swap.
So the name of the key is stored with the row *before* the swap is created, and never changes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aifaceswap import AIFaceSwapError, AsyncClient
from aifaceswap.redis import RedisCoordinator
from rows import is_final

_TABLE = """
CREATE TABLE IF NOT EXISTS rows (
    number INTEGER PRIMARY KEY, source_url TEXT NOT NULL, target_url TEXT NOT NULL,
    idempotency_key TEXT NOT NULL, api_key TEXT, result_url TEXT, error TEXT
)"""
_OPEN = "result_url IS NULL AND error IS NULL"


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    number: int
    source_url: str
    target_url: str
    idempotency_key: str


class Rows:
    """The rows in a file: your own database."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute(_TABLE)

    def add(self, source_url: str, target_url: str) -> None:
        """Store a row that no key has taken yet."""
        statement = "INSERT INTO rows (source_url, target_url, idempotency_key) VALUES (?, ?, ?)"
        self._db.execute(statement, (source_url, target_url, str(uuid.uuid4())))

    def taken(self, name: str) -> list[Row]:
        """The rows of a key that an earlier run did not finish."""
        query = f"SELECT * FROM rows WHERE api_key = ? AND {_OPEN}"  # noqa: S608 - a constant
        return [Row(*values[:4]) for values in self._db.execute(query, (name,))]

    def take(self, name: str) -> Row | None:
        """Give the next free row to a key, for good."""
        statement = (
            "UPDATE rows SET api_key = ? WHERE number = "
            "(SELECT min(number) FROM rows WHERE api_key IS NULL) RETURNING *"
        )
        values = self._db.execute(statement, (name,)).fetchone()
        return None if values is None else Row(*values[:4])

    def finish(self, row: Row, result_url: str | None, error: str | None = None) -> None:
        """Store the outcome."""
        statement = "UPDATE rows SET result_url = ?, error = ? WHERE number = ?"
        self._db.execute(statement, (result_url, error, row.number))

    def outcomes(self) -> list[dict[str, Any]]:
        """All rows with an outcome."""
        query = f"SELECT number, api_key, result_url, error FROM rows WHERE NOT ({_OPEN})"  # noqa: S608
        names = ("row", "key", "result_url", "error")
        return [dict(zip(names, values, strict=True)) for values in self._db.execute(query)]


async def work(rows: Rows, keys: Mapping[str, str], redis_url: str) -> None:
    """Finish all rows, with whichever key has a free slot."""
    shared = RedisCoordinator(redis_url, timeout=5)
    async with asyncio.TaskGroup() as group:
        for name, key in keys.items():
            group.create_task(work_with(rows, name, AsyncClient(key, coordinator=shared)))
    await shared.aclose()


async def work_with(rows: Rows, name: str, client: AsyncClient) -> None:
    """Finish the rows of one key: first those of earlier runs, then free ones."""
    earlier = rows.taken(name)

    async def worker() -> None:
        while row := earlier.pop() if earlier else rows.take(name):
            await make_swap(rows, row, client)

    async with client, asyncio.TaskGroup() as group:
        for _ in range(10):  # the slots of a key
            group.create_task(worker())


async def make_swap(rows: Rows, row: Row, client: AsyncClient) -> None:
    """Make the swap of a row, with the key that has taken it."""
    try:
        async with client.swaps.slot(row.idempotency_key):
            swap = await client.swaps.run(
                source_url=row.source_url,
                target_url=row.target_url,
                idempotency_key=row.idempotency_key,
                timeout=900,
            )
    except AIFaceSwapError as error:
        if not is_final(error):
            raise  # the next run continues with this row and the same key
        rows.finish(row, None, str(error))
    else:
        rows.finish(row, swap.result_url)


def main() -> None:
    """Run 24 rows with two keys, against an emulator."""
    import local_services  # noqa: PLC0415 - your own program does without it

    with local_services.start() as services:
        keys = {"shop": services.emulator.api_key, "studio": "key_studio"}
        services.emulator.add_key(keys["studio"])
        rows = Rows(":memory:")
        for number in range(24):
            rows.add(local_services.FACE, f"https://example.com/{number}/target.jpg")
        asyncio.run(work(rows, keys, services.redis_url))
        services.show(rows.outcomes())


if __name__ == "__main__":
    main()
