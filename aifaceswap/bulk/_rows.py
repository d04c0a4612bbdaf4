"""What a bulk run reads: its input, and what the journal already has of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, Literal, cast

import attrs

from aifaceswap import _validation
from aifaceswap._api.requests import local_files, new_idempotency_key, swap_body
from aifaceswap.bulk._files import Inputs, RowFiles
from aifaceswap.bulk._identity import content_identity, named_identity
from aifaceswap.bulk._journal import FINISHED, JournalEntry, JournalView, State
from aifaceswap.bulk._verdicts import is_about_content
from aifaceswap.errors import AIFaceSwapError, InvalidRequestError, UnresolvedRowError, short_repr
from aifaceswap.models import SwapRequest

Requests = (
    Iterable[SwapRequest | Mapping[str, Any]] | AsyncIterable[SwapRequest | Mapping[str, Any]]
)

# Reading finished rows waits for nothing: others get their turn after so many.
_ROWS_AT_ONCE = 50
_FRAMES = {
    "pandas": 'frame.to_dict("records")',
    "polars": "frame.to_dicts()",
    "pyarrow": "table.to_pylist()",
}


@attrs.frozen
class RejectedRow:
    """A row that is not sent.

    Attributes:
        row: Its position in the input, from 0; None if it is in the journal alone.
        error: Why not.
        entry: What the journal has of it, if it has anything.
    """

    row: int | None
    error: AIFaceSwapError
    entry: JournalEntry | None = None


def check_requests(requests: object) -> None:
    """Reject what cannot be the rows of a run.

    Raises:
        InvalidRequestError: It is a data frame, a single row, or nothing to iterate over.
    """
    kind: type[object] = type(requests)
    package = kind.__module__.partition(".")[0]
    if package in _FRAMES or (hasattr(requests, "to_dict") and hasattr(requests, "columns")):
        line = _FRAMES.get(package, _FRAMES["pandas"])
        text = f"requests must be an iterable of rows, not a {kind.__name__}: pass {line}"
        raise InvalidRequestError(text, field="requests")
    if isinstance(requests, SwapRequest | Mapping):
        one = cast("object", requests)
        text = f"requests must be an iterable of rows, not one row: pass [{short_repr(one)}]"
        raise InvalidRequestError(text, field="requests")
    is_text = isinstance(requests, str | bytes)
    if is_text or not isinstance(requests, Iterable | AsyncIterable):
        fault = "must be an iterable of SwapRequest values or mappings"
        raise InvalidRequestError.for_field("requests", requests, fault)


@attrs.frozen(kw_only=True)
class Rows:
    """The rows of a run, each as it stands: from the journal if it is there, else new.

    Attributes:
        requests: The input, read as it is needed.
        journal: The rows of the journal, if there is one.
        files: Reads local files.
        key_id: The journal's id of the API key; None if no key is given.
        retry_failed: Whether rows that failed are sent again; ``"all"``: those, too, that would
            fail again for their content.
        with_pictures: Whether a row without its image is not done yet.
        checks_files: Whether the files of rows that are to be sent are all read and checked.
    """

    requests: Requests
    journal: JournalView | None
    files: RowFiles
    key_id: int | None = None
    retry_failed: bool | Literal["all"]
    with_pictures: bool
    checks_files: bool = False

    async def read(self) -> AsyncGenerator[JournalEntry | RejectedRow]:
        """Each row of the input in order, then those that are in the journal alone.

        Yields:
            The row, or why it is not sent.

        Raises:
            JournalError: The journal is damaged.
        """
        row = -1
        next_number = 0 if self.journal is None else self.journal.next_number()
        async for request in _each(self.requests):
            row += 1
            if row % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                entry = await self._entry(row, *_read_row(row, request), max(row, next_number))
            except InvalidRequestError as error:
                yield RejectedRow(row, error)
                continue
            next_number = max(next_number, entry.number + 1)
            yield self._resumed(entry)
        # What is in the journal alone may be charged, and is not left behind.
        for number, entry in enumerate(self._unseen()):
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
            yield self._resumed(entry)

    async def _entry(
        self, row: int, request: SwapRequest, row_id: str | None, number: int
    ) -> JournalEntry:
        """The row's entry in the journal, or a new one."""
        inputs = None
        if local_files(request):
            inputs = await self.files.read(request, self.journal, is_named=row_id is not None)
        body = swap_body(request)
        identity, occurrence = b"", 0
        if self.journal is not None:
            identity = _identity(body, row_id, inputs)
            occurrence, entry = self.journal.see(identity, row)
            if occurrence and row_id is not None:
                reason = "must be a row's own, and an earlier row has the same"
                raise InvalidRequestError.for_field("row_id", row_id, reason)
            if entry is not None:
                return attrs.evolve(entry, inputs=inputs) if inputs is not None else entry
        if inputs is not None and self.checks_files:
            inputs = await self.files.read_all(inputs)
        return JournalEntry(
            number=number,
            state=State.NEW,
            key=new_idempotency_key(),
            body=body if inputs is None else inputs.body,
            identity=identity,
            occurrence=occurrence,
            key_id=self.key_id or 0,
            row=row,
            inputs=inputs,
        )

    def _unseen(self) -> Iterator[JournalEntry]:
        return iter(()) if self.journal is None else self.journal.unseen()

    def _resumed(self, entry: JournalEntry) -> JournalEntry | RejectedRow:
        if entry.state == State.NO_CREDITS or self._is_retried(entry):
            return self._renewed(entry)
        if entry.state == State.DONE and self.with_pictures and entry.path is None:
            return attrs.evolve(entry, state=State.AWAITING_DOWNLOAD)
        if entry.state in FINISHED or self.key_id in (None, entry.key_id):
            return entry
        if entry.sent_at is None:
            return attrs.evolve(entry, key_id=self.key_id)
        if entry.state == State.AWAITING_DOWNLOAD:
            return entry
        return RejectedRow(entry.row, _other_key(entry), entry)

    def _is_retried(self, entry: JournalEntry) -> bool:
        if entry.state != State.FAILED or not self.retry_failed:
            return False
        return self.retry_failed == "all" or not is_about_content(entry.error)

    def _renewed(self, entry: JournalEntry) -> JournalEntry:
        """A row that failed, to be sent again; as it was if the input does not have it."""
        if entry.row is None:
            return attrs.evolve(entry, state=State.FAILED)
        return attrs.evolve(
            entry,
            state=State.NEW,
            key=new_idempotency_key(),
            key_id=self.key_id or 0,
            sent_at=None,
            swap_id=None,
            swap_json=None,
            error_json=None,
            path=None,
            cost=None,
            earlier_cost=entry.earlier_cost + (entry.cost or 0.0),
            attempts=0,
            seconds=0.0,
            files=entry.files if entry.inputs is None else None,
        )


