"""What a bulk run makes of its input and of what the journal has of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from aifaceswap import InvalidRequestError, SwapRequest, UnresolvedRowError
from aifaceswap.bulk._journal import Journal, JournalEntry, State
from aifaceswap.bulk._rows import RejectedRow, Rows, check_requests
from support.bulk_runs import no_files
from support.journals import opened
from support.samples import FACE, TARGET, URLS


def target(name: object, **fields: Any) -> dict[str, Any]:
    """A row that is told from others by its target."""
    return {"source_url": FACE, "target_url": f"https://example.com/{name}.jpg", **fields}


async def read(
    journal: Journal | None, requests: Iterable[Any], **options: Any
) -> list[JournalEntry | RejectedRow]:
    options = {"retry_failed": False, "with_pictures": True, **options}
    view = None if journal is None else journal.view
    key_id = None if journal is None else journal.key_id
    rows = Rows(requests=requests, journal=view, files=no_files(), key_id=key_id, **options)
    return [row async for row in rows.read()]


async def first_run(
    path: Path, requests: Iterable[Any], state: State = State.DONE, **fields: Any
) -> list[JournalEntry]:
    """Bring all rows into a state."""
    async with opened(path) as journal:
        written = []
        for entry in await read(journal, requests):
            assert isinstance(entry, JournalEntry)
            written.append(attrs.evolve(entry, state=state, path=b"x.jpg", **fields))
            await journal.write(written[-1])
        return written


async def later_run(
    path: Path, requests: Iterable[Any], key: str = "key_1", **options: Any
) -> list[JournalEntry | RejectedRow]:
    async with opened(path, key, accept_new_key=True) as journal:
        return await read(journal, requests, **options)


def places(rows: list[JournalEntry | RejectedRow]) -> list[tuple[int | None, int, bool]]:
    """Of each row: its position in the input, its number in the journal, whether it is new."""
    entries = [row for row in rows if isinstance(row, JournalEntry)]
    assert len(entries) == len(rows)
    return [(row.row, row.number, row.state is State.NEW) for row in entries]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("abc", [(0, 0, False), (1, 1, False), (2, 2, False)]),
        ("abcd", [(0, 0, False), (1, 1, False), (2, 2, False), (3, 3, True)]),
        ("xabc", [(0, 3, True), (1, 0, False), (2, 1, False), (3, 2, False)]),
        ("ac", [(0, 0, False), (1, 2, False), (None, 1, False)]),
        ("cba", [(0, 2, False), (1, 1, False), (2, 0, False)]),
        ("axc", [(0, 0, False), (1, 3, True), (2, 2, False), (None, 1, False)]),
        ("aabc", [(0, 0, False), (1, 3, True), (2, 1, False), (3, 2, False)]),
        ("", [(None, 0, False), (None, 1, False), (None, 2, False)]),
    ],
    ids=[
        *("same", "appended", "prepended", "removed", "reordered", "changed", "doubled", "emptied"),
    ],
)
async def test_rows_are_recognised_by_their_content(
    names: str, expected: list[tuple[int | None, int, bool]], tmp_path: Path
) -> None:
    """Wherever they stand in the input now; those that it no longer has come at the end."""
    await first_run(tmp_path / "run.sqlite", map(target, "abc"))
    assert places(await later_run(tmp_path / "run.sqlite", map(target, names))) == expected


async def test_equal_rows_are_told_apart_by_their_occurrence(tmp_path: Path) -> None:
    """As many of them are done as were done, in the order of the input."""
    written = await first_run(tmp_path / "run.sqlite", map(target, "aab"))
    rows = await later_run(tmp_path / "run.sqlite", map(target, "baaa"))
    assert places(rows) == [(0, 2, False), (1, 0, False), (2, 1, False), (3, 3, True)]
    assert len({row.key for row in written}) == 3


async def test_a_row_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    """It is the same row whatever else has changed; what was sent is what counts."""
    signed = [target(f"a?signature={n}", row_id=row_id) for n, row_id in enumerate((7, 7, "8"))]
    (before,) = await first_run(tmp_path / "run.sqlite", signed[:1])
    same, other = await later_run(tmp_path / "run.sqlite", signed[1:])
    assert places([same, other]) == [(0, 0, False), (1, 1, True)]
    assert isinstance(same, JournalEntry)
    assert (same.key, same.body) == (before.key, before.body)
    assert b"row_id" not in same.body


async def test_a_row_id_is_used_once_in_an_input(tmp_path: Path) -> None:
    """Else the second row would be lost in silence."""
    rows = await later_run(
        tmp_path / "run.sqlite", [target("a", row_id="x"), target("b", row_id="x")]
    )
    assert isinstance(rows[1], RejectedRow)
    assert "row_id must be a row's own" in str(rows[1].error)


@pytest.mark.parametrize("row_id", ["", " ", 1.5, True, "\ud800"])
async def test_a_row_id_is_text_or_an_integer(row_id: Any) -> None:
    """An empty one would be every row's."""
    (row,) = await read(None, [{**URLS, "row_id": row_id}])
    assert isinstance(row, RejectedRow)
    assert row.error.message.startswith("row_id must be text that is not empty, or an integer")


