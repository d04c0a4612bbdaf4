"""The journal of a bulk run by itself: what is written, what is read, what is refused."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from aifaceswap import (
    AIFaceSwapError,
    APIStatusError,
    InsufficientCreditsError,
    JournalError,
    Swap,
    SwapFailedError,
)
from aifaceswap.bulk._journal import Journal, JournalEntry, State, error_json, swap_json

SWAP = Swap(id="tsk_1", status="failed", error={"code": "no_face", "message": "No face."})
FULL = JournalEntry(
    row=7,
    state=State.DONE,
    key="key-7",
    body=b'{"type":"image"}',
    swap_id="tsk_1",
    swap_json=swap_json(SWAP),
    error_json=error_json(SwapFailedError("no face", swap=SWAP)),
    path=b"out/7.jpg",
    attempts=3,
    seconds=1.25,
)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    journal = await Journal.open(path)
    try:
        yield journal
    finally:
        await journal.close()


def record(row: int, state: State = State.INTENDED, **fields: Any) -> JournalEntry:
    return JournalEntry(row=row, state=state, key=f"key-{row}", body=b"{}", **fields)


def change(path: Path, statement: str, *values: object) -> None:
    """Do to the file what a user or another program might."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


async def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """By the next one who opens the file, too."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(FULL)
        assert await journal.read(-1) == [FULL]
    async with opened(tmp_path / "run.sqlite") as journal:
        (again,) = await journal.read(-1)
    assert again == FULL
    assert again.swap == SWAP


async def test_a_row_has_one_record_the_newest(tmp_path: Path) -> None:
    """Whatever it was before is replaced."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(record(0))
        await journal.write(record(0, State.CREATED, swap_id="tsk_1"))
        assert await journal.read(-1) == [record(0, State.CREATED, swap_id="tsk_1")]


async def test_records_are_read_in_order_a_thousand_at_a_time(tmp_path: Path) -> None:
    """A run of any length needs little memory; after the last there is nothing."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await asyncio.gather(*(journal.write(record(row)) for row in reversed(range(1001))))
        assert [each.row for each in await journal.read(-1)] == list(range(1000))
        assert [each.row for each in await journal.read(999)] == [1000]
        assert await journal.read(1000) == []


async def test_writes_at_once_are_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred rows that wait for the disk wait for it once, again and again."""
    async with opened(tmp_path / "run.sqlite") as journal:
        flush, flushed = journal._flush, list[int]()

        def counted() -> None:
            flushed.append(len(journal._pending))
            flush()

        monkeypatch.setattr(journal, "_flush", counted)
        for _ in range(3):
            await asyncio.gather(*(journal.write(record(row)) for row in range(100)))
        assert flushed == [100] * 3


async def test_it_knows_how_far_the_rows_have_come(tmp_path: Path) -> None:
    """Counted by state; the swaps under way by their ids."""
    states = [
        State.INTENDED,
        State.CREATED,
        State.CREATED,
        State.AWAITING_DOWNLOAD,
        State.DONE,
        State.FAILED,
    ]
    async with opened(tmp_path / "run.sqlite") as journal:
        for row, state in enumerate(states):
            await journal.write(record(row, state, swap_id=f"tsk_{row}"))
        assert await journal.unfinished_ids() == {"tsk_1", "tsk_2"}
        assert await journal.counts() == {state: states.count(state) for state in states}


@pytest.mark.parametrize(
    "error",
    [
        SwapFailedError("No face.", swap=SWAP),
        APIStatusError("No.", status=418, code="teapot", request_id="req_1", attempts=2),
        InsufficientCreditsError("Pay.", status=402, retry_after=1.5),
    ],
)
def test_an_error_comes_back_with_its_facts(error: AIFaceSwapError) -> None:
    """Its class, its words and what a program branches on; and the key of its row."""
    failed = record(3, State.FAILED, error_json=error_json(error), swap_json=swap_json(SWAP))
    again = failed.error
    assert type(again) is type(error)
    assert again.message == error.message
    assert again.idempotency_key == "key-3"
    for name in ("status", "code", "request_id", "retry_after", "attempts", "swap"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_a_row_that_has_not_ended_has_neither_swap_nor_error() -> None:
    """Nothing is made up for it."""
    assert record(0).swap is None
    assert record(0).error is None
    assert attrs.astuple(record(0))[4:] == (None, None, None, None, 0, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"type":"NoSuchError","message":""}', '{"message":"no type"}'),
        *(
            '{"type":7,"message":""}',
            '{"type":"annotations","message":""}',
            '{"type":"JournalError"}',
        ),
    ],
)
def test_a_damaged_record_is_told_by_its_row(text: str) -> None:
    """Whatever stands where the swap or the error was."""
    with pytest.raises(JournalError, match=r"^row 5 of the journal is damaged: "):
        _ = record(5, swap_json=text).swap
    with pytest.raises(JournalError, match="row 5 of the journal is damaged: "):
        _ = record(5, error_json=text).error


async def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(record(0))
    change(tmp_path / "run.sqlite", "UPDATE rows SET state = 99")
    async with opened(tmp_path / "run.sqlite") as journal:
        with pytest.raises(JournalError, match=r"run\.sqlite is damaged: 99"):
            await journal.counts()


