"""The journal of a bulk run: what is to be sent, what was sent, and how it finished.

A row's idempotency key and body are on the disk before its POST, its swap's id after it, and
its outcome at the end. Whatever happens to the process, the next run continues from there.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack, cast

import anyio
import attrs
from anyio import to_thread

from aifaceswap import errors
from aifaceswap._api import codec
from aifaceswap.bulk import _journal_file
from aifaceswap.bulk._journal_file import JournalFile, Owner, named
from aifaceswap.errors import AIFaceSwapError, JournalError, SwapFailedError
from aifaceswap.models import Swap

if TYPE_CHECKING:
    from aifaceswap.bulk._files import Inputs

__all__ = ["FINISHED", "Journal", "JournalEntry", "JournalView", "Owner", "State"]

T = TypeVar("T")
A = TypeVarTuple("A")

_CHUNK = 1000
_ALL = "SELECT * FROM rows WHERE number > ? ORDER BY number LIMIT ?"
# Identity and occurrence, and how a row is written, among the columns.
_PLACE, _WRITTEN = slice(4, 6), 16
_ERROR_FIELDS = ("status", "code", "request_id", "retry_after", "attempts")


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
_STATES: dict[int, State] = {state.value: state for state in State}


@attrs.frozen
class JournalEntry:
    """One row of the journal; its fields are the columns in their order, `row` excepted."""

    number: int  # its own in the journal; names its file
    state: State
    key: str  # the idempotency key
    body: bytes
    identity: bytes = b""
    occurrence: int = 0  # among the rows of this identity, from 0
    key_id: int = 0  # of the API key that it was sent with
    sent_at: float | None = None  # epoch seconds of a POST that may have been carried out
    swap_id: str | None = None
    swap_json: str | None = None
    error_json: str | None = None
    path: bytes | None = None  # as the system says it: a path need not be text
    cost: float | None = None  # credits
    earlier_cost: float = 0.0  # of this row's earlier swaps
    attempts: int = 0
    seconds: float = 0.0
    place: bytes | None = None  # the digest of the row as it is written, where it names files
    files: str | None = None  # what they were when its body was made, and how long its URLs serve
    row: int | None = attrs.field(default=None, kw_only=True)  # position in this run's input
    inputs: Inputs | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)

    @property
    def swap_type(self) -> str:
        """The type of its swap."""
        return str(codec.loads(self.body).get("type"))

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
            text = f"row {self.number} of the journal is damaged: {fault}"
            raise JournalError(text) from None


def swap_json(swap: Swap) -> str:
    """A swap as an entry holds it."""
    return codec.dumps(swap).decode()


def error_json(error: AIFaceSwapError) -> str:
    """An error as an entry holds it."""
    fields = {name: getattr(error, name) for name in _ERROR_FIELDS if hasattr(error, name)}
    return codec.dumps({"type": type(error).__name__, "message": error.message, **fields}).decode()


class JournalView:
    """A journal's rows, read by a connection of its own; one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._in_order: Iterator[Any] | None = self._in_chunks(_ALL)
        # What a run has seen is counted on disk: a million rows take no memory.
        self._execute("PRAGMA temp.journal_mode = OFF")
        self._execute(
            "CREATE TEMP TABLE seen (identity BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID"
        )
        self._next: Any = next(self._in_order, None)
        self._last_in_order = -1

    @classmethod
    @contextmanager
    def open(cls, path: str | os.PathLike[str]) -> Generator[JournalView]:
        """Open a journal without changing it, also while a run writes it."""
        text = _checked(path)
        with named(text), _journal_file.open_to_read(text) as connection:
            yield cls(connection, text)

    def check_owner(self, owner: Owner, *, accept_new_key: bool) -> None:
        """Check that a run of this service and key can resume the journal."""
        ((base_url,),) = self._execute("SELECT base_url FROM journal")
        if base_url:  # a journal of version 1 does not say; the run asks the service for a swap
            _journal_file.check_owner(
                self._connection, self._path, owner, accept_new_key=accept_new_key
            )

    def counts(self) -> dict[State, int]:
        """The number of rows in each state."""
        rows = self._execute("SELECT state, count(*) FROM rows GROUP BY state")
        try:
            return {State(state): number for state, number in rows}
        except ValueError as fault:
            raise JournalError(f"{self._path} is damaged: {fault}") from None

    def entries(self) -> Iterator[JournalEntry]:
        """All rows in the order of their numbers."""
        return map(_entry, self._in_chunks(_ALL))

    def next_number(self) -> int:
        """The number of the row that is written next."""
        (number,) = self._execute("SELECT coalesce(max(number) + 1, 0) FROM rows")[0]
        return int(number)

    def see(self, identity: bytes, row: int | None = None) -> tuple[int, JournalEntry | None]:
        """Count a row of the input; return which of its identity it is, and its entry."""
        if self._in_order is not None:
            # An input like that of the last run needs no search, and nothing is counted.
            if self._next is not None and self._next[_PLACE] == (identity, 0):
                found, self._next = self._next, next(self._in_order, None)
                self._last_in_order = found[0]
                return 0, _entry(found, row)
            self._count_what_was_in_order()
        self._execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1", identity
        )
        ((times, number, *rest),) = self._execute(
            "SELECT times, rows.* FROM seen LEFT JOIN rows "
            "ON rows.identity = seen.identity AND occurrence = times - 1 WHERE seen.identity = ?",
            identity,
        )
        return times - 1, None if number is None else _entry((number, *rest), row)

    def expected(self, place: bytes) -> JournalEntry | None:
        """The row that is next if the input is like that of the last run, if it has this place."""
        if self._in_order is None or self._next is None or self._next[_WRITTEN] != place:
            return None
        return _entry(self._next)

    def newest_at(self, place: bytes) -> JournalEntry | None:
        """The newest row that was written like this, whatever its files were."""
        query = "SELECT * FROM rows WHERE place = ? ORDER BY number DESC LIMIT 1"
        return next(map(_entry, self._execute(query, place)), None)

    def unseen(self) -> Iterator[JournalEntry]:
        """The rows that the input did not have, in the order of their numbers."""
        if self._in_order is not None:
            rest = self._in_order if self._next is None else chain([self._next], self._in_order)
        else:
            rest = self._in_chunks(
                "SELECT rows.* FROM rows LEFT JOIN seen USING (identity) "
                "WHERE number > ? AND occurrence >= coalesce(times, 0) ORDER BY number LIMIT ?"
            )
        return map(_entry, rest)

    def _count_what_was_in_order(self) -> None:
        """From here on the input differs from the journal: rows are searched and counted."""
        self._in_order = None
        query = "INSERT INTO seen SELECT identity, 1 FROM rows WHERE number <= ?"
        self._execute(query, self._last_in_order)

    def _in_chunks(self, query: str) -> Iterator[Any]:
        # No statement stays open meanwhile: it would keep the log from being emptied.
        last = -1
        while rows := self._execute(query, last, _CHUNK):
            yield from rows
            last = rows[-1][0]

    def _execute(self, query: str, *values: object) -> list[Any]:
        with named(self._path):
            return self._connection.execute(query, values).fetchall()


