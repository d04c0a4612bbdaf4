"""A bulk run: rows are read, each takes a slot, and one outcome comes out for each.

A row holds its slot from before its POST until its swap has finished, because that is what the
service counts. What is journaled before it is sent is never lost and never paid twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from contextlib import suppress
from types import TracebackType
from typing import Self

from aifaceswap._api.requests import list_swaps
from aifaceswap._http.transport import Transport
from aifaceswap._limits import MAX_PAGE_SIZE
from aifaceswap._polling.watcher import Watcher
from aifaceswap.bulk._journal import FINISHED, Journal, JournalEntry, State
from aifaceswap.bulk._row import STOPPING, RowWorker
from aifaceswap.bulk._rows import InvalidRow, Requests, Rows
from aifaceswap.bulk._values import BulkProgress, BulkSettings, Outcome, outcome_of
from aifaceswap.errors import AIFaceSwapError, BulkStoppedError, JournalError
from aifaceswap.models import Swap

# Rows that have finished and wait for their download or for the consumer.
_WAITING_ROWS = 64


class _End:
    """What the queue of outcomes ends with."""


class AsyncBulk:
    """A run: an async context manager, and an async iterator of one outcome for each row.

    Made by ``client.swaps.bulk()``. Leaving the block interrupts what is in progress; what is
    journaled is resumed in the next run.

    Args:
        transport: Sends the requests.
        watcher: Waits until swaps have finished.
        requests: The rows.
        settings: The settings of the run.
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
        self._worker = RowWorker(self._transport, self._watcher, self._journal, settings)
        self._slots = asyncio.Semaphore(settings.concurrency)
        # Rows that are begun, up to the moment at which their outcome is taken.
        self._rows_begun = asyncio.Semaphore(settings.concurrency + _WAITING_ROWS)
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
        """Return the next outcome, in the order in which rows finish.

        Raises:
            BulkStoppedError: The run cannot continue, and every row in progress has finished.
            JournalError: The journal cannot be used.
            StopAsyncIteration: Every row has its outcome, or the run was stopped.
        """
        outcome = await self.next_or_none()
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    async def next_or_none(self) -> Outcome | None:
        """Return the next outcome, for callers that cannot await an iterator's end.

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
        """Start no further row. The iteration ends when the rows in progress have finished."""
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
        """Wait until all rows are read and all that were begun have finished."""
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
        self._put(outcome_of(entry))

    async def _begin(self, entry: JournalEntry) -> None:
        await self._rows_begun.acquire()
        if entry.state != State.AWAITING_DOWNLOAD:
            await self._slots.acquire()
            self._count("in_flight")
        task = asyncio.ensure_future(self._complete(entry))
        self._tasks.add(task)
        task.add_done_callback(self._row_ended)

    async def _complete(self, entry: JournalEntry) -> None:
        try:
            outcome = await self._worker.complete(entry, self._release_slot)
        except STOPPING as error:
            self._stop_for(error)
            self._rows_begun.release()
        else:
            self._put(outcome)

    def _release_slot(self) -> None:
        self._slots.release()
        self._count("in_flight", -1)

    async def _count_swaps_of_others(self) -> None:
        """The service counts every unfinished swap of the key: others hold slots, too."""
        ours = set[str]() if self._journal is None else await self._journal.unfinished_ids()
        try:
            page = (await self._worker.send(list_swaps(MAX_PAGE_SIZE))).value
        except STOPPING:
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
                await self._worker.wait(swap)
        finally:
            self._slots.release()

    # --- outcomes out ---

    def _put(self, outcome: Outcome) -> None:
        self._count("done" if outcome.ok else "failed")
        self._outcomes.put_nowait(outcome)

    def _count(self, what: str, by: int = 1) -> None:
        self._counts[what] += by
        if self._settings.on_progress is not None:
            self._settings.on_progress(BulkProgress(total=self._total, **self._counts))

    def _row_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop_for(error)

    def _stop_for(self, error: BaseException) -> None:
        self._stopped_by = self._stopped_by or error
        self.stop()

    def _why_stopped(self, cause: BaseException) -> BaseException:
        if not isinstance(cause, (*STOPPING, OSError)) or isinstance(cause, JournalError):
            return cause
        left = None
        if self._total is not None:
            left = self._total - self._counts["done"] - self._counts["failed"]
        rows = "the rows that are left" if left is None else f"the {left} rows that are left"
        how = "run it again with the same journal" if self._journal else "run them again"
        stopped = BulkStoppedError(
            f"the run has stopped: {cause}. For {rows}: fix that, then {how}", rows_left=left
        )
        stopped.__cause__ = cause
        return stopped
