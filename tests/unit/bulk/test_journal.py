"""The journal of a bulk run by itself: what is written, read and rejected."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import sys
from contextlib import closing
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
from aifaceswap.bulk._identity import content_identity
from aifaceswap.bulk._journal import (
    Journal,
    JournalEntry,
    JournalView,
    State,
    error_json,
    swap_json,
)
from support.journals import (
    BASE_URL,
    entries,
    never,
    opened,
    owner_of,
    write_version_1,
    write_version_2,
)

SWAP = Swap(id="tsk_1", status="failed", error={"code": "no_face", "message": "No face."})
FULL = JournalEntry(
    number=7,
    state=State.DONE,
    key="key-7",
    body=b'{"type":"image"}',
    identity=b"a row",
    occurrence=1,
    key_id=1,
    sent_at=1760000000.5,
    swap_id="tsk_1",
    swap_json=swap_json(SWAP),
    error_json=error_json(SwapFailedError("no face", swap=SWAP)),
    path=b"out/7.jpg",
    cost=2.0,
    earlier_cost=1.0,
    attempts=3,
    seconds=1.25,
    place=b"as written",
    files='{"source":{"sha256":"00"}}',
)


def entry(number: int, state: State = State.INTENDED, **fields: Any) -> JournalEntry:
    """A row of its own identity."""
    row = {"identity": b"%d" % number, "body": b'{"type":"image"}', **fields}
    return JournalEntry(number=number, state=state, key=f"key-{number}", **row)


def change(path: Path, statement: str, *values: object) -> None:
    """Do to the file what a user or another program might."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


async def can_read(_: str) -> bool:
    """What the key of a journal can do."""
    return True


# --- rows ---


async def test_an_entry_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Beside the run, and after it."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(FULL)
        assert entries(tmp_path / "run.sqlite") == [FULL]
    (again,) = entries(tmp_path / "run.sqlite")
    assert again == FULL
    assert again.swap == SWAP
    assert type(again.state) is State


async def test_a_row_has_one_entry_the_newest(tmp_path: Path) -> None:
    """A later write replaces the earlier one."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(entry(0))
        await journal.write(entry(0, State.CREATED, swap_id="tsk_1"))
        assert list(journal.view.entries()) == [entry(0, State.CREATED, swap_id="tsk_1")]


async def test_two_rows_cannot_have_one_identity(tmp_path: Path) -> None:
    """Neither replaces the other in silence."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(entry(0))
        with pytest.raises(JournalError, match="UNIQUE constraint failed"):
            await journal.write(entry(1, identity=entry(0).identity))