async def test_an_invalid_row_has_its_position_and_no_number(tmp_path: Path) -> None:
    """Corrected, it is a new row, and the others stay what they were."""
    broken = [target("a"), {"source_url": FACE}, target("b")]
    async with opened(tmp_path / "run.sqlite") as journal:
        first, wrong, last = await read(journal, broken)
        assert isinstance(wrong, RejectedRow)
        assert (wrong.row, wrong.entry) == (1, None)
        for entry in (first, last):
            assert isinstance(entry, JournalEntry)
            await journal.write(attrs.evolve(entry, state=State.DONE, path=b"x"))
    corrected = [target("a"), target("x"), target("b")]
    rows = await later_run(tmp_path / "run.sqlite", corrected)
    assert places(rows) == [(0, 0, False), (1, 3, True), (2, 2, False)]


@pytest.mark.parametrize(
    "state", [State.INTENDED, State.CREATED, State.AWAITING_DOWNLOAD, State.FAILED]
)
async def test_a_row_in_progress_keeps_its_key(state: State, tmp_path: Path) -> None:
    """It may be charged: another key would charge it again."""
    (before,) = await first_run(tmp_path / "run.sqlite", [URLS], state, sent_at=1.0)
    assert await later_run(tmp_path / "run.sqlite", [URLS]) == [before]


@pytest.mark.parametrize("state", [State.FAILED, State.NO_CREDITS])
async def test_a_retried_row_has_a_new_key(state: State, tmp_path: Path) -> None:
    """The service repeats its response to the old one; what that one has cost is kept."""
    (before,) = await first_run(
        tmp_path / "run.sqlite", [URLS], state, sent_at=1.0, cost=2.0, earlier_cost=1.0
    )
    (row,) = await later_run(tmp_path / "run.sqlite", [URLS], retry_failed=True)
    assert isinstance(row, JournalEntry)
    assert row.key != before.key
    assert row == attrs.evolve(
        before, state=State.NEW, key=row.key, sent_at=None, path=None, cost=None, earlier_cost=3.0
    )


@pytest.mark.parametrize("state", [State.FAILED, State.NO_CREDITS])
async def test_a_failed_row_that_the_input_no_longer_has_is_not_retried(
    state: State, tmp_path: Path
) -> None:
    """Nobody asks for its swap any more."""
    await first_run(tmp_path / "run.sqlite", [URLS], state, sent_at=1.0)
    (row,) = await later_run(tmp_path / "run.sqlite", [], retry_failed=True)
    assert isinstance(row, JournalEntry)
    assert (row.row, row.state) == (None, State.FAILED)


async def test_a_row_without_its_picture_is_not_done(tmp_path: Path) -> None:
    """If pictures are wanted now, and were not before."""
    async with opened(tmp_path / "run.sqlite") as journal:
        (row,) = await read(journal, [URLS])
        assert isinstance(row, JournalEntry)
        await journal.write(attrs.evolve(row, state=State.DONE))
    (row,) = await later_run(tmp_path / "run.sqlite", [URLS])
    assert isinstance(row, JournalEntry)
    assert row.state is State.AWAITING_DOWNLOAD