def _identity(body: bytes, row_id: str | None, inputs: Inputs | None) -> bytes:
    if row_id is not None:
        return named_identity(row_id)
    return content_identity(body) if inputs is None else inputs.identity


def _other_key(entry: JournalEntry) -> UnresolvedRowError:
    swap = "" if entry.swap_id is None else f" (swap {entry.swap_id})"
    error = UnresolvedRowError(
        f"sent with another API key and not finished{swap}; not sent again. "
        "Run the journal with that key to finish it",
        candidates=() if entry.swap_id is None else (entry.swap_id,),
    )
    error.idempotency_key = entry.key
    return error


def _read_row(row: int, request: object) -> tuple[SwapRequest, str | None]:
    """The request of a row, and the caller's own name for it if it has one."""
    if isinstance(request, SwapRequest):
        return request, None
    if not isinstance(request, Mapping):
        reason = "must be a SwapRequest or a mapping of its fields"
        raise InvalidRequestError.for_field(f"row {row}", request, reason)
    fields = dict(cast("Mapping[str, Any]", request))
    try:
        row_id = _validation.row_id(fields.pop("row_id", None))
        return SwapRequest(**fields), row_id
    except TypeError as error:
        fault = str(error).removeprefix("SwapRequest.__init__() ")
        raise InvalidRequestError(f"row {row}: {fault}") from None
    except InvalidRequestError:
        for column, value in fields.items():
            _check_value(row, str(column), value)
        raise


def _check_value(row: int, column: str, value: object) -> None:
    """Reject what data frames put into rows: missing values and numpy's scalars."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    if kind.__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):  # noqa: PLR0124
        fault = "is a missing value; leave the column out of this row or use None"
    elif package == "numpy" and not isinstance(value, str | float):
        fault = f"is a {package}.{kind.__name__}; use Python's own type, e.g. with .item()"
    elif isinstance(value, Mapping):
        for name, item in cast("Mapping[object, object]", value).items():
            _check_value(row, f"{column}.{name}", item)
        return
    else:
        return
    raise InvalidRequestError(
        f"row {row}, column {column}: {short_repr(value)} {fault}", field=column, value=value
    )


async def _each(requests: Requests) -> AsyncGenerator[object]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