async def test_entries_are_read_in_order_whatever_their_number(tmp_path: Path) -> None:
    """Also when they are more than one query reads."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await asyncio.gather(*(journal.write(entry(number)) for number in reversed(range(1001))))
        assert [each.number for each in journal.view.entries()] == list(range(1001))
        assert journal.view.next_number() == 1001


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
            await asyncio.gather(*(journal.write(entry(number)) for number in range(100)))
        assert flushed == [100] * 3


async def test_it_knows_the_rows_by_state(tmp_path: Path) -> None:
    """Their counts, the ids of unfinished swaps, and when the oldest open row was sent."""
    states = [
        *(State.INTENDED, State.INTENDED, State.CREATED, State.CREATED),
        *(State.AWAITING_DOWNLOAD, State.DONE, State.FAILED),
    ]
    async with opened(tmp_path / "run.sqlite") as journal:
        assert await journal.unanswered(99.5, 0.0) is None
        for number, state in enumerate(states):
            row = entry(number, state, swap_id=f"tsk_{number}", sent_at=100.0 - number)
            await journal.write(row)
        assert await journal.unfinished_ids() == {"tsk_2", "tsk_3"}
        assert await journal.known_ids([f"tsk_{number}" for number in range(5, 3000)]) == {
            "tsk_5",
            "tsk_6",
        }
        assert await journal.unanswered(99.5, 0.0) == (99.0, 99.0)
        assert await journal.unanswered(200.0, 0.0) == (99.0, 100.0)
        assert await journal.unanswered(99.0, 0.0) is None
        assert journal.view.counts() == {state: states.count(state) for state in states}


async def test_it_knows_what_was_spent_and_the_newest_prices(tmp_path: Path) -> None:
    """Earlier swaps of a row count, too; a price is that of the last row of its type."""
    async with opened(tmp_path / "run.sqlite") as journal:
        assert await journal.costs() == (0.0, {})
        await journal.write(entry(0, cost=1.0, earlier_cost=5.0))
        await journal.write(entry(1, cost=1.5))
        await journal.write(entry(2, cost=3.0, body=b'{"type":"gif"}'))
        await journal.write(entry(3))
        assert await journal.costs() == (10.5, {"image": 1.5, "gif": 3.0})


async def test_rows_are_found_by_identity_and_occurrence(tmp_path: Path) -> None:
    """Each row of the input is counted once; the others are those of the journal alone."""
    async with opened(tmp_path / "run.sqlite") as journal:
        twins = [entry(number, identity=b"twin", occurrence=number) for number in range(3)]
        for each in (*twins, entry(3)):
            await journal.write(each)
        seen = [journal.view.see(identity) for identity in (b"twin", b"new", b"twin")]
        assert seen == [(0, twins[0]), (0, None), (1, twins[1])]
        assert list(journal.view.unseen()) == [twins[2], entry(3)]


@pytest.mark.parametrize(
    "error",
    [
        SwapFailedError("No face.", swap=SWAP),
        APIStatusError("No.", status=418, code="teapot", request_id="req_1", attempts=2),
        InsufficientCreditsError("Pay.", status=402, retry_after=1.5),
    ],
)
def test_an_error_comes_back_with_its_facts(error: AIFaceSwapError) -> None:
    """Its class, its message and what a program branches on; and the key of its row."""
    failed = entry(3, State.FAILED, error_json=error_json(error), swap_json=swap_json(SWAP))
    again = failed.error
    assert type(again) is type(error)
    assert again.message == error.message
    assert again.idempotency_key == "key-3"
    for name in ("status", "code", "request_id", "retry_after", "attempts", "swap"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_a_row_that_has_not_finished_has_neither_swap_nor_error() -> None:
    """Nothing is made up for it."""
    assert entry(0).swap is None
    assert entry(0).error is None


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
def test_a_damaged_entry_is_named_by_its_row(text: str) -> None:
    """Whatever stands where the swap or the error was."""
    with pytest.raises(JournalError, match=r"^row 5 of the journal is damaged: "):
        _ = entry(5, swap_json=text).swap
    with pytest.raises(JournalError, match="row 5 of the journal is damaged: "):
        _ = entry(5, error_json=text).error


async def test_an_unknown_state_is_damage(tmp_path: Path) -> None:
    """The error names the file or the row."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(entry(0))
    change(tmp_path / "run.sqlite", "UPDATE rows SET state = 99")
    with JournalView.open(tmp_path / "run.sqlite") as view:
        with pytest.raises(JournalError, match=r"run\.sqlite is damaged: 99"):
            view.counts()
        with pytest.raises(JournalError, match=r"row 0 of the journal is damaged: state 99"):
            list(view.entries())


