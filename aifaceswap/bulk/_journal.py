"""The record of a bulk run: what was meant, what was sent, what became of it.

A SQLite file in which a row's key and body stand before its POST, its swap's id after, and its
outcome at the end. Whatever happens to the process, the next one resumes from there.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from operator import attrgetter
from typing import Any

import anyio
import attrs
from anyio import to_thread

from aifaceswap import errors
from aifaceswap._api import codec
from aifaceswap.errors import AIFaceSwapError, JournalError, SwapFailedError
from aifaceswap.models import Swap

VERSION = 1
# "AFSJ": tells our files from any other SQLite database.
_APPLICATION = 0x4146534A
_CHUNK = 1000
_ERROR_FIELDS = ("status", "code", "request_id", "retry_after", "attempts")

_SCHEMA = f"""
CREATE TABLE rows (
    row INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    key TEXT NOT NULL,
    body BLOB NOT NULL,
    swap_id TEXT,
    swap_json TEXT,
    error_json TEXT,
    path BLOB,
    attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""


class State(IntEnum):
    """How far a row has come."""

    NEW = -1  # not written yet
    INTENDED = 0  # key and body are written; the request may have been sent
    CREATED = 1  # the swap exists
    AWAITING_DOWNLOAD = 2  # the swap is done; its file is not saved yet
    DONE = 3
    FAILED = 4
    NO_CREDITS = 5  # rejected for lack of credits; the service remembers that with the key


FINISHED = frozenset({State.DONE, State.FAILED})


@attrs.frozen
class JournalEntry:
    """One row of the journal; its fields are the columns in their order."""

    row: int
    state: State
    key: str
    body: bytes
    swap_id: str | None = None
    swap_json: str | None = None
    error_json: str | None = None
    path: bytes | None = None
    attempts: int = 0
    seconds: float = 0.0

    @property
    def swap(self) -> Swap | None:
        """The swap as it ended.

        Raises:
            JournalError: The row is damaged.
        """
        with self._readable():
            if self.swap_json is None:
                return None
            return codec.structure(codec.loads(self.swap_json.encode()), Swap)

    @property
    def error(self) -> AIFaceSwapError | None:
        """Why it failed.

        Raises:
            JournalError: The row is damaged.
        """
        if self.error_json is None:
            return None
        with self._readable():
            fields = codec.loads(self.error_json.encode())
            error: AIFaceSwapError = getattr(errors, fields.pop("type"))(fields.pop("message"))
        vars(error).update(fields, idempotency_key=self.key)
        if isinstance(error, SwapFailedError) and (swap := self.swap):
            error.swap = swap
        return error

    @contextmanager
    def _readable(self) -> Generator[None]:
        try:
            yield
        except (ValueError, KeyError, AttributeError, TypeError) as fault:
            raise JournalError(f"row {self.row} of the journal is damaged: {fault}") from None


def swap_json(swap: Swap) -> str:
    """A swap as a record holds it."""
    return codec.dumps(swap).decode()


def error_json(error: AIFaceSwapError) -> str:
    """An error as a record holds it."""
    fields = {name: getattr(error, name) for name in _ERROR_FIELDS if hasattr(error, name)}
    return codec.dumps({"type": type(error).__name__, "message": error.message, **fields}).decode()


class Journal:
    """A journal that this process alone has open. Writing is grouped and off the event loop.

    Args:
        connection: The open database.
        path: Where it is, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._lock = anyio.Lock()
        self._guard = threading.Lock()
        self._pending: list[tuple[Any, ...]] = []
        self._written = 0
        self._queued = 0

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> Journal:
        """Open a journal, or begin one.

        Args:
            path: The file.

        Returns:
            The journal; nobody else can open it until it is closed.

        Raises:
            JournalError: It is in use, damaged, no journal, or of another version.
        """
        return await to_thread.run_sync(cls._open, os.fspath(path))

    @classmethod
    def _open(cls, path: str) -> Journal:
        with _named(path):
            connection = sqlite3.connect(path, timeout=0, check_same_thread=False)
            try:
                _prepare(connection, path)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    async def close(self) -> None:
        """Close it; another process may open it then."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await to_thread.run_sync(self._close)

    def _close(self) -> None:
        with self._alone():
            self._connection.close()

    async def write(self, record: JournalEntry) -> None:
        """Write a row, and wait until it is on the disk.

        Args:
            record: The row as it is now.

        Raises:
            JournalError: It cannot be written, e.g. because the disk is full.
        """
        self._pending.append(_columns(record))
        self._queued += 1
        number = self._queued
        async with self._lock:
            # Whoever came first has written for all who were waiting by then.
            if self._written < number:
                await to_thread.run_sync(self._flush)

    async def read(self, after: int) -> list[JournalEntry]:
        """Read the next rows in order.

        Args:
            after: The number of the last row that was read; -1 at the beginning.

        Returns:
            A thousand rows at most; none at the end.

        Raises:
            JournalError: It is damaged.
        """
        return await to_thread.run_sync(self._read, after)

    async def unfinished_ids(self) -> set[str]:
        """The ids of swaps that were created and have not ended.

        Raises:
            JournalError: It is damaged.
        """
        return await to_thread.run_sync(self._unfinished_ids)

    async def known_ids(self, ids: Sequence[str]) -> set[str]:
        """Those of these swap ids that the journal has."""
        return await to_thread.run_sync(self._known_ids, ids)

    async def oldest_unanswered(self) -> float | None:
        """The Unix time at which the oldest INTENDED row was first sent; None without one."""
        # Until the entries carry `sent_at: float | None`, written with INTENDED.
        return None

    async def costs(self) -> tuple[float, dict[str, float]]:
        """The sum of `cost: float | None` over all entries, and the last cost of each type."""
        # Until the entries carry it, written with CREATED.
        return 0.0, {}

    async def counts(self) -> dict[State, int]:
        """How many rows have come how far.

        Raises:
            JournalError: It is damaged.
        """
        return await to_thread.run_sync(self._counts)

    def _flush(self) -> None:
        with self._alone():
            number = len(self._pending)
            # One transaction, which is rolled back where anything fails.
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    self._pending[:number],
                )
            del self._pending[:number]
            self._written += number

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Use the connection; a thread continues to use it if its task was cancelled."""
        with self._guard, _named(self._path):
            yield

    def _read(self, after: int) -> list[JournalEntry]:
        with self._alone():
            rows = self._connection.execute(
                "SELECT * FROM rows WHERE row > ? ORDER BY row LIMIT ?", (after, _CHUNK)
            )
            return [JournalEntry(*values) for values in rows]

    def _unfinished_ids(self) -> set[str]:
        with self._alone():
            query = "SELECT swap_id FROM rows WHERE state = ?"
            rows = self._connection.execute(query, (State.CREATED,))
            return {swap_id for (swap_id,) in rows}

    def _known_ids(self, ids: Sequence[str]) -> set[str]:
        with self._alone():
            known: set[str] = set()
            for begin in range(0, len(ids), _CHUNK):
                chunk = ids[begin : begin + _CHUNK]
                places = ", ".join("?" * len(chunk))
                query = f"SELECT swap_id FROM rows WHERE swap_id IN ({places})"  # noqa: S608
                known.update(swap_id for (swap_id,) in self._connection.execute(query, chunk))
            return known

    def _counts(self) -> dict[State, int]:
        with self._alone():
            rows = self._connection.execute("SELECT state, count(*) FROM rows GROUP BY state")
            try:
                return {State(state): number for state, number in rows}
            except ValueError as fault:
                raise JournalError(f"{self._path} is damaged: {fault}") from None


_columns = attrgetter(*(field.name for field in attrs.fields(JournalEntry)))


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    # Held until the connection is closed, and let go by the system if the process dies.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous = FULL")
    if tables == 0 and application == 0:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT;")
        return
    if application != _APPLICATION:
        raise JournalError(f"{path} is a database, but not the journal of a bulk run")
    if version != VERSION:
        text = f"{path} is a journal of version {version}; this package reads version {VERSION}"
        raise JournalError(f"{text}: finish the run with the package that began it")


@contextmanager
def _named(path: str) -> Generator[None]:
    """Nothing of sqlite's own comes out, and every error names the file."""
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise JournalError(_fault(path, error)) from None


def _fault(path: str, error: Exception) -> str:
    # The lowest byte tells the kind of the error; not every one has a code.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if kind == sqlite3.SQLITE_BUSY:
        return f"{path} is in use by another run; wait for its end, or use another journal"
    if kind == sqlite3.SQLITE_NOTADB:
        return f"{path} is not a journal of a bulk run; use another file"
    if kind == sqlite3.SQLITE_FULL:
        return f"{path} cannot be written: the disk is full; make room and resume"
    return f"{path} cannot be used as a journal: {error}"
