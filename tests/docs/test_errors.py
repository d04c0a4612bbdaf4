"""The catalogue of errors says what the code does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from aifaceswap import errors
from aifaceswap._api.responses import _STATUSES, RawResponse, status_error
from aifaceswap._api.responses import CODES as KNOWN_CODES
from aifaceswap._http.retry import is_retryable
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    ConflictError,
)
from support.doc_pages import DOCS
from support.error_codes import CONTRACT

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, AIFaceSwapError)
}
BY_STATUS = "by status"
IN_PROGRESS = "[while in progress](#what-is-retried)"


def table(heading: str) -> Iterator[list[str]]:
    """The cells of the table below a heading, without its head."""
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    for row in rows[2:]:
        yield [cell.strip().strip("`") for cell in row.strip("|").split("|")]


def error_of(status: int, code: str | None = None) -> APIStatusError:
    envelope = {"error": {"code": code, "message": "", "request_id": "req_1"}} if code else None
    return status_error(RawResponse(status, {}, json.dumps(envelope).encode()), 1, None)


def word(*, retried: bool) -> str:
    return "yes" if retried else "no"


CODES = list(table("By code"))


@pytest.mark.parametrize("row", CODES, ids=[row[0] for row in CODES])
def test_each_code_has_the_class_and_the_retries_that_the_page_says(row: list[str]) -> None:
    """The table is what the decoder and the retry policy do."""
    code, advice, meaning, status, name, retried = row
    error = error_of(int(status), code)

    assert CONTRACT[code] == int(status)
    assert name == type(error).__name__
    assert retried == word(retried=is_retryable(error))
    assert meaning
    assert advice


def test_every_code_stands_in_the_table_once() -> None:
    """The page, the contract and the decoder know the same codes."""
    codes = [row[0] for row in CODES]

    assert sorted(codes) == sorted(CONTRACT) == sorted(KNOWN_CODES)


def test_each_status_has_the_class_and_the_retries_that_the_page_says() -> None:
    """Without a code the status decides; no status that the code knows is missing."""
    rows = list(table("By status"))
    ranges = {"3xx": range(300, 400), "any other 4xx": range(400, 500)}
    ranges["any other 5xx"] = range(500, 600)
    named = {int(status) for status, _, _ in rows if status.isdigit()}
    assert set(_STATUSES) <= named

    for status, name, retried in rows:
        numbers = {int(status)} if status.isdigit() else {*ranges[status]} - named
        said = {(type(error_of(one)).__name__, is_retryable(error_of(one))) for one in numbers}
        assert {(name, retried == "yes")} == said


def test_every_class_stands_in_the_table_once() -> None:
    """Nothing that can be raised is without a word."""
    assert sorted(CLASSES) == sorted(name for name, *_ in table("By class"))


@pytest.mark.parametrize(("name", "advice", "_when", "retried"), list(table("By class")))
def test_each_class_is_retried_as_the_page_says(
    name: str, advice: str, _when: str, retried: str
) -> None:
    """What depends on more than the class says on what."""
    kind = CLASSES[name]
    assert advice
    if issubclass(kind, APIResponseError | APIConnectionError):
        assert retried == "if not permanent"
        assert is_retryable(kind("", permanent=False))
        assert not is_retryable(kind("", permanent=True))
    elif issubclass(kind, ConflictError):
        assert retried == IN_PROGRESS
    elif issubclass(kind, APIStatusError):
        statuses = [status for status, known in _statuses() if issubclass(known, kind)]
        ways = {is_retryable(kind("", status=status)) for status in statuses}
        assert retried == (word(retried=ways.pop()) if len(ways) == 1 else BY_STATUS)
    else:
        assert retried == word(retried=is_retryable(kind("")))


def _statuses() -> Iterator[tuple[int, type[APIStatusError]]]:
    """Each status with the classes that it can come as, by code or without."""
    for status in range(300, 600):
        yield status, type(error_of(status))
    for code, status in CONTRACT.items():
        yield status, type(error_of(status, code))


def test_the_backoff_on_the_page_is_the_one_in_the_code() -> None:
    """The waits are those of the policy, with the worst of luck."""
    from aifaceswap._http.retry import next_wait

    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    shown = re.search(r"up to ([\d., ]+) then (\d+) s", page)
    assert shown is not None
    error = errors.ServerError("", status=500)
    waits = [
        next_wait(attempt, error, 99, max_retries=9, jitter=lambda: 1.0) for attempt in range(1, 6)
    ]

    assert waits == [float(text) for text in re.findall(r"[\d.]+", f"{shown[1]} {shown[2]}")]