async def test_a_failed_write_is_rolled_back_and_reported_to_each(tmp_path: Path) -> None:
    """A row is not taken for written because another one reported the failure."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(entry(0))
        bad = attrs.evolve(entry(2), key=None)  # type: ignore[arg-type]
        results = await asyncio.gather(
            *(journal.write(each) for each in (entry(1), bad, entry(3))), return_exceptions=True
        )
        assert [str(result).partition(": ")[2] for result in results[1:]] == [
            "NOT NULL constraint failed: rows.key"
        ] * 2
        assert [each.number for each in journal.view.entries() if each.number != 1] == [0]


# --- one writer, many readers ---


async def test_one_run_has_a_journal_open(tmp_path: Path) -> None:
    """The second is rejected at once, by whatever path it comes, until the first has ended."""
    path = tmp_path / "run.sqlite"
    (tmp_path / "link.sqlite").symlink_to(path)
    async with opened(path):
        for name in ("run.sqlite", "link.sqlite"):
            with pytest.raises(JournalError, match=r"run\.sqlite is in use by another run"):
                async with opened(tmp_path / name):
                    pytest.fail("opened twice")
    async with opened(path) as journal:
        assert list(journal.view.entries()) == []


async def test_reading_the_file_does_not_release_the_lock(tmp_path: Path) -> None:
    """A copy or a backup in the same process would drop POSIX record locks."""
    path = tmp_path / "run.sqlite"
    async with opened(path):
        for name in os.listdir(tmp_path):
            (tmp_path / name).read_bytes()
        with JournalView.open(path) as view:
            assert view.counts() == {}
        with pytest.raises(JournalError, match="in use by another run"):
            async with opened(path):
                pytest.fail("opened twice")


async def test_a_system_without_flock_locks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows SQLite's own lock of a file beside the journal does the same."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(entry(0))
        with pytest.raises(JournalError, match=r"run\.sqlite is in use by another run"):
            async with opened(tmp_path / "run.sqlite"):
                pytest.fail("opened twice")
        assert entries(tmp_path / "run.sqlite") == [entry(0)]
    async with opened(tmp_path / "run.sqlite"):
        pass


async def test_a_closed_journal_is_one_file_for_its_owner_alone(tmp_path: Path) -> None:
    """Everything is in it, and no lock or log stays beside it; reading adds none."""
    async with opened(tmp_path / "run.sqlite") as journal:
        journal.view.see(entry(0).identity)
        await journal.write(entry(0))
        modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    assert modes == {0o600}
    assert entries(tmp_path / "run.sqlite") == [entry(0)]
    assert os.listdir(tmp_path) == ["run.sqlite"]


async def test_it_is_closed_for_those_who_are_cancelled(tmp_path: Path) -> None:
    """The next run must not find it in use."""
    journal = await Journal.open(tmp_path / "run.sqlite", owner_of("key_1"), can_read=never)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.close()
    async with opened(tmp_path / "run.sqlite") as again:
        assert again.view.counts() == {}


async def test_it_is_closed_behind_those_who_wait_to_write(tmp_path: Path) -> None:
    """What was to be written before stands in the file."""
    async with opened(tmp_path / "run.sqlite") as journal:
        async with journal._lock:
            write = asyncio.create_task(journal.write(entry(0)))
            await asyncio.sleep(0)
            close = asyncio.create_task(journal.close())
            await asyncio.sleep(0)
        await asyncio.gather(write, close)
        assert entries(tmp_path / "run.sqlite") == [entry(0)]


async def test_a_closed_journal_cannot_be_used(tmp_path: Path) -> None:
    """Nothing of sqlite's own comes out, whatever is asked of it."""
    async with opened(tmp_path / "run.sqlite") as journal:
        pass
    for ask in (lambda: journal.write(entry(0)), journal.unfinished_ids, journal.costs):
        with pytest.raises(JournalError, match=r"run\.sqlite cannot .* closed database"):
            await ask()
    with pytest.raises(JournalError, match=r"run\.sqlite cannot .* closed database"):
        journal.view.counts()


# --- complete by itself ---


def killed(source: Path, folder: Path, *names: str) -> Path:
    """The files of a run as a kill would leave them, or those of these names."""
    folder.mkdir()
    for path in source.iterdir():
        if not names or path.name in names:
            shutil.copyfile(path, folder / path.name)
    return folder / "run.sqlite"


async def test_a_copy_without_its_log_is_rejected(tmp_path: Path) -> None:
    """It would be taken for a journal without the newest rows, and they would be paid again."""
    source = tmp_path / "run"
    source.mkdir()
    async with opened(source / "run.sqlite") as journal:
        fresh = killed(source, tmp_path / "fresh", "run.sqlite")
        await journal.write(entry(0))
        lonely = killed(source, tmp_path / "lonely", "run.sqlite")
        both = killed(source, tmp_path / "both", "run.sqlite", "run.sqlite-wal")
    for path in (fresh, lonely):
        before = path.read_bytes()
        with pytest.raises(JournalError, match=r"was copied without .*run\.sqlite-wal"):
            async with opened(path):
                pytest.fail("an incomplete journal was opened")
        with pytest.raises(JournalError, match=r"was copied without .*run\.sqlite-wal"):
            entries(path)
        assert path.read_bytes() == before
    assert entries(both) == [entry(0)]
    async with opened(both) as journal:
        assert list(journal.view.entries()) == [entry(0)]
    assert entries(killed(tmp_path / "both", tmp_path / "closed", "run.sqlite")) == [entry(0)]


async def test_looking_at_a_killed_run_does_not_end_it(tmp_path: Path) -> None:
    """Reading leaves the log where it is, for the run that resumes."""
    source = tmp_path / "run"
    source.mkdir()
    async with opened(source / "run.sqlite") as journal:
        await journal.write(entry(0))
        path = killed(source, tmp_path / "killed")
    for _ in range(2):
        assert entries(path) == [entry(0)]
    async with opened(path) as journal:
        assert list(journal.view.entries()) == [entry(0)]


