"""The life of one row: its swap is created, watched and downloaded, and its end written down."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

import attrs

from aifaceswap._api.requests import MAX_DOWNLOAD, Call, get_swap, post_swap
from aifaceswap._api.responses import read_response
from aifaceswap._http.download import download_result
from aifaceswap._http.retry import is_retryable
from aifaceswap._http.transport import CallOptions, Transport
from aifaceswap._limits import ATTEMPT_TIMEOUT
from aifaceswap._polling.watcher import Watcher
from aifaceswap.bulk._journal import Journal, JournalEntry, State, error_json, swap_json
from aifaceswap.bulk._values import BulkSettings, Outcome, outcome_of
from aifaceswap.errors import (
    AIFaceSwapError,
    APIStatusError,
    AuthenticationError,
    InsufficientCreditsError,
    JournalError,
    RateLimitError,
    SwapFailedError,
    WaitTimeoutError,
)
from aifaceswap.models import Response, Swap

T = TypeVar("T")

# What every row meets, not this one alone.
STOPPING = (AuthenticationError, InsufficientCreditsError, RateLimitError, JournalError)
_OPTIONS = CallOptions(timeout=ATTEMPT_TIMEOUT, deadline=600.0, max_retries=8)
_DOWNLOADS = 4
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


class RowWorker:
    """Takes rows from their journal entries to their outcomes.

    Args:
        transport: Sends the requests.
        watcher: Waits until swaps have finished.
        journal: The record of the run, if it has one.
        settings: The settings of the run.
    """

    def __init__(
        self,
        transport: Transport,
        watcher: Watcher,
        journal: Journal | None,
        settings: BulkSettings,
    ) -> None:
        self._transport = transport
        self._watcher = watcher
        self._journal = journal
        self._settings = settings
        self._clock = asyncio.get_running_loop().time
        self._downloads = asyncio.Semaphore(_DOWNLOADS)

    async def complete(self, entry: JournalEntry, release_slot: Callable[[], None]) -> Outcome:
        """Take a row to its outcome.

        Args:
            entry: The row as the journal has it.
            release_slot: Called when its swap no longer counts as unfinished.

        Raises:
            AIFaceSwapError: Something that every row meets; this one stays open.
        """
        began = self._clock()
        swap = entry.swap
        try:
            if entry.state != State.AWAITING_DOWNLOAD:
                try:
                    entry, swap = await self._create_and_wait(entry)
                finally:
                    release_slot()
            if swap is None or swap.has_failed:
                raise SwapFailedError(f"row {entry.row}: {_reason(swap)}", swap=swap)
            entry = attrs.evolve(entry, state=State.AWAITING_DOWNLOAD, swap_json=swap_json(swap))
            entry = await self._download_result(entry, swap)
            seconds = self._clock() - began
            entry = await self._write(attrs.evolve(entry, state=State.DONE, seconds=seconds))
        except AIFaceSwapError as error:
            return await self._fail(entry, error, self._clock() - began, swap)
        return outcome_of(entry, swap)

    async def send(self, call: Call[T]) -> Response[T]:
        """Send a call, and wait for the service's limits as long as is allowed."""
        return await self._within_limits(
            lambda: self._transport.send(call, _OPTIONS, read_response)
        )

    async def wait(self, swap: Swap | str) -> Swap:
        """Wait until a swap has finished."""
        return await self._within_limits(lambda: self._watcher.wait(swap, self._settings.timeout))

    async def _create_and_wait(self, entry: JournalEntry) -> tuple[JournalEntry, Swap]:
        """Take a row's swap to its end."""
        if entry.swap_id is not None:
            return entry, await self.wait(entry.swap_id)
        if entry.state == State.NEW:
            entry = await self._write(attrs.evolve(entry, state=State.INTENDED))
        response = await self.send(post_swap(entry.body, entry.key))
        swap = response.value
        entry = attrs.evolve(
            entry, state=State.CREATED, swap_id=swap.id, attempts=response.attempts
        )
        if swap.is_finished:
            return entry, swap
        await self._write(entry)
        return entry, await self.wait(swap)

    async def _fail(
        self, entry: JournalEntry, error: AIFaceSwapError, seconds: float, swap: Swap | None
    ) -> Outcome:
        """Write down a failure that is final; any other leaves the row open for the next run."""
        error.idempotency_key = entry.key
        # A swap that is done is paid: only its picture is missing, and may come the next time.
        state = None if entry.state == State.AWAITING_DOWNLOAD else _state_after(error)
        if isinstance(error, SwapFailedError | WaitTimeoutError):
            swap = error.swap
        entry = attrs.evolve(entry, seconds=seconds, error_json=error_json(error))
        if state is not None:
            json = None if swap is None else swap_json(swap)
            await self._write(attrs.evolve(entry, state=state, swap_json=json))
        if isinstance(error, STOPPING):
            raise error
        return outcome_of(entry, swap, error)

    async def _download_result(self, entry: JournalEntry, swap: Swap) -> JournalEntry:
        folder = self._settings.download_to
        if folder is None:
            return entry
        await self._write(entry)
        target = folder / _file_name(entry.row, swap)
        async with self._downloads:
            await download_result(
                self._transport, swap, target, _OPTIONS, self._get, max_bytes=MAX_DOWNLOAD
            )
        return attrs.evolve(entry, path=os.fsencode(target))

    async def _get(self, swap_id: str) -> Swap:
        return (await self.send(get_swap(swap_id))).value

    async def _within_limits(self, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await attempt()
            except RateLimitError as error:
                wait = error.retry_after
                if wait is None or wait > self._settings.max_wait:
                    raise
            await asyncio.sleep(wait)

    async def _write(self, entry: JournalEntry) -> JournalEntry:
        if self._journal is not None:
            await self._journal.write(entry)
        return entry


def _state_after(error: AIFaceSwapError) -> State | None:
    """The state of a row that failed like this; None: it stays as it is."""
    if isinstance(error, InsufficientCreditsError):
        return State.NO_CREDITS
    if isinstance(error, STOPPING):
        return None
    final = isinstance(error, SwapFailedError | APIStatusError) and not is_retryable(error)
    return State.FAILED if final else None


def _reason(swap: Swap | None) -> str:
    return (swap and swap.error_message) or "the service gives no reason"


def _file_name(row: int, swap: Swap) -> str:
    """A name that is this row's alone and stays in its folder, whatever the service sends."""
    safe_id = re.sub(r"[^A-Za-z0-9_-]", "_", swap.id)[:80]
    suffix = PurePosixPath(urlsplit(swap.result_url or "").path).suffix.lower()
    return f"{row:06d}-{safe_id}{suffix if _SUFFIX.fullmatch(suffix) else '.jpg'}"
