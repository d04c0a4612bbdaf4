"""What a bulk run reads: its input, and what the journal already knows of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from typing import Any, Literal

import attrs

from aifaceswap._api.requests import new_idempotency_key, swap_body
from aifaceswap.bulk._journal import Journal, JournalEntry, State
from aifaceswap.bulk._verdicts import is_about_content
from aifaceswap.errors import InvalidRequestError, JournalError
from aifaceswap.models import SwapRequest

Requests = (
    Iterable[SwapRequest | Mapping[str, Any]] | AsyncIterable[SwapRequest | Mapping[str, Any]]
)


_STATES = frozenset(State)


@attrs.frozen
class InvalidRow:
    """A row that cannot be sent.

    Attributes:
        row: Its number, from 0.
        error: What is wrong with it.
    """

    row: int
    error: InvalidRequestError


@attrs.frozen(kw_only=True)
class Rows:
    """The rows of a run, each as it stands: from the journal where it is there, else new.

    Attributes:
        requests: The input, read as it is needed.
        journal: The journal, if there is one.
        retry_failed: Whether rows that failed are done again; ``"all"``: also those that would
            fail again for their content.
        with_pictures: Whether a row without its picture is not done yet.
    """

    requests: Requests
    journal: Journal | None
    retry_failed: bool | Literal["all"]
    with_pictures: bool

    async def read(self) -> AsyncGenerator[JournalEntry | InvalidRow]:
        """Each row in order, then those that are in the journal alone.

        Yields:
            The row, or what is wrong with it.

        Raises:
            JournalError: The journal is damaged, or of another input.
        """
        journaled = self._journaled()
        known = await anext(journaled, None)
        number = -1
        async for request in _each(self.requests):
            number += 1
            try:
                body = swap_body(_as_request(request))
            except InvalidRequestError as error:
                if known is not None and known.row == number:
                    raise _changed(number) from error
                yield InvalidRow(number, error)
                continue
            if known is None or known.row != number:
                yield JournalEntry(
                    row=number, state=State.NEW, key=new_idempotency_key(), body=body
                )
                continue
            yield self._resumed(known, body)
            known = await anext(journaled, None)
        # The input may end early; what is journaled may be paid and is not left behind.
        while known is not None:
            yield self._resumed(known, known.body)
            known = await anext(journaled, None)

    async def _journaled(self) -> AsyncGenerator[JournalEntry]:
        after = -1
        while self.journal is not None and (entries := await self.journal.read(after)):
            for entry in entries:
                yield entry
            after = entries[-1].row

    def _is_retried(self, entry: JournalEntry) -> bool:
        if entry.state != State.FAILED or not self.retry_failed:
            return False
        return self.retry_failed == "all" or not is_about_content(entry.error)

    def _resumed(self, entry: JournalEntry, body: bytes) -> JournalEntry:
        if entry.body != body:
            raise _changed(entry.row)
        if entry.state not in _STATES:
            raise JournalError(f"row {entry.row} of the journal is damaged: state {entry.state}")
        if entry.state == State.NO_CREDITS or self._is_retried(entry):
            key = new_idempotency_key()
            return JournalEntry(row=entry.row, state=State.NEW, key=key, body=body)
        if entry.state == State.DONE and self.with_pictures and entry.path is None:
            return attrs.evolve(entry, state=State.AWAITING_DOWNLOAD)
        return entry


def _changed(row: int) -> JournalError:
    return JournalError(
        f"row {row} is another one in the journal: use the input that the run started with, "
        "or use a new journal"
    )


def _as_request(request: object) -> SwapRequest:
    if isinstance(request, SwapRequest):
        return request
    try:
        return SwapRequest(**request)  # type: ignore[arg-type]
    except TypeError as error:
        reason = f"must yield SwapRequest values or mappings of its fields ({error})"
        raise InvalidRequestError.for_field("requests", request, reason) from None


async def _each(requests: Requests) -> AsyncGenerator[object]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