async def test_an_emptied_file_beside_its_log_is_rejected(tmp_path: Path) -> None:
    """SQLite itself would delete the log."""
    source = tmp_path / "run"
    source.mkdir()
    async with opened(source / "run.sqlite") as journal:
        await journal.write(entry(0))
        path = killed(source, tmp_path / "emptied")
    path.write_bytes(b"")
    with pytest.raises(JournalError, match=r"run\.sqlite is empty, and .*-wal is not"):
        async with opened(path):
            pytest.fail("an emptied journal was opened")


async def test_a_log_that_cannot_be_read_in_place_is_read_from_a_copy(
    tmp_path: Path,
) -> None:
    """As on a read-only medium, where SQLite cannot create its shared memory."""
    source = tmp_path / "run"
    source.mkdir()
    async with opened(source / "run.sqlite") as journal:
        await journal.write(entry(0))
        path = killed(source, tmp_path / "medium", "run.sqlite", "run.sqlite-wal")
    (path.parent / "run.sqlite-shm").mkdir()
    assert entries(path) == [entry(0)]


async def test_what_is_written_survives_a_power_cut(tmp_path: Path) -> None:
    """A commit waits for the disk (2 is FULL), at the beginning and when a run resumes."""
    for _ in range(2):
        async with opened(tmp_path / "run.sqlite") as journal:
            connection = journal._file.connection
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    """With what to do."""
    async with opened(tmp_path / "run.sqlite") as journal:
        journal._file.connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(JournalError, match=r"run\.sqlite .* disk is full; free some space"):
            await journal.write(attrs.evolve(entry(0), body=bytes(100_000)))
        assert list(journal.view.entries()) == []


# --- other files ---


@pytest.mark.parametrize("path", ["", ":memory:", b"", None, 7])
async def test_a_journal_that_would_record_nothing_is_rejected(path: Any) -> None:
    """Such as that of an environment variable that is not set."""
    with pytest.raises(JournalError, match=r"^journal must be the path of a file; got "):
        async with opened(path):
            pytest.fail("nothing was opened")


@pytest.mark.parametrize("path", ["no\0path", "not/there/run.sqlite"])
async def test_an_unusable_path_is_rejected(path: str, tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(JournalError, match="cannot be used as a journal"):
        async with opened(f"{tmp_path}/{path}"):
            pytest.fail("nothing was opened")


async def test_a_folder_is_rejected(tmp_path: Path) -> None:
    """Also the present one, which an empty `Path` names; nothing is left behind."""
    with pytest.raises(JournalError, match=r"must be the path of a file; .* is a folder"):
        async with opened(tmp_path):
            pytest.fail("a folder was opened")
    assert f"{tmp_path.name}.lock" not in os.listdir(tmp_path.parent)


async def test_a_file_of_text_is_rejected(tmp_path: Path) -> None:
    """Such as the rows themselves, given in the journal's place."""
    path = tmp_path / "rows.csv"
    path.write_text("source_url,target_url\n" * 200)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"rows\.csv is not a journal of a bulk run"):
            async with opened(path):
                pytest.fail("a text was opened")
    assert os.listdir(tmp_path) == ["rows.csv"]


@pytest.mark.parametrize("statement", ["PRAGMA application_id = 7", "CREATE TABLE mine (x)"])
async def test_the_files_of_others_are_left_alone(statement: str, tmp_path: Path) -> None:
    """Also those that are empty but for another program's mark; not a byte changes."""
    path = tmp_path / "run.sqlite"
    change(path, statement)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"run\.sqlite is a database, but not the journal"):
        async with opened(path):
            pytest.fail("a foreign file was opened")
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    """Such as one of `tempfile`; but there is nothing in it to read."""
    path = tmp_path / "run.sqlite"
    path.touch()
    with pytest.raises(JournalError, match=r"run\.sqlite is empty"):
        entries(path)
    async with opened(path) as journal:
        await journal.write(entry(0))
    assert entries(path) == [entry(0)]


async def test_a_journal_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """The error says which version it has, and what to do."""
    path = tmp_path / "run.sqlite"
    async with opened(path):
        pass
    change(path, "PRAGMA user_version = 4")
    text = r"run\.sqlite is a journal of version 4, .* versions 1 to 3: finish the run"
    with pytest.raises(JournalError, match=text):
        async with opened(path):
            pytest.fail("a later version was opened")