async def test_with_another_key_only_rows_that_were_never_sent_continue(tmp_path: Path) -> None:
    """Those in progress are listed with what is known of them; they stay the first key's."""
    path = tmp_path / "run.sqlite"
    async with opened(path, "key_1") as journal:
        never_sent, sent, created, done = await read(journal, map(target, "abcd"))
        for row, fields in (
            (never_sent, {"state": State.INTENDED}),
            (sent, {"state": State.INTENDED, "sent_at": 1.0}),
            (created, {"state": State.CREATED, "sent_at": 1.0, "swap_id": "tsk_1"}),
            (done, {"state": State.DONE, "sent_at": 1.0, "path": b"x"}),
        ):
            assert isinstance(row, JournalEntry)
            await journal.write(attrs.evolve(row, **fields))
    rows = await later_run(path, map(target, "abcde"), "key_2")
    assert [getattr(row, "key_id", None) for row in rows] == [2, None, None, 1, 2]
    rejected = [row for row in rows if isinstance(row, RejectedRow)]
    assert [row.row for row in rejected] == [1, 2]
    for row, candidates in zip(rejected, [(), ("tsk_1",)], strict=True):
        assert isinstance(row.error, UnresolvedRowError)
        assert row.error.candidates == candidates
        assert row.entry is not None
        assert row.error.idempotency_key == row.entry.key
    again = await later_run(path, map(target, "abcde"), "key_1")
    assert [row for row in again if isinstance(row, RejectedRow)] == []


class Series:
    """What tells a data frame from other iterables."""

    columns = ("source_url",)

    def to_dict(self, _: str) -> list[dict[str, Any]]:
        return [URLS]


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        (Series(), r'not a Series: pass frame\.to_dict\("records"\)'),
        (URLS, "not one row: pass"),
        (SwapRequest(**URLS), "not one row: pass"),
        ("rows.csv", "must be an iterable of SwapRequest values or mappings"),
        (None, "must be an iterable of SwapRequest values or mappings"),
        (7, "must be an iterable of SwapRequest values or mappings"),
    ],
)
def test_what_cannot_be_rows_is_rejected_at_once(requests: Any, expected: str) -> None:
    """With the line that works."""
    with pytest.raises(InvalidRequestError, match=f"^requests.*{expected}") as caught:
        check_requests(requests)
    assert caught.value.field == "requests"


class NAType:
    """Like pandas' missing value, which has no truth."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("webhook_url", float("nan"), "is a missing value; leave the column out"),
        ("target_face_index", NAType(), "is a missing value; leave the column out"),
        ("enable_face_enhancer", np.True_, r"is a numpy\.bool"),
        ("metadata", {"n": {"m": np.int32(1)}}, r"is a numpy\.int32"),
        ("metadata", {"n": float("nan")}, "is a missing value"),
    ],
)
async def test_values_of_data_frames_are_named_by_row_and_column(
    column: str, value: Any, expected: str
) -> None:
    """Their own errors would speak of JSON or of types."""
    _, row = await read(None, [URLS, {**URLS, column: value}])
    assert isinstance(row, RejectedRow)
    assert row.row == 1
    with pytest.raises(InvalidRequestError, match=rf"^row 1, column {column}[^:]*: .*{expected}"):
        raise row.error


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("a", "row 0 must be a SwapRequest or a mapping"),
        ({"src": FACE, "target_url": TARGET}, "row 0: .*unexpected .*'src'"),
        ({"source_url": FACE}, "target is missing; pass target="),
    ],
)
async def test_what_is_no_row_is_named_by_its_position(request_: Any, expected: str) -> None:
    """The others are not affected."""
    wrong, right = await read(None, [request_, URLS])
    assert isinstance(wrong, RejectedRow)
    assert isinstance(right, JournalEntry)
    with pytest.raises(InvalidRequestError, match=expected):
        raise wrong.error
