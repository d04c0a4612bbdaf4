"""Journals of bulk runs, opened as a run opens them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import attrs

from aifaceswap import AsyncClient
from aifaceswap.bulk._journal import Journal, JournalEntry, JournalView, Owner

BASE_URL = "https://example.com/api/v1"

VERSION_1 = """
CREATE TABLE rows (
    row INTEGER PRIMARY KEY, state INTEGER NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
    swap_id TEXT, swap_json TEXT, error_json TEXT, path BLOB,
    attempts INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
PRAGMA application_id = 0x4146534A;
PRAGMA user_version = 1;
"""

VERSION_2 = """
CREATE TABLE journal (base_url TEXT NOT NULL, salt BLOB NOT NULL, is_open INTEGER NOT NULL);
CREATE TABLE keys (id INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE);
CREATE TABLE rows (
    number INTEGER PRIMARY KEY, state INTEGER NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
    identity BLOB NOT NULL, occurrence INTEGER NOT NULL, key_id INTEGER NOT NULL, sent_at REAL,
    swap_id TEXT, swap_json TEXT, error_json TEXT, path BLOB, cost REAL,
    earlier_cost REAL NOT NULL, attempts INTEGER NOT NULL, seconds REAL NOT NULL
);
CREATE UNIQUE INDEX identities ON rows (identity, occurrence);
PRAGMA application_id = 0x4146534A;
PRAGMA user_version = 2;
"""


def owner_of(key: str, base_url: str = BASE_URL) -> Owner:
    """The owner of a journal by this key."""
    return Owner(base_url, lambda salt: hashlib.sha256(salt + key.encode()).digest())


def owner_of_client(client: AsyncClient) -> Owner:
    """The owner that a run of this client names."""
    transport = client._resources.transport
    return Owner(transport.base_url, transport.fingerprint)


async def never(swap_id: str) -> bool:
    """What a key can read that is not the journal's."""
    return False


@asynccontextmanager
async def opened(path: Path | str, key: str = "key_1", **options: Any) -> AsyncIterator[Journal]:
    """A journal, open for a key or an owner, e.g. with `base_url=` or `accept_new_key=`."""
    owner = options.pop("owner", None) or owner_of(key, options.pop("base_url", BASE_URL))
    journal = await Journal.open(path, owner, **{"can_read": never, **options})
    try:
        yield journal
    finally:
        await journal.close()


def entries(path: Path | str) -> list[JournalEntry]:
    """All rows of a journal, read as `status` reads them."""
    with JournalView.open(path) as view:
        return list(view.entries())


def write_version_1(path: Path, *rows: tuple[Any, ...]) -> None:
    """A journal as version 1 wrote it, of rows in the order of its columns."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def write_version_2(path: Path, owner: Owner, *rows: JournalEntry) -> None:
    """A journal as version 2 wrote it."""
    salt = b"16 bytes of salt"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_2)
        connection.execute("INSERT INTO journal VALUES (?, ?, FALSE)", (owner.base_url, salt))
        connection.execute("INSERT INTO keys VALUES (1, ?)", (owner.fingerprint(salt),))
        columns = [attrs.astuple(row)[:16] for row in rows]
        connection.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * 16)})", columns)


def write_entries(path: Path | str, *rows: JournalEntry) -> None:
    """A journal of these rows."""

    async def write() -> None:
        async with opened(path) as journal, anyio.create_task_group() as group:
            for row in rows:
                group.start_soon(journal.write, row)

    anyio.run(write)