async def test_the_format_of_the_file_stays(tmp_path: Path) -> None:
    """A later release resumes a run: the mark, the version, the columns and the states."""
    async with opened(tmp_path / "run.sqlite") as journal:
        await journal.write(FULL)
    assert (tmp_path / "run.sqlite").read_bytes()[68:72] == b"AFSJ"
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("SELECT * FROM rows").fetchone() == attrs.astuple(FULL)[:-2]
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(rows)")]
    assert columns == [field.name for field in attrs.fields(JournalEntry)][:-2]
    states = ["NEW", "INTENDED", "CREATED", "AWAITING_DOWNLOAD", "DONE", "FAILED", "NO_CREDITS"]
    assert {state.name: state.value for state in State} == dict(
        zip(states, range(-1, 6), strict=True)
    )


# --- whose it is ---


async def test_the_key_itself_is_not_in_the_file(tmp_path: Path) -> None:
    """Only a fingerprint with a salt of the journal's own: two journals cannot be compared."""
    fingerprints = set()
    for name in ("a", "b"):
        async with opened(tmp_path / name, "key_secret"):
            pass
        assert b"key_secret" not in (tmp_path / name).read_bytes()
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            fingerprints |= {*connection.execute("SELECT fingerprint FROM keys")}
    assert len(fingerprints) == 2


async def test_another_service_is_rejected(tmp_path: Path) -> None:
    """What an emulator has done is not done at the service; no flag changes that."""
    path = tmp_path / "run.sqlite"
    async with opened(path) as journal:
        await journal.write(entry(0, State.DONE, sent_at=1.0))
    for accept in (False, True):
        with pytest.raises(JournalError, match=f"belongs to {BASE_URL}, and this client uses"):
            async with opened(path, base_url="https://other.example", accept_new_key=accept):
                pytest.fail("opened for another service")


async def test_another_key_is_rejected_unless_it_is_accepted(tmp_path: Path) -> None:
    """The message says what a rotation needs; the first key can still finish its rows."""
    path = tmp_path / "run.sqlite"
    async with opened(path, "key_1") as journal:
        await journal.write(entry(0, sent_at=1.0))
        assert journal.key_id == 1
    with pytest.raises(JournalError, match=r"another API key.*--accept-new-key"):
        async with opened(path, "key_2"):
            pytest.fail("opened for another key")
    for key, accept, key_id in (("key_2", True, 2), ("key_2", False, 2), ("key_1", False, 1)):
        async with opened(path, key, accept_new_key=accept) as journal:
            assert journal.key_id == key_id


async def test_a_journal_whose_rows_reached_no_service_belongs_to_nobody(tmp_path: Path) -> None:
    """After a wrong URL or a key with a typing error the same journal continues."""
    path = tmp_path / "run.sqlite"
    async with opened(path, "key_typo", base_url="https://typo.example") as journal:
        await journal.write(entry(0))
    async with opened(path, "key_1") as journal:
        await journal.write(entry(0, sent_at=1.0))
    with pytest.raises(JournalError, match="belongs to"):
        async with opened(path, "key_1", base_url="https://typo.example"):
            pytest.fail("opened for another service")


# --- version 2 ---


async def test_version_2_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    """Its rows stay as they are; it is read without a change before."""
    path = tmp_path / "run.sqlite"
    row = attrs.evolve(FULL, place=None, files=None)
    write_version_2(path, owner_of("key_1"), row)
    before = path.read_bytes()
    assert entries(path) == [row]
    assert path.read_bytes() == before
    async with opened(path) as journal:
        assert journal.view.see(b"a row") == (0, None)
        assert journal.view.see(b"a row") == (1, row)
        await journal.write(attrs.evolve(row, files="{}"))
    assert entries(path) == [attrs.evolve(row, files="{}")]
    async with opened(path):
        pass


async def test_version_2_stays_as_it_is_if_it_is_rejected(tmp_path: Path) -> None:
    """Another key's journal is not changed, and the release that wrote it can resume it."""
    path = tmp_path / "run.sqlite"
    write_version_2(path, owner_of("key_1"), FULL)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another API key"):
        async with opened(path, "key_2"):
            pytest.fail("opened with another key")
    assert path.read_bytes() == before


