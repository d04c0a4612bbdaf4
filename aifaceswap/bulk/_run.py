"""A bulk run: rows are read, each takes a slot, and one outcome comes out for each.

A row holds its slot from before its POST until its swap has finished, because that is what the
service counts. What is journaled before it is sent is never lost and never charged twice.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, Callable, Sequence, Sized
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import anyio
import attrs

from aifaceswap._api.requests import get_swap
from aifaceswap._api.responses import read_response
from aifaceswap._http.transport import Transport
from aifaceswap._limits import MAX_UNFINISHED_SWAPS
from aifaceswap._polling.slots import SwapSlots
from aifaceswap._polling.watcher import Watcher
from aifaceswap.bulk._breaker import CircuitBreaker, RunStopped
from aifaceswap.bulk._caller_rows import CallerRows, LatestProgress
from aifaceswap.bulk._files import RowFiles, needs_files
from aifaceswap.bulk._journal import FINISHED, Journal, JournalEntry, Owner, State
from aifaceswap.bulk._recovery import LIST_LAG, REPLAY_WITHIN
from aifaceswap.bulk._row import Row
from aifaceswap.bulk._rows import RejectedRow, Requests, Rows
from aifaceswap.bulk._slots import Slot, Slots
from aifaceswap.bulk._values import BulkProgress, BulkSettings, Outcome, outcome_of
from aifaceswap.bulk._worker import READING, RowWorker
from aifaceswap.errors import (
    AIFaceSwapError,
    APIStatusError,
    BulkStoppedError,
    ConfigurationError,
    InvalidRequestError,
    JournalError,
)
from aifaceswap.models import Swap

if TYPE_CHECKING:
    from aifaceswap.files._publisher import Publisher

# Rows that have finished and wait for their download or for the consumer.
_WAITING_ROWS = 64
# Seconds that POSTs in flight have to finish when the block is left.
_LAST_POSTS = 10.0
_NOT_READABLE = frozenset({403, 404, 410})  # what a key gets for the swaps of another key


class _End:
    """What the queue of outcomes ends with."""


class AsyncBulk:
    """A run: an async context manager, and an async iterator of one outcome for each row.

    Made by ``client.swaps.bulk()``. Leaving the block starts no further row, finishes the POSTs in
    flight (10 s at most), and closes the journal; the next run resumes what was in progress.

    Args:
        requests: The rows.
        settings: The settings of the run.
        transport: Sends the requests.
        watcher: Waits until swaps have finished.
        shared: The slots that all processes share, if there is a coordinator.
        publisher: Returns what publishes local files.
    """

    def __init__(
        self,
        requests: Requests,
        settings: BulkSettings,
        *,
        transport: Transport,
        watcher: Watcher,
        shared: SwapSlots | None,
        publisher: Callable[[], Publisher],
    ) -> None:
        self._transport = transport
        self._watcher = watcher
        self._shared = shared
        self._publisher = publisher
        self._requests = requests
        self._settings = settings
        self._journal: Journal | None = None
        self._rows: dict[Row, asyncio.Task[None]] = {}
        # Those that watch swaps of others: the run does not wait for them.
        self._others: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._stopped_by: BaseException | None = None
        self._total = len(requests) if isinstance(requests, Sized) else None
        self._counts: dict[str, int] = {"read": 0, "done": 0, "failed": 0}
        self._outcomes: asyncio.Queue[Outcome | Callable[[], object]] = asyncio.Queue()
        self._is_open = False

    async def __aenter__(self) -> Self:
        if self._is_open:
            raise ConfigurationError("a bulk run can be opened only once; call bulk() again")
        settings = self._settings
        if settings.download_to is not None:
            settings.download_to.mkdir(parents=True, exist_ok=True)
        if settings.journal is not None:
            self._journal = await self._open(settings.journal)
        self._clock = asyncio.get_running_loop().time
        self._slots = Slots(settings.concurrency, MAX_UNFINISHED_SWAPS)
        self._breaker = CircuitBreaker(settings.max_wait, self._report)
        self._files = RowFiles(self._publisher, settings.max_wait, self._report)
        self._worker = RowWorker(
            transport=self._transport,
            watcher=self._watcher,
            journal=self._journal,
            settings=settings,
            slots=self._slots,
            shared=self._shared,
            breaker=self._breaker,
            files=self._files,
            on_change=self._report,
        )
        # Rows that are begun, up to the moment at which their outcome is taken.
        self._rows_begun = asyncio.Semaphore(settings.concurrency + _WAITING_ROWS)
        self._is_open = True
        self._feeding = asyncio.ensure_future(self._feed())
        self._ending = asyncio.ensure_future(self._end())
        return self

    @property
    def owner(self) -> Owner:
        """The service and the key that the rows belong to."""
        return Owner(self._transport.base_url, self._transport.fingerprint)

    async def _open(self, path: str | os.PathLike[str]) -> Journal:
        accept = self._settings.accept_new_key
        return await Journal.open(path, self.owner, accept_new_key=accept, can_read=self._can_read)

    async def _can_read(self, swap_id: str) -> bool:
        try:
            await self._transport.send(get_swap(swap_id), READING, read_response)
        except InvalidRequestError:
            return False
        except APIStatusError as error:
            if error.status not in _NOT_READABLE:
                raise
            return False
        return True

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leaving = asyncio.ensure_future(self._leave())
        cancelled: asyncio.CancelledError | None = None
        # anyio's scopes cancel again and again, asyncio's tasks as often as someone says so.
        with anyio.CancelScope(shield=True):
            while not leaving.done():
                try:
                    await asyncio.wait([leaving])
                except asyncio.CancelledError as error:
                    cancelled = error
        leaving.result()
        if cancelled is not None:
            raise cancelled

    async def _leave(self) -> None:
        """End all tasks and close the journal; POSTs in flight are finished and written down."""
        self._stopping = self._worker.stopping = self._worker.leaving = True
        posting = [task for row, task in self._rows.items() if row.is_in_flight]
        rest = {self._feeding, self._ending, *self._rows.values(), *self._others}
        for task in rest.difference(posting):
            task.cancel()
        if posting:
            await asyncio.wait(posting, timeout=_LAST_POSTS)
        for task in posting:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._journal is not None:
            await self._journal.close()
        self._outcomes.put_nowait(_End)

    def _check_open(self) -> None:
        if not self._is_open:
            raise ConfigurationError(
                "a bulk run must be opened first: async with client.swaps.bulk(...) as outcomes, "
                "or with for a blocking Client"
            )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome, in the order in which rows finish.

        Raises:
            BulkStoppedError: The run cannot continue, and every row in progress has finished.
            ConfigurationError: The run was not opened with ``async with``.
            JournalError: The journal cannot be used.
            StopAsyncIteration: Every row has its outcome, or the run was stopped.
        """
        outcome = await self.next_or_none()
        if not isinstance(outcome, Outcome):
            raise StopAsyncIteration
        return outcome

    async def next_or_none(self) -> Outcome | Callable[[], object] | None:
        """Return the next outcome, for callers that cannot await an iterator's end.

        Returns:
            The outcome, or a call that the blocking caller is to make; None at the end.

        Raises:
            BulkStoppedError: As `__anext__`.
            ConfigurationError: As `__anext__`.
            JournalError: As `__anext__`.
        """
        self._check_open()
        outcome = await self._outcomes.get()
        if isinstance(outcome, Outcome):
            self._rows_begun.release()
            return outcome
        if outcome is not _End:
            return outcome
        self._outcomes.put_nowait(_End)
        if self._stopped_by is not None:
            raise self._why_stopped(self._stopped_by)
        return None

    def call_back_in_caller(self) -> None:
        """Have rows read and progress reported by the caller of `next_or_none`."""
        if not isinstance(self._requests, Sequence | AsyncIterable):
            self._requests = cast("Requests", CallerRows(self._requests, self._post))
        if (report := self._settings.on_progress) is not None:
            reports = LatestProgress(report, self._post)
            self._settings = attrs.evolve(self._settings, on_progress=reports)

    def _post(self, call: Callable[[], object]) -> None:
        self._outcomes.put_nowait(call)

    async def stop_soon(self) -> None:
        """`stop()`, for callers outside the event loop."""
        self.stop()

    def stop(self) -> None:
        """Start no further row. The iteration ends when the swaps in progress have finished.

        Raises:
            ConfigurationError: The run was not opened with ``async with``.
        """
        self._check_open()
        self._stopping = self._worker.stopping = True
        self._feeding.cancel()
        for row, task in self._rows.items():
            has_no_slot = row.slot is None
            is_held_up = has_no_slot or row.was_refused or self._breaker.error is not None
            if is_held_up and row.entry.swap_id is None and not row.is_in_flight:
                task.cancel()

    # --- rows in ---

    async def _feed(self) -> None:
        try:
            await self._begin_rows()
        except RunStopped as stopped:
            self._stop_for(stopped.cause)
        except BaseException as error:
            # Also a CancelledError of the caller's rows; `stop()` is the one that is expected.
            if not (self._stopping and isinstance(error, asyncio.CancelledError)):
                self._stop_for(error)

    async def _begin_rows(self) -> None:
        await self._learn_from_journal()
        await self._count_swaps_of_others()
        settings = self._settings
        rows = Rows(
            requests=self._requests,
            journal=None if self._journal is None else self._journal.view,
            files=self._files,
            key_id=None if self._journal is None else self._journal.key_id,
            retry_failed=settings.retry_failed,
            with_pictures=settings.download_to is not None,
        )
        async for entry in rows.read():
            self._count("read")
            if isinstance(entry, RejectedRow):
                await self._rows_begun.acquire()
                self._put(_rejected(entry))
            elif entry.state in FINISHED:
                await self._repeat(entry)
            else:
                await self._begin(entry)

    async def _end(self) -> None:
        """Wait until all rows are read and all that were begun have finished."""
        await asyncio.wait([self._feeding])
        while self._rows:
            await asyncio.wait(self._rows.values())
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
        slot, shared, age = None, None, 0.0
        if entry.state == State.CREATED:
            # The service counts it already.
            slot = self._slots.hold()
            if self._shared is not None and entry.swap_id is not None:
                await self._shared.record_created(entry.key, entry.swap_id)
            if entry.sent_at is not None:
                age = max(0.0, time.time() - entry.sent_at)
            slot.doubt_in(self._worker.doubt_after - age)
        elif needs_files(entry):
            await self._files.ahead.acquire()
        elif entry.state != State.AWAITING_DOWNLOAD:
            slot, shared = await self._worker.take_slot(entry)
        row = Row(entry, slot, shared, began=self._clock(), sent=self._clock() - age)
        task = asyncio.ensure_future(self._complete(row))
        self._rows[row] = task
        task.add_done_callback(lambda _: self._rows.pop(row))
        self._report()

    async def _complete(self, row: Row) -> None:
        try:
            outcome = await self._worker.complete(row)
        except asyncio.CancelledError:
            self._rows_begun.release()
        except RunStopped as stopped:
            self._rows_begun.release()
            self._stop_for(stopped.cause)
        except BaseException as error:
            self._rows_begun.release()
            self._stop_for(error)
        else:
            self._put(outcome)

    async def _learn_from_journal(self) -> None:
        """Count the credits of earlier runs, and read the list for rows that were sent long ago."""
        if self._journal is None or self._worker.recovery is None:
            return
        if self._worker.credits.is_limited:
            self._worker.credits.start(*await self._journal.costs())
        now = time.time()
        sent = await self._journal.unanswered(now - REPLAY_WITHIN, now)
        if sent is not None:
            first, last = sent
            await asyncio.sleep(last + LIST_LAG - now)
            # Before the first POST: what it creates must not be taken for an older row's.
            with suppress(AIFaceSwapError):
                await self._worker.recovery.list_since(first)

    async def _count_swaps_of_others(self) -> None:
        """The service counts every unfinished swap of the key: others hold slots, too."""
        ours = set[str]() if self._journal is None else await self._journal.unfinished_ids()
        try:
            page = await self._worker.newest_swaps()
        except AIFaceSwapError:
            return
        for swap in page:
            self._worker.credits.learn(str(swap.type), swap.credit_cost)
            if not swap.is_finished and swap.id not in ours:
                slot = self._slots.hold(own=False)
                task = asyncio.ensure_future(self._hold_slot_for(swap, slot))
                self._others.add(task)
                task.add_done_callback(self._others.discard)

    async def _hold_slot_for(self, swap: Swap, slot: Slot) -> None:
        slot.doubt_in(self._worker.doubt_after - _age(swap))
        with suppress(AIFaceSwapError, RunStopped):
            await self._worker.wait(swap)
            slot.release()

    # --- outcomes out ---

    def _put(self, outcome: Outcome) -> None:
        self._count("done" if outcome.ok else "failed")
        self._outcomes.put_nowait(outcome)

    def _count(self, what: str) -> None:
        self._counts[what] += 1
        self._report()

    def _report(self) -> None:
        if self._settings.on_progress is None:
            return
        in_flight = [row for row in self._rows if row.slot is not None]
        oldest = next((row for row in in_flight if row.entry.swap_id is not None), None)
        progress = BulkProgress(
            total=self._total,
            in_flight=len(in_flight),
            oldest_id=None if oldest is None else oldest.entry.swap_id,
            oldest_seconds=0.0 if oldest is None else self._clock() - oldest.sent,
            paused=self._breaker.error or self._files.breaker.error,
            **self._counts,
        )
        try:
            self._settings.on_progress(progress)
        except BaseException as error:  # the run ends, not the row that happened to report
            self._stop_for(error)

    def _stop_for(self, cause: BaseException | None) -> None:
        # What is met on the way to a stop that was asked for is not its reason.
        if not self._stopping or isinstance(cause, JournalError):
            self._stopped_by = self._stopped_by or cause
        self.stop()

    def _why_stopped(self, cause: BaseException) -> BaseException:
        is_ours = isinstance(cause, AIFaceSwapError) and not isinstance(cause, JournalError)
        if not (is_ours or isinstance(cause, OSError)):
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


def _age(swap: Swap) -> float:
    """Seconds since the service created a swap; 0 if it does not say."""
    if swap.created_at is None:
        return 0.0
    return max(0.0, (datetime.now(UTC) - swap.created_at).total_seconds())


def _rejected(rejected: RejectedRow) -> Outcome:
    if rejected.entry is None:
        return Outcome(row=rejected.row, error=rejected.error)
    return outcome_of(rejected.entry, error=rejected.error)
