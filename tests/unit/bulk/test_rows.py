"""What a bulk run makes of its input and of what the journal knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aifaceswap import JournalError, SwapRequest
from aifaceswap._api.requests import swap_body
from aifaceswap.bulk._journal import Journal, JournalEntry, State
from aifaceswap.bulk._rows import InvalidRow, Rows

REQUEST = SwapRequest(
    source_url="https://example.com/face.jpg", target_url="https://example.com/target.jpg"
)


async def resumed(
    path: Path, state: int, *, retry_failed: bool = False
) -> JournalEntry | InvalidRow:
    """The one row of a run whose journal holds it in this state."""
    journal = await Journal.open(path / "run.sqlite")
    try:
        await journal.write(JournalEntry(0, state, "key-0", swap_body(REQUEST)))  # type: ignore[arg-type]
        rows = Rows(
            requests=[REQUEST], journal=journal, retry_failed=retry_failed, with_pictures=True
        )
        (row,) = [row async for row in rows.read()]
        return row
    finally:
        await journal.close()


@pytest.mark.parametrize(
    "state", [State.INTENDED, State.CREATED, State.AWAITING_DOWNLOAD, State.FAILED]
)
async def test_what_was_begun_goes_on_with_its_key(state: State, tmp_path: Path) -> None:
    """It may be paid: another key would pay it again."""
    assert await resumed(tmp_path, state) == JournalEntry(0, state, "key-0", swap_body(REQUEST))


@pytest.mark.parametrize("state", [State.FAILED, State.NO_CREDITS])
async def test_what_is_done_again_has_a_fresh_key(state: State, tmp_path: Path) -> None:
    """The service answers the old one as it did before."""
    row = await resumed(tmp_path, state, retry_failed=True)
    assert isinstance(row, JournalEntry)
    assert row.state is State.NEW
    assert row.key != "key-0"


async def test_a_row_that_has_no_picture_is_not_done(tmp_path: Path) -> None:
    """Where pictures are wanted now, and were not before."""
    row = await resumed(tmp_path, State.DONE)
    assert isinstance(row, JournalEntry)
    assert row.state is State.AWAITING_DOWNLOAD


async def test_a_state_that_is_none_is_damage(tmp_path: Path) -> None:
    """The error names the row."""
    with pytest.raises(JournalError, match="row 0 of the journal is damaged: state 99"):
        await resumed(tmp_path, 99)