class Journal:
    """A journal that this process alone writes. Writing is grouped and off the event loop."""

    def __init__(self, file: JournalFile, key_id: int) -> None:
        self.view: JournalView = JournalView(file.reader, file.path)
        self.key_id: int = key_id
        self._file = file
        self._lock = anyio.Lock()
        self._guard = threading.Lock()
        self._pending: list[tuple[Any, ...]] = []
        self._written = 0
        self._queued = 0

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        owner: Owner,
        *,
        accept_new_key: bool = False,
        can_read: Callable[[str], Awaitable[bool]],
    ) -> Journal:
        """Open a journal, or create one.

        Args:
            path: The file.
            owner: The service and the API key of this run.
            accept_new_key: Whether to continue a journal of another API key.
            can_read: Whether the key can read a swap; that proves whose a journal of version 1 is.

        Returns:
            The journal; no other process can write it until it is closed.

        Raises:
            JournalError: It is in use, damaged, incomplete, of another service, key or version,
                or not a journal.
        """
        text = _checked(path)
        file = await _in_thread(text, _journal_file.open_file, text)
        try:
            key_id = await _own(file, owner, can_read, accept_new_key=accept_new_key)
            return cls(file, key_id)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(file.close)
            raise

    async def close(self) -> None:
        """Close it; another process may open it then."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await to_thread.run_sync(self._close)

    def _close(self) -> None:
        with self._alone():
            self._file.close()

    async def write(self, entry: JournalEntry) -> None:
        """Write a row, and wait until it is on the disk.

        Args:
            entry: The row as it is now.

        Raises:
            JournalError: It cannot be written, e.g. because the disk is full.
        """
        self._pending.append(_columns(entry))
        self._queued += 1
        number = self._queued
        async with self._lock:
            # The first one has written for all that were waiting by then.
            if self._written < number:
                await to_thread.run_sync(self._flush)

    async def unfinished_ids(self) -> set[str]:
        """The ids of swaps that were created and have not finished."""
        query = "SELECT swap_id FROM rows WHERE state = ?"
        return {swap_id for (swap_id,) in await self._query(query, State.CREATED)}

    async def known_ids(self, ids: Sequence[str]) -> set[str]:
        """Those of these swap ids that the journal has."""
        query = "SELECT swap_id FROM rows WHERE swap_id IN (SELECT value FROM json_each(?))"
        return {swap_id for (swap_id,) in await self._query(query, json.dumps(ids))}

    async def rows_with_metadata(self, metadata: Mapping[str, Any]) -> int:
        """How many rows have this metadata."""
        query = (
            "SELECT json_extract(CAST(body AS TEXT), '$.metadata') AS metadata FROM rows "
            "WHERE metadata IS NOT NULL"
        )
        found = await self._query(query)
        return sum(json.loads(text) == metadata for (text,) in found)

    async def unanswered(self, sent_before: float, now: float) -> tuple[float, float] | None:
        """When the first and the last row were sent that must not be sent again blindly.

        These are INTENDED rows that were sent so long ago, or whose URLs have expired by now.
        """
        query = (
            "SELECT min(sent_at), max(sent_at) FROM rows WHERE state = ? AND (sent_at < ? OR "
            "EXISTS (SELECT 1 FROM json_each(files) WHERE json_extract(value, '$.expires') <= ?))"
        )
        ((first, last),) = await self._query(query, State.INTENDED, sent_before, now)
        return None if first is None else (first, last)

    async def costs(self) -> tuple[float, dict[str, float]]:
        """The credits that all rows have cost, and the newest price of each type."""
        ((total,),) = await self._query("SELECT total(cost) + total(earlier_cost) FROM rows")
        # Of the columns beside max() SQLite returns those of the same row.
        query = (
            "SELECT json_extract(CAST(body AS TEXT), '$.type') AS type, cost, max(number) "
            "FROM rows WHERE cost IS NOT NULL GROUP BY type"
        )
        return total, {kind: cost for kind, cost, _ in await self._query(query)}

    def _flush(self) -> None:
        with self._alone():
            number = len(self._pending)
            # One transaction, which is rolled back if anything fails.
            with self._file.connection as connection:
                connection.executemany(_WRITE, self._pending[:number])
            del self._pending[:number]
            self._written += number

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Use the connection; a thread continues with it after its task was cancelled."""
        with self._guard, named(self._file.path):
            yield

    async def _query(self, query: str, *values: object) -> list[Any]:
        return await to_thread.run_sync(self._fetch, query, values)

    def _fetch(self, query: str, values: tuple[object, ...]) -> list[Any]:
        with self._alone():
            return self._file.connection.execute(query, values).fetchall()


