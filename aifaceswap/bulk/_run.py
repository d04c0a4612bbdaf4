"""Thousands of swaps, each exactly once, as fast as the service's limits allow.

A row holds a slot from before its POST until its swap has ended, because that is what the
service counts. What is journaled before it is sent is never lost and never paid twice.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Sized,
)
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import attrs

from aifaceswap._api.requests import MAX_DOWNLOAD, Call, get_swap, list_swaps, post_swap
from aifaceswap._api.responses import EXPIRED, read_response
from aifaceswap._http.download import download
from aifaceswap._http.retry import is_retryable
from aifaceswap._http.transport import CallOptions, Transport
from aifaceswap._limits import ATTEMPT_TIMEOUT, MAX_PAGE_SIZE, MAX_UNFINISHED_SWAPS
from aifaceswap._polling.watcher import Watcher
from aifaceswap.bulk._journal import FINISHED, Journal, JournalEntry, State, error_json, swap_json
from aifaceswap.bulk._rows import InvalidRow, Requests, Rows
from aifaceswap.errors import (
    AIFaceSwapError,
    APIStatusError,
    AuthenticationError,
    BulkStoppedError,
    InsufficientCreditsError,
    JournalError,
    RateLimitError,
    SwapFailedError,
    WaitTimeoutError,
)
from aifaceswap.models import Response, Swap

T = TypeVar("T")

# What no row can get past.
_STOPPING = (AuthenticationError, InsufficientCreditsError, RateLimitError, JournalError)
_DOWNLOADS = 4
# Rows that have ended and wait for their download or for the consumer.
_WAITING_ROWS = 64
_PATIENCE = CallOptions(timeout=ATTEMPT_TIMEOUT, deadline=600.0, max_retries=8)
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one row.

    Attributes:
        row: The row's number in the input, from 0.
        idempotency_key: The key that it was sent with; None if it was never sent.
        swap: The swap as it was seen last; None if there is none.
        error: Why it has no result; None if it has one.
        path: Where its picture is, if it was to be downloaded.
        attempts: How many requests its creation took in this run.
        seconds: From its submission to its end.
    """

    row: int
    idempotency_key: str | None = None
    swap: Swap | None = None
    error: AIFaceSwapError | None = None
    path: Path | None = None
    attempts: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the row has its result."""
        return self.error is None


@attrs.frozen(kw_only=True)
class BulkProgress:
    """How far a run is.

    Attributes:
        total: How many rows the input has; None where that is not known.
        read: How many of them were looked at.
        done: How many have their result.
        failed: How many have failed.
        in_flight: How many swaps are unfinished.
    """

    total: int | None
    read: int = 0
    done: int = 0
    failed: int = 0
    in_flight: int = 0


@attrs.frozen(kw_only=True)
class BulkSettings:
    """How a run is to go; see `AsyncSwaps.bulk`."""

    journal: str | os.PathLike[str] | None = None
    download_to: Path | None = None
    concurrency: int = MAX_UNFINISHED_SWAPS
    on_progress: Callable[[BulkProgress], object] | None = None
    skip_finished: bool = False
    retry_failed: bool = False
    max_wait: float = 300.0
    timeout: float | None = None


class _End:
    """What the queue of outcomes ends with."""


class AsyncBulk:
    """A run: an async context manager, and an async iterator of one outcome for each row.

    Made by ``client.swaps.bulk()``. Leaving the block breaks off what is under way; what is
    journaled goes on in the next run.

    Args:
        transport: What sends the requests.
        watcher: What sees swaps to their end.
        requests: The rows.
        settings: How the run is to go.
    """

    def __init__(
        self, transport: Transport, watcher: Watcher, requests: Requests, settings: BulkSettings
    ) -> None:
        self._transport = transport
        self._watcher = watcher
        self._requests = requests
        self._settings = settings
        self._journal: Journal | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Those that watch swaps of others: the run does not wait for them.
        self._others: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._stopped_by: BaseException | None = None
        self._total = len(requests) if isinstance(requests, Sized) else None
        self._counts: dict[str, int] = {"read": 0, "done": 0, "failed": 0, "in_flight": 0}

    async def __aenter__(self) -> Self:
        settings = self._settings
        if settings.download_to is not None:
            settings.download_to.mkdir(parents=True, exist_ok=True)
        if settings.journal is not None:
            self._journal = await Journal.open(settings.journal)
        self._clock = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(settings.concurrency)
        # Rows that are begun, up to the moment at which their outcome is taken.
        self._rows_begun = asyncio.Semaphore(settings.concurrency + _WAITING_ROWS)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._outcomes: asyncio.Queue[Outcome | type[_End]] = asyncio.Queue()
        self._feeding = asyncio.ensure_future(self._feed())
        self._ending = asyncio.ensure_future(self._end())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [self._feeding, self._ending, *self._tasks, *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._journal is not None:
            await self._journal.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome, in the order in which rows end.

        Raises:
            BulkStoppedError: The run cannot go on, and every row that was begun has ended.
            JournalError: The journal cannot be used.
            StopAsyncIteration: Every row has its outcome, or the run was stopped.
        """
        outcome = await self.next_or_none()
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    async def next_or_none(self) -> Outcome | None:
        """The next outcome, for callers that cannot await an iterator's end.

        Returns:
            The outcome; None at the end.

        Raises:
            BulkStoppedError: As `__anext__`.
            JournalError: As `__anext__`.
        """
        outcome = await self._outcomes.get()
        if isinstance(outcome, Outcome):
            self._rows_begun.release()
            return outcome
        self._outcomes.put_nowait(_End)
        if self._stopped_by is not None:
            raise self._why_stopped(self._stopped_by)
        return None

    async def stop_soon(self) -> None:
        """`stop()`, for callers outside the event loop."""
        self.stop()

    def stop(self) -> None:
        """Begin no further row. The iteration ends when what is under way has ended."""
        self._stopping = True
        self._feeding.cancel()

    # --- rows in ---

    async def _feed(self) -> None:
        await self._count_swaps_of_others()
        settings = self._settings
        rows = Rows(
            requests=self._requests,
            journal=self._journal,
            retry_failed=settings.retry_failed,
            with_pictures=settings.download_to is not None,
        )
        async for entry in rows.read():
            self._count("read")
            if isinstance(entry, InvalidRow):
                await self._rows_begun.acquire()
                self._put(Outcome(row=entry.row, error=entry.error))
            elif entry.state in FINISHED:
                await self._repeat(entry)
            else:
                await self._begin(entry)

    async def _end(self) -> None:
        """Wait until all rows are read and all that were begun have ended."""
        try:
            await self._feeding
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        except Exception as error:
            self._stop_for(error)
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._outcomes.put_nowait(_End)

    async def _repeat(self, entry: JournalEntry) -> None:
        """Yield an outcome of an earlier run."""
        if self._settings.skip_finished:
            self._count("done" if entry.state == State.DONE else "failed")
            return
        await self._rows_begun.acquire()
        self._put(_outcome(entry, entry.swap, entry.error))

    async def _begin(self, entry: JournalEntry) -> None:
        await self._rows_begun.acquire()
        if entry.state == State.AWAITING_DOWNLOAD:
            self._spawn(self._finish(entry, entry.swap, self._clock()))
            return
        await self._slots.acquire()
        self._count("in_flight")
        self._spawn(self._work(entry))

    async def _count_swaps_of_others(self) -> None:
        """The service counts every unfinished swap of the key: others hold slots, too."""
        ours = set[str]() if self._journal is None else await self._journal.unfinished_ids()
        try:
            page = (await self._send(list_swaps(MAX_PAGE_SIZE))).value
        except _STOPPING:
            raise
        except AIFaceSwapError:
            return
        for swap in page:
            if not swap.is_finished and swap.id not in ours and not self._slots.locked():
                await self._slots.acquire()
                task = asyncio.ensure_future(self._hold_slot_for(swap))
                self._others.add(task)
                task.add_done_callback(self._others.discard)

    async def _hold_slot_for(self, swap: Swap) -> None:
        try:
            with suppress(AIFaceSwapError):
                await self._wait(swap)
        finally:
            self._slots.release()

    # --- a row's life ---

    async def _work(self, entry: JournalEntry) -> None:
        began = self._clock()
        try:
            entry, swap = await self._swap(entry)
        except AIFaceSwapError as error:
            await self._fail(entry, error, began)
            return
        finally:
            self._slots.release()
            self._count("in_flight", -1)
        await self._finish(entry, swap, began)

    async def _swap(self, entry: JournalEntry) -> tuple[JournalEntry, Swap]:
        """See a row's swap to its end; its slot is held meanwhile."""
        if entry.swap_id is not None:
            return entry, await self._wait(entry.swap_id)
        if entry.state == State.NEW:
            entry = await self._write(attrs.evolve(entry, state=State.INTENDED))
        response = await self._send(post_swap(entry.body, entry.key))
        swap = response.value
        entry = attrs.evolve(
            entry, state=State.CREATED, swap_id=swap.id, attempts=response.attempts
        )
        if swap.is_finished:
            return entry, swap
        await self._write(entry)
        return entry, await self._wait(swap)

    async def _finish(self, entry: JournalEntry, swap: Swap | None, began: float) -> None:
        """Fetch the picture, write down the end, hand out the outcome."""
        try:
            if swap is None or swap.has_failed:
                raise SwapFailedError(f"row {entry.row}: {_reason(swap)}", swap=swap)
            entry = attrs.evolve(entry, state=State.AWAITING_DOWNLOAD, swap_json=swap_json(swap))
            entry = await self._fetched(entry, swap)
            seconds = self._clock() - began
            entry = await self._write(attrs.evolve(entry, state=State.DONE, seconds=seconds))
        except AIFaceSwapError as error:
            await self._fail(entry, error, began, swap)
        else:
            self._put(_outcome(entry, swap, None))

    async def _fail(
        self, entry: JournalEntry, error: AIFaceSwapError, began: float, swap: Swap | None = None
    ) -> None:
        error.idempotency_key = entry.key
        # A swap that has ended is paid: only its picture is missing, and may come the next time.
        state = None if entry.state == State.AWAITING_DOWNLOAD else _state_after(error)
        if isinstance(error, SwapFailedError | WaitTimeoutError):
            swap = error.swap
        entry = attrs.evolve(entry, seconds=self._clock() - began, error_json=error_json(error))
        try:
            # What may pass stays as it is in the journal, for the next run to go on with.
            if state is not None:
                json = None if swap is None else swap_json(swap)
                await self._write(attrs.evolve(entry, state=state, swap_json=json))
        except JournalError as fault:
            error = fault
        if isinstance(error, _STOPPING):
            self._stop_for(error)
            self._rows_begun.release()
        else:
            self._put(_outcome(entry, swap, error))

    async def _fetched(self, entry: JournalEntry, swap: Swap) -> JournalEntry:
        folder = self._settings.download_to
        if folder is None:
            return entry
        await self._write(entry)
        target = folder / _file_name(entry.row, swap)
        async with self._downloads:
            try:
                await self._download(swap, target)
            except APIStatusError as error:
                if error.status not in EXPIRED:
                    raise
                await self._download((await self._send(get_swap(swap.id))).value, target)
        return attrs.evolve(entry, path=os.fsencode(target))

    async def _download(self, swap: Swap, target: Path) -> None:
        url = swap.result_url or ""
        await download(self._transport, url, target, _PATIENCE, max_bytes=MAX_DOWNLOAD)

    async def _send(self, call: Call[T]) -> Response[T]:
        return await self._patiently(lambda: self._transport.send(call, _PATIENCE, read_response))

    async def _wait(self, swap: Swap | str) -> Swap:
        return await self._patiently(lambda: self._watcher.wait(swap, self._settings.timeout))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Stand still for the service's limits as long as is allowed."""
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

    # --- outcomes out ---

    def _put(self, outcome: Outcome) -> None:
        self._count("done" if outcome.ok else "failed")
        self._outcomes.put_nowait(outcome)

    def _count(self, what: str, by: int = 1) -> None:
        self._counts[what] += by
        if self._settings.on_progress is not None:
            self._settings.on_progress(BulkProgress(total=self._total, **self._counts))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop_for(error)

    def _stop_for(self, error: BaseException) -> None:
        self._stopped_by = self._stopped_by or error
        self.stop()

    def _why_stopped(self, cause: BaseException) -> BaseException:
        if not isinstance(cause, (*_STOPPING, OSError)) or isinstance(cause, JournalError):
            return cause
        left = None
        if self._total is not None:
            left = self._total - self._counts["done"] - self._counts["failed"]
        rows = "the rows that are left" if left is None else f"the {left} rows that are left"
        how = "run it again with the same journal" if self._journal else "run them anew"
        stopped = BulkStoppedError(
            f"the run has stopped: {cause}. For {rows}: mend that, then {how}", rows_left=left
        )
        stopped.__cause__ = cause
        return stopped


