"""The rows of a bulk run, read one by one from CSV or JSON lines.

An invalid row carries its error, so that the others can continue. An invalid header is raised
before anything is sent.
"""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Thread
from typing import Any, TextIO, TypeVar, cast

import attrs

from aifaceswap import _validation
from aifaceswap._api.requests import local_files
from aifaceswap.bulk._files import WrittenPath
from aifaceswap.errors import InvalidRequestError
from aifaceswap.models import SwapRequest

T = TypeVar("T")

COLUMNS = (*(field.name for field in attrs.fields(SwapRequest)), "row_id")
# A byte-order mark of UTF-16 in either order, as the decoder passes its bytes on.
_UTF_16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")
_FILES = ("source", "target")
_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_INTEGER = re.compile("[0-9]{1,9}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@attrs.frozen
class Row:
    """One row of the input.

    Attributes:
        number: Its number, from 0; blank lines do not count.
        line: The line at which it begins, from 1.
        request: The swap to be created; None if the row is invalid.
        row_id: The user's own name of the row, if it has one.
        error: What is wrong with it; None if it is valid.
    """

    number: int
    line: int
    request: SwapRequest | None = None
    row_id: str | None = None
    error: InvalidRequestError | None = None

    @property
    def has_files(self) -> bool:
        """Whether it names a local file."""
        return self.request is not None and bool(local_files(self.request))

    @property
    def item(self) -> SwapRequest | Mapping[str, Any]:
        """The row as a run takes it; a wrong one is a row that the run rejects."""
        if self.request is None:
            return {}
        if self.row_id is None:
            return self.request
        return {**attrs.asdict(self.request, recurse=False), "row_id": self.row_id}


# What a line says: the fields of a swap, or what is wrong with it.
_Record = tuple[int, Mapping[str, Any] | InvalidRequestError]


@contextmanager
def open_rows(path: Path | None) -> Generator[Iterator[Row]]:
    """Open the input and read its header."""
    if path is None or not path.is_file():
        yield _rows(_records(_to_the_end(_open(path)), path), Path())
        return
    with _open(path) as lines:
        yield _rows(_records(lines, path), path.parent)


def count_rows(path: Path | None) -> int | None:
    """How many rows a file has; None for a pipe, which can be read only once."""
    if path is None or not path.is_file():
        return None
    with _open(path) as lines:
        return sum(1 for _ in _records(lines, path))


async def in_threads(items: Iterator[T]) -> AsyncGenerator[T]:
    """Take items off the event loop, from an iterator that may block forever."""
    loop = asyncio.get_running_loop()
    while True:
        future: asyncio.Future[list[T]] = loop.create_future()
        # A daemon: nothing waits at the end for a pipe that says no more.
        Thread(target=_take, args=(items, future), daemon=True).start()
        taken = await future
        if not taken:
            return
        yield taken[0]


def _take(items: Iterator[T], future: asyncio.Future[list[T]]) -> None:
    try:
        settle = partial(_settle, future, future.set_result, list(islice(items, 1)))
    except Exception as error:  # raised where the item is awaited
        settle = partial(_settle, future, future.set_exception, error)
    with suppress(RuntimeError):  # the loop has been closed meanwhile
        future.get_loop().call_soon_threadsafe(settle)


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], object], value: object) -> None:
    if not future.done():
        settle(value)


def _open(path: Path | None) -> TextIO:
    # Bytes that are not UTF-8 pass, to be an error of their row. File 0 is opened again: a
    # thread that is blocked in `sys.stdin` would make the interpreter abort at its end.
    return open(
        0 if path is None else path,
        encoding="utf-8-sig",
        errors="surrogateescape",
        newline="",
        closefd=path is not None,
    )


def _to_the_end(pipe: TextIO) -> Iterator[str]:
    # Closed at its end only: before, that would wait for a thread that waits for the next line.
    yield from pipe
    pipe.close()


def _records(lines: Iterator[str], path: Path | None) -> Iterator[_Record]:
    name = "stdin" if path is None else str(path)
    blank = 0
    for line in lines:
        if line.strip():
            break
        blank += 1
    else:
        raise InvalidRequestError(f"{name} must contain at least one row", field="rows")
    _check_text(line, name)
    sniffed = "jsonl" if line.lstrip().startswith("{") else "csv"
    form = sniffed if path is None else _FORMATS.get(path.suffix.lower(), sniffed)
    lines = chain([line], lines)
    if form == "jsonl":
        return _json_records(lines, blank)
    return _csv_records(lines, blank, f"{name}, line {blank + 1}")


def _check_text(line: str, name: str) -> None:
    """Reject text in another encoding, which would be taken for one of another form."""
    if line.startswith(_UTF_16_MARKS) or "\0" in line:
        text = f'{name} must be UTF-8; it is UTF-16. Save it as "CSV UTF-8 (comma delimited)"'
        raise InvalidRequestError(text, field="rows")