_COLUMNS = [field.name for field in attrs.fields(JournalEntry) if not field.kw_only]
_columns = attrgetter(*_COLUMNS)
_WRITE = (
    f"INSERT INTO rows ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    "ON CONFLICT (number) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
)


def _entry(values: Any, row: int | None = None) -> JournalEntry:
    number, state, *rest = values
    if state not in _STATES:
        raise JournalError(f"row {number} of the journal is damaged: state {state}")
    return JournalEntry(number, _STATES[state], *rest, row=row)


async def _own(
    file: JournalFile,
    owner: Owner,
    can_read: Callable[[str], Awaitable[bool]],
    *,
    accept_new_key: bool,
) -> int:
    """Check that a journal is the owner's; return the id of its key."""
    if file.lacks_owner:
        swap_id = await _in_thread(file.path, file.newest_swap_id)
        is_proven = swap_id is not None and await can_read(swap_id)
        if not is_proven and not accept_new_key:
            raise JournalError(_unproven(file.path))
        await _in_thread(file.path, partial(file.upgrade, is_proven=is_proven), owner)
    claim = partial(file.claim, accept_new_key=accept_new_key)
    return await _in_thread(file.path, claim, owner)


async def _in_thread(path: str, function: Callable[[Unpack[A]], T], *args: *A) -> T:
    with named(path):
        return await to_thread.run_sync(function, *args)


def _checked(path: Any) -> str:
    if not isinstance(path, str | bytes | os.PathLike):
        raise JournalError(f"journal must be the path of a file; got {path!r}")
    text = os.fsdecode(cast("str | bytes | os.PathLike[str]", path))
    if text in ("", ":memory:"):
        text = f"journal must be the path of a file; got {text!r}, which would record nothing"
        raise JournalError(text)
    if os.path.isdir(text):
        raise JournalError(f"journal must be the path of a file; {text} is a folder")
    return text


def _unproven(path: str) -> str:
    return (
        f"{path} is from an earlier version that did not record its API key, and no swap in it can "
        "be read with this key. Use the key that it was made with, or pass accept_new_key=True "
        "(--accept-new-key): rows that were sent are listed and not sent again"
    )