def _state_after(error: AIFaceSwapError) -> State | None:
    """How a row that failed like this stands in the journal; None: as before."""
    if isinstance(error, InsufficientCreditsError):
        return State.NO_CREDITS
    if isinstance(error, _STOPPING):
        return None
    final = isinstance(error, SwapFailedError | APIStatusError) and not is_retryable(error)
    return State.FAILED if final else None


def _outcome(entry: JournalEntry, swap: Swap | None, error: AIFaceSwapError | None) -> Outcome:
    return Outcome(
        row=entry.row,
        idempotency_key=entry.key,
        swap=swap,
        error=error,
        path=None if entry.path is None else Path(os.fsdecode(entry.path)),
        attempts=entry.attempts,
        seconds=entry.seconds,
    )


def _reason(swap: Swap | None) -> str:
    return (swap and swap.error_message) or "the service does not say why"


def _file_name(row: int, swap: Swap) -> str:
    """A name that is this row's alone and stays in its folder, whatever the service says."""
    safe_id = re.sub(r"[^A-Za-z0-9_-]", "_", swap.id)[:80]
    suffix = PurePosixPath(urlsplit(swap.result_url or "").path).suffix.lower()
    return f"{row:06d}-{safe_id}{suffix if _SUFFIX.fullmatch(suffix) else '.jpg'}"