# --- rows with files ---


async def test_the_newest_row_of_a_place_is_found(tmp_path: Path) -> None:
    """Whatever its files were: what a row is written like is not what it is."""
    async with opened(tmp_path / "run.sqlite") as journal:
        for number, place in enumerate((b"a", b"b", b"a", None)):
            await journal.write(entry(number, place=place))
    async with opened(tmp_path / "run.sqlite") as journal:
        assert journal.view.expected(b"a") == entry(0, place=b"a")
        assert journal.view.expected(b"b") is None
        assert journal.view.newest_at(b"a") == entry(2, place=b"a")
        assert journal.view.newest_at(b"c") is None
        journal.view.see(b"another row")
        assert journal.view.expected(b"a") is None


async def test_rows_whose_urls_have_expired_are_known(tmp_path: Path) -> None:
    """Of those that were sent without a response; a URL without an end never expires."""
    async with opened(tmp_path / "run.sqlite") as journal:
        for number, ends in enumerate((100.0, 200.0, None)):
            files = json.dumps({"source": {"expires": None}, "target": {"expires": ends}})
            await journal.write(entry(number, sent_at=float(number), files=files))
        await journal.write(entry(3, sent_at=None, files=files))
        assert await journal.unanswered(0.0, 99.0) is None
        assert await journal.unanswered(0.0, 100.0) == (0.0, 0.0)
        assert await journal.unanswered(0.0, 1e9) == (0.0, 1.0)


# --- version 1 ---

OLD_BODY = b'{"type":"image","metadata":{"b":1.0,"a":2}}'
OLD_ROWS = (
    (0, 3, "key-0", OLD_BODY, "tsk_0", '{"id":"tsk_0","credit_cost":2}', None, b"0.jpg", 1, 2.5),
    (1, 0, "key-1", OLD_BODY, None, None, None, None, 0, 0.0),
)


async def test_version_1_is_upgraded_when_its_key_is_proven(tmp_path: Path) -> None:
    """By a swap that the key can read; rows keep what they had, and when they were sent is open."""
    path = tmp_path / "run.sqlite"
    write_version_1(path, *OLD_ROWS)
    read_before = entries(path)
    asked = list[str]()

    async def ask(swap_id: str) -> bool:
        asked.append(swap_id)
        return True

    async with opened(path, can_read=ask) as journal:
        rows = list(journal.view.entries())
        assert journal.key_id == 1
    assert asked == ["tsk_0"]
    assert [attrs.evolve(row, key_id=1) for row in read_before] == rows
    assert rows == [
        JournalEntry(
            *(0, State.DONE, "key-0", OLD_BODY, content_identity(OLD_BODY), 0, 1, 0.0, "tsk_0"),
            swap_json='{"id":"tsk_0","credit_cost":2}',
            path=b"0.jpg",
            cost=2.0,
            attempts=1,
            seconds=2.5,
        ),
        JournalEntry(
            *(1, State.INTENDED, "key-1", OLD_BODY, content_identity(OLD_BODY), 1, 1, 0.0)
        ),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with opened(path):
        pass


@pytest.mark.parametrize("rows", [OLD_ROWS, OLD_ROWS[1:]], ids=["unreadable", "no id"])
async def test_version_1_needs_a_proof_or_a_flag(rows: Any, tmp_path: Path) -> None:
    """Without either it stays as it is; with the flag its rows belong to an unknown key."""
    path = tmp_path / "run.sqlite"
    write_version_1(path, *rows)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="did not record its API key"):
        async with opened(path):
            pytest.fail("opened without a proof")
    assert path.read_bytes() == before
    async with opened(path, accept_new_key=True) as journal:
        assert {row.key_id for row in journal.view.entries()} == {0}
        assert journal.key_id == 1


def test_the_order_of_names_and_the_form_of_numbers_make_no_other_row() -> None:
    """Content compares as JSON; what differs in a value differs in identity."""
    same = [
        b'{"type":"image","metadata":{"a":1,"b":[1.0,"\\u00e9"]}}',
        '{"metadata":{"b":[1,"é"],"a":1e0},"type":"image"}'.encode(),
    ]
    assert len({content_identity(body) for body in same}) == 1
    others = [b'{"metadata":{"a":1}}', b'{"metadata":{"a":"1"}}', b'{"metadata":{"a":true}}']
    assert len({content_identity(body) for body in others}) == 3