def _header(reader: Iterator[list[str]], where: str) -> list[str]:
    try:
        columns = [column.strip() for column in next(reader)]
    except csv.Error as error:
        raise InvalidRequestError(f"{where}: {error}", field="rows") from None
    while columns and not columns[-1]:  # as spreadsheets write columns that were emptied
        columns.pop()
    other = next((sign for sign in ";\t" if len(columns) == 1 and sign in columns[0]), None)
    if other is not None:
        found = "tabs" if other == "\t" else "semicolons"
        text = f'{where}: columns must be separated by commas, not {found}. Save it as "CSV UTF-8"'
        raise InvalidRequestError(text, field="rows")
    unknown = [column for column in columns if column not in COLUMNS]
    twice = sorted({column for column in columns if columns.count(column) > 1} - {*unknown})
    missing = [name for name in _FILES if not {name, f"{name}_url"} & {*columns}]
    faults = (("unknown", unknown), ("repeated", twice), ("missing", missing))
    said = [f"{kind}: {', '.join(map(repr, found))}" for kind, found in faults if found]
    if said:
        text = f"{where}: wrong columns ({'; '.join(said)}); allowed: {', '.join(COLUMNS)}"
        raise InvalidRequestError(text, field="rows")
    return columns


def _csv_records(lines: Iterator[str], blank: int, where: str) -> Iterator[_Record]:
    reader = csv.reader(lines, strict=True)
    columns = _header(reader, where)

    def records() -> Iterator[_Record]:
        while True:
            line = blank + reader.line_num + 1
            try:
                cells = [cell.strip() for cell in next(reader)]
                if any(cells):
                    yield line, _read_cells(columns, cells)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, InvalidRequestError(f"must be valid CSV: {error}")
            except InvalidRequestError as error:
                yield line, error

    return records()


def _json_records(lines: Iterable[str], blank: int) -> Iterator[_Record]:
    for line, text in enumerate(lines, blank + 1):
        try:
            if text.strip():
                yield line, _read_object(text.rstrip())
        except InvalidRequestError as error:
            yield line, error


def _rows(records: Iterable[_Record], folder: Path) -> Iterator[Row]:
    for number, (line, record) in enumerate(records):
        try:
            if isinstance(record, InvalidRequestError):
                raise record
            row_id = _validation.row_id(record.get("row_id"))
            fields = {name: value for name, value in record.items() if name != "row_id"}
            fields |= {name: _in_folder(fields.get(name), folder) for name in _FILES}
            yield Row(number, line, SwapRequest(**fields), row_id)
        except InvalidRequestError as error:
            yield Row(number, line, error=error)


def _in_folder(value: object, folder: Path) -> object:
    """A path is relative to the file that has it; a URL stays as it is."""
    if isinstance(value, str) and not _validation.is_url(value):
        return WrittenPath(value, folder)
    return value


def _read_cells(columns: list[str], cells: list[str]) -> dict[str, Any]:
    if any(cells[len(columns) :]):
        text = f"has {len(cells)} cells, but there are {len(columns)} columns"
        raise InvalidRequestError(text)
    given = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
    return _complete({name: _read_cell(name, cell) for name, cell in given.items()})


def _read_cell(column: str, cell: str) -> Any:
    _check_encoding(column, cell)
    if column == "target_face_index":
        if not _INTEGER.fullmatch(cell):
            raise InvalidRequestError.for_field(column, cell, "must be a whole number, 0 or more")
        return int(cell)
    if column == "enable_face_enhancer":
        if cell.lower() not in _BOOLEANS:
            raise InvalidRequestError.for_field(column, cell, "must be true or false")
        return _BOOLEANS[cell.lower()]
    return _read_json(column, cell) if column == "metadata" else cell


def _read_object(text: str) -> dict[str, Any]:
    _check_encoding("", text)
    fields = _read_json("", text)
    unknown = [name for name in fields if name not in COLUMNS]
    if unknown:
        text = f"unknown fields: {', '.join(map(repr, unknown))}; allowed: {', '.join(COLUMNS)}"
        raise InvalidRequestError(text)
    return _complete({name: value for name, value in fields.items() if value is not None})


def _read_json(field: str, text: str) -> dict[str, Any]:
    name = field or "line"
    try:
        read: object = json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"{name} must be valid JSON: {error.msg} at character {error.colno}"
        raise InvalidRequestError(fault, field=field) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name} must be valid JSON: {error}", field=field) from None
    if not isinstance(read, dict):
        raise InvalidRequestError(f"{name} must be a JSON object", field=field)
    return cast("dict[str, Any]", read)


def _complete(fields: dict[str, Any]) -> dict[str, Any]:
    for name in _FILES:
        if not {name, f"{name}_url"} & fields.keys():
            raise InvalidRequestError(f"{name} is missing", field=name)
    return fields


def _check_encoding(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        fault = f"{field or 'line'} must be UTF-8"
        raise InvalidRequestError(fault, field=field) from None
