"""The rows of a bulk run as other programs write them: spreadsheets, pipes, editors."""

from __future__ import annotations

import codecs
import os
import threading
from pathlib import Path

import pytest

from aifaceswap import InvalidRequestError
from aifaceswap.cli.bulk.rows import Row, count_rows, open_rows
from support.samples import FACE, TARGET

HEADER = "source_url,target_url"
LINE = f"{FACE},{TARGET}"


def read(path: Path) -> list[Row]:
    with open_rows(path) as rows:
        return list(rows)


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{LINE}\n".encode("utf-8-sig"),
        f"{HEADER},,\r\n{LINE},,\r\n".encode(),
        f"{HEADER},\n{LINE}\n".encode(),
        f"{HEADER},row_id\n{LINE},\n".encode(),
    ],
    ids=["byte-order mark", "emptied columns", "emptied header", "no row_id"],
)
def test_what_spreadsheets_write_is_read(content: bytes, tmp_path: Path) -> None:
    """Also if columns were emptied, whose commas stay."""
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    (row,) = read(path)
    assert (row.error, row.row_id) == (None, None)


def test_a_cell_without_a_column_is_an_error_of_its_row(tmp_path: Path) -> None:
    """A column without a name may be emptied, not filled."""
    path = tmp_path / "rows.csv"
    path.write_text(f"{HEADER},,\n{LINE},,7\n{LINE}\n")
    wrong, _ = read(path)
    assert "has 4 cells, but there are 2 columns" in str(wrong.error)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"{HEADER}\n{LINE}".replace(",", ";").encode(), "separated by commas, not semicolons"),
        (f"{HEADER}\n{LINE}".replace(",", "\t").encode(), "separated by commas, not tabs"),
        (f"{HEADER}\n{LINE}".encode("utf-16"), "must be UTF-8; it is UTF-16"),
        (codecs.BOM_UTF16_BE + HEADER.encode("utf-16-be"), "must be UTF-8; it is UTF-16"),
        (HEADER.encode("utf-16-le"), "must be UTF-8; it is UTF-16"),
    ],
    ids=["semicolons", "tabs", "utf-16", "utf-16-be", "utf-16 without a mark"],
)
def test_the_cause_is_named(content: bytes, expected: str, tmp_path: Path) -> None:
    """Not its effect, such as columns that are missing."""
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=expected):
        read(path)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (f"https://example.com/a\u200b.jpg,{TARGET},", "source_url"),
        (f'{FACE},{TARGET},"{{""a"": ""\\ud800""}}"', "metadata"),
    ],
)
def test_invisible_characters_are_named_by_field(line: str, field: str, tmp_path: Path) -> None:
    """They come with text that was copied from a page or a document."""
    path = tmp_path / "rows.csv"
    path.write_text(f"{HEADER},metadata\n{line}\n", encoding="utf-8")
    (row,) = read(path)
    assert row.error is not None
    assert row.error.field == field


def test_a_pipe_is_read_once_and_not_counted(tmp_path: Path) -> None:
    """Counting it would take its rows, or wait for a second writer."""
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    assert count_rows(pipe) is None
    writer = threading.Thread(target=pipe.write_text, args=(f"{HEADER}\n{LINE}\n",))
    writer.start()
    assert [row.error for row in read(pipe)] == [None]
    writer.join()
    path = tmp_path / "file.csv"
    path.write_text(f"{HEADER}\n{LINE}\n{LINE}\n")
    assert count_rows(path) == 2