async def test_what_cannot_be_written_is_rolled_back_and_told_to_each(tmp_path: Path) -> None:
    """Nobody takes his row for written because somebody else was told of the failure."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(record(0))
        bad = attrs.evolve(record(2), key=None)  # type: ignore[arg-type]
        results = await asyncio.gather(
            *(journal.write(each) for each in (record(1), bad, record(3))), return_exceptions=True
        )
        assert [str(result).partition(": ")[2] for result in results[1:]] == [
            "NOT NULL constraint failed: rows.key"
        ] * 2
        assert [each.row for each in await journal.read(-1) if each.row != 1] == [0]


async def test_one_journal_is_open_once(tmp_path: Path) -> None:
    """The other is told so without waiting, until it is closed."""
    path = tmp_path / "run.sqlite"
    async with opened(path) as journal:
        assert journal._connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
        with pytest.raises(JournalError, match=r"run\.sqlite is in use by another run"):
            await Journal.open(path)
    async with opened(path) as journal:
        assert await journal.read(-1) == []


async def test_it_is_closed_also_for_those_who_are_cancelled(tmp_path: Path) -> None:
    """The next run must not find it in use."""
    journal = await Journal.open(tmp_path / "run.sqlite")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.close()
    async with opened(tmp_path / "run.sqlite") as again:
        assert await again.counts() == {}


async def test_it_is_closed_behind_those_who_wait_to_write(tmp_path: Path) -> None:
    """What was to be written before stands in the file."""
    journal = await Journal.open(tmp_path / "run.sqlite")
    async with journal._lock:
        write = asyncio.create_task(journal.write(record(0)))
        await asyncio.sleep(0)
        close = asyncio.create_task(journal.close())
        await asyncio.sleep(0.1)
    await asyncio.gather(write, close)
    async with opened(tmp_path / "run.sqlite") as journal:
        assert await journal.read(-1) == [record(0)]


async def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    """Nothing of sqlite's own comes out, whatever is asked of it."""
    async with opened(tmp_path / "run.sqlite") as journal:
        pass
    for ask in (
        lambda: journal.write(record(0)),
        lambda: journal.read(-1),
        journal.unfinished_ids,
        journal.counts,
    ):
        with pytest.raises(JournalError, match=r"run\.sqlite cannot .* closed database"):
            await ask()


async def test_a_file_of_text_is_no_journal(tmp_path: Path) -> None:
    """Such as the rows themselves, given in the journal's place."""
    path = tmp_path / "rows.csv"
    path.write_text("source_url,target_url\n" * 200)
    with pytest.raises(JournalError, match=r"rows\.csv is not a journal of a bulk run"):
        await Journal.open(path)


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """With what to do."""
    async with opened(tmp_path / "run.sqlite") as journal:
        journal._connection.execute("PRAGMA max_page_count = 4")
        with pytest.raises(JournalError, match=r"run\.sqlite .* disk is full; make room"):
            await journal.write(attrs.evolve(record(0), body=bytes(100_000)))
        assert await journal.read(-1) == []


@pytest.mark.parametrize("path", ["no\0path", "not/there/run.sqlite", "."])
async def test_a_path_that_is_none_is_refused(path: str, tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(JournalError, match="cannot be used as a journal"):
        await Journal.open(f"{tmp_path}/{path}")


@pytest.mark.parametrize("statement", ["PRAGMA application_id = 7", "CREATE TABLE mine (x)"])
async def test_the_files_of_others_are_left_alone(statement: str, tmp_path: Path) -> None:
    """Also those that are empty but for another program's mark; not a byte changes."""
    path = tmp_path / "run.sqlite"
    change(path, statement)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"run\.sqlite is a database, but not the journal"):
        await Journal.open(path)
    assert path.read_bytes() == before


async def test_a_journal_of_another_version_is_left_alone(tmp_path: Path) -> None:
    """The error says which version it is of, and what to do."""
    async with opened(tmp_path / "run.sqlite"):
        pass
    change(tmp_path / "run.sqlite", "PRAGMA user_version = 2")
    text = r"run\.sqlite is a journal of version 2; this package reads version 1: finish the run"
    with pytest.raises(JournalError, match=text):
        await Journal.open(tmp_path / "run.sqlite")


async def test_what_is_written_survives_the_power(tmp_path: Path) -> None:
    """A commit waits for the disk (2 is FULL), at the beginning and when it is gone on with."""
    for _ in range(2):
        async with opened(tmp_path / "run.sqlite") as journal:
            (synchronous,) = journal._connection.execute("PRAGMA synchronous").fetchone()
            (mode,) = journal._connection.execute("PRAGMA journal_mode").fetchone()
        assert (synchronous, mode) == (2, "wal")


async def test_the_format_of_the_file_stays(tmp_path: Path) -> None:
    """A run goes on with a later release: its mark, its version, its columns and its states."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(FULL)
    assert (tmp_path / "run.sqlite").read_bytes()[68:72] == b"AFSJ"
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT * FROM rows").fetchone() == attrs.astuple(FULL)
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(rows)")]
    assert columns == [field.name for field in attrs.fields(JournalEntry)]
    states = ["NEW", "INTENDED", "CREATED", "AWAITING_DOWNLOAD", "DONE", "FAILED", "NO_CREDITS"]
    assert {state.name: state.value for state in State} == dict(
        zip(states, range(-1, 6), strict=True)
    )


async def test_known_ids_are_those_that_have_a_row(tmp_path: Path) -> None:
    """Of any number of ids."""
    journal = await Journal.open(tmp_path / "run.sqlite")
    await journal.write(JournalEntry(0, State.CREATED, "key-0", b"{}", swap_id="tsk_1"))
    assert await journal.known_ids([f"tsk_{number}" for number in range(3000)]) == {"tsk_1"}
    await journal.close()
