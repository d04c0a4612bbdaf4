"""The life of one row: its swap is created, watched and downloaded, and its end written down.

A row is final when its swap has finished, or when the service has proven that no swap exists. Every
other end leaves it open: the next run continues with the same key, and with the swap's id once
that is known.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import TypeVar

import attrs

from aifaceswap._api.requests import (
    MAX_DOWNLOAD,
    Call,
    get_swap,
    list_swaps,
    new_idempotency_key,
    post_swap,
)
from aifaceswap._api.responses import read_response, read_result
from aifaceswap._http.attempts import CallOptions
from aifaceswap._http.download import save_result
from aifaceswap._http.transport import Transport
from aifaceswap._limits import ATTEMPT_TIMEOUT, MAX_PAGE_SIZE
from aifaceswap._polling.slots import HeldSlot, SwapSlots
from aifaceswap._polling.watcher import Watcher
from aifaceswap.bulk._breaker import CircuitBreaker, RunStopped
from aifaceswap.bulk._credits import Credits
from aifaceswap.bulk._files import RowFiles, has_expired, needs_files
from aifaceswap.bulk._journal import Journal, JournalEntry, State, error_json, swap_json
from aifaceswap.bulk._recovery import LIST_LAG, Recovery, is_forgotten, marked
from aifaceswap.bulk._row import Row
from aifaceswap.bulk._slots import Slot, Slots
from aifaceswap.bulk._values import BulkSettings, Outcome, outcome_of
from aifaceswap.bulk._verdicts import Verdict, may_have_reached_the_api, verdict
from aifaceswap.errors import (
    AIFaceSwapError,
    AuthenticationError,
    ConcurrencyLimitError,
    JournalError,
    RateLimitError,
    SwapFailedError,
    UnresolvedRowError,
    WaitTimeoutError,
)
from aifaceswap.models import Swap, SwapPage

T = TypeVar("T")

READING = CallOptions(timeout=ATTEMPT_TIMEOUT, deadline=600.0, max_retries=8)
_LIST = CallOptions(timeout=10.0, deadline=30.0, max_retries=1)
# Seconds between two waits for a swap whose polls fail, and until that is the row's outcome.
_POLL_PAUSE = 5.0
_POLL_TROUBLE = 60.0
# Seconds after which the service's workers may have forgotten an unfinished swap.
_DOUBT_AFTER = 900.0
# What is lost once is sent again at once; longer troubles are the circuit breaker's.
_POST_RETRIES = 2
_POST_DEADLINE = (60.0, 600.0)
_DOWNLOADS = 4
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


class RowWorker:
    """Takes rows from their journal entries to their outcomes.

    Args:
        transport: Sends the requests.
        watcher: Waits until swaps have finished.
        journal: The record of the run, if it has one.
        settings: The settings of the run.
        slots: Where a row gets another slot if the service has given its own to others.
        shared: The slots that all processes share, if there is a coordinator.
        breaker: Pauses the run for troubles that all rows share.
        files: Publishes the local files of rows.
        on_change: Called when the progress of a row has changed.

    Attributes:
        credits: Keeps the run within its credits.
        recovery: Looks for the swaps of rows that were sent long ago; None without a journal.
        doubt_after: Seconds after which the slot of an unfinished swap is doubtful.
        stopping: Whether nothing more is to be sent for rows that have no swap yet.
        leaving: Whether rows are to end once the id of their swap is written down.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        watcher: Watcher,
        journal: Journal | None,
        settings: BulkSettings,
        slots: Slots,
        shared: SwapSlots | None,
        breaker: CircuitBreaker,
        files: RowFiles,
        on_change: Callable[[], object],
    ) -> None:
        self._transport = transport
        self._watcher = watcher
        self._journal = journal
        self._settings = settings
        self._slots = slots
        self._shared = shared
        self._breaker = breaker
        self._files = files
        self._on_change = on_change
        self.credits = Credits(math.inf if settings.max_credits is None else settings.max_credits)
        self.recovery = None if journal is None else Recovery(self.read, journal)
        self.doubt_after = _DOUBT_AFTER if settings.timeout is None else settings.timeout
        self.stopping = False
        self.leaving = False
        self._clock = asyncio.get_running_loop().time
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        least, most = _POST_DEADLINE
        self._post_options = CallOptions(
            timeout=ATTEMPT_TIMEOUT,
            deadline=min(most, max(least, settings.max_wait)),
            max_retries=_POST_RETRIES,
            max_wait=settings.max_wait,
            not_retried=(ConcurrencyLimitError,),
        )

    async def complete(self, row: Row) -> Outcome:
        """Take a row to its outcome.

        Args:
            row: The row, with a slot unless its swap has finished.

        Raises:
            RunStopped: Every row would meet this; this one stays open.
            JournalError: The journal cannot be written.
            OSError: The result cannot be saved.
        """
        row.swap = row.entry.swap
        row.may_exist = row.entry.state == State.INTENDED and row.entry.sent_at is not None
        row.was_resumed = row.may_exist
        try:
            if row.slot is None and needs_files(row.entry):
                await self._prepare(row)
            async with row.shared or nullcontext():
                return await self._complete(row)
        except JournalError:
            raise
        except AIFaceSwapError as error:
            return await self._fail(row, error)
        except (RunStopped, OSError):
            raise
        except Exception as error:
            wrapped = AIFaceSwapError(f"row {row.entry.row}: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            return await self._fail(row, wrapped)
        finally:
            if row.slot is not None:
                may_count = row.may_exist or row.entry.swap_id is not None
                (row.slot.doubt if may_count else row.slot.release)()
                row.slot = None

    async def take_slot(self, entry: JournalEntry) -> tuple[Slot, HeldSlot | None]:
        """Wait for a slot of this run, and then for one of those that all processes share."""
        slot = await self._slots.acquire()
        if self._shared is None:
            return slot, None
        return slot, await self._shared.acquire(entry.key)

    async def newest_swaps(self) -> SwapPage:
        """The newest swaps of the key; a list that fails is not insisted on."""
        call = list_swaps(MAX_PAGE_SIZE)
        return await self._within_limits(lambda: self._transport.send(call, _LIST, read_result))

    async def read(self, call: Call[T]) -> T:
        """Send a call that only reads, and wait for the service's limits."""
        return await self._within_limits(lambda: self._transport.send(call, READING, read_result))

    async def wait(self, swap: Swap | str) -> Swap:
        """Wait until a swap has finished."""
        return await self._within_limits(lambda: self._watcher.wait(swap, self._settings.timeout))

    async def _prepare(self, row: Row) -> None:
        """Publish the row's files, and only then take a slot."""
        try:
            row.entry = await self._files.publish(row.entry)
            row.slot, row.shared = await self.take_slot(row.entry)
        finally:
            self._files.ahead.release()
        row.began = row.sent = self._clock()
        self._on_change()

    async def _complete(self, row: Row) -> Outcome:
        if row.entry.state != State.AWAITING_DOWNLOAD:
            if row.entry.swap_id is None:
                try:
                    await self._create(row)
                finally:
                    if row.shared is not None:
                        row.shared.may_count = row.may_exist
            await self._finish(row)
        await self._save_result(row)
        row.update(state=State.DONE, seconds=self._clock() - row.began)
        await self._write(row.entry)
        return outcome_of(row.entry, row.swap)

    # --- the swap ---

    async def _create(self, row: Row) -> None:
        if row.may_exist and (is_forgotten(row.entry) or has_expired(row.entry)):
            await self._recover(row)
        if row.entry.swap_id is None:
            await self._create_within_credits(row)
        if self.leaving:
            raise RunStopped(None)

    async def _create_within_credits(self, row: Row) -> None:
        if not self.credits.is_limited:
            await self._post_until_accepted(row)
            return
        await self.credits.reserve(row, row.entry.swap_type)
        try:
            await self._post_until_accepted(row)
        finally:
            was_created = row.entry.swap_id is not None
            cost = row.entry.cost if was_created or row.may_exist else 0.0
            await self.credits.settle(row, cost)

    async def _post_until_accepted(self, row: Row) -> None:
        while row.entry.swap_id is None:
            async with self._breaker.turn():
                began = self._clock()
                if row.entry.sent_at is None:
                    await self._write_intention(row)
                try:
                    error = await self._post(row)
                finally:
                    row.is_in_flight = False
            if error is not None:
                await self._handle_refusal(row, error, began)

    async def _write_intention(self, row: Row) -> None:
        entry = row.entry = await self._files.publish(row.entry)
        body = marked(entry.body, entry.key) if self._settings.mark else entry.body
        row.update(state=State.INTENDED, sent_at=time.time(), body=body)
        await self._write(row.entry)

    async def _post(self, row: Row) -> AIFaceSwapError | None:
        """Send the POST once; the swap's id is written down before this returns."""
        call = post_swap(row.entry.body, row.entry.key, is_repeated=row.may_exist)
        options = attrs.evolve(self._post_options, on_attempt=row.set_in_flight)
        may_exist, row.may_exist = row.may_exist, True
        try:
            response = await self._transport.send(call, options, read_response)
        except AIFaceSwapError as error:
            row.may_exist = may_exist or error.may_have_succeeded
            row.update(attempts=row.entry.attempts + getattr(error, "attempts", 0))
            if not (may_exist or may_have_reached_the_api(error)):
                # It belongs to no key and no service yet: either can be corrected.
                row.update(sent_at=None)
                await self._write(row.entry)
            return error
        self._breaker.accepted()
        if row.slot is not None:
            row.slot.accepted()
            row.slot.doubt_in(self.doubt_after)
        row.update(attempts=row.entry.attempts + response.attempts)
        await self._take(row, response.value)
        return None

    async def _take(self, row: Row, swap: Swap) -> None:
        """Write down which swap is the row's; one that has finished is written down soon."""
        row.swap, row.may_exist = swap, False
        row.update(
            state=State.CREATED,
            swap_id=swap.id,
            cost=swap.credit_cost,
            swap_json=swap_json(swap),
        )
        if not swap.is_finished:
            await self._write(row.entry)
        self._watcher.record_seen(swap)
        if row.shared is not None:
            await row.shared.bind(swap.id)

    async def _recover(self, row: Row) -> None:
        """Look for the swap of a row whose key the service may have forgotten."""
        swap = None if self.recovery is None else await self.recovery.find(row.entry)
        if swap is None:
            row.may_exist = False
            row.update(sent_at=None)
            if has_expired(row.entry):  # it gets other URLs, and a key belongs to one body
                row.update(key=new_idempotency_key())
        else:
            self.credits.add(swap.credit_cost)
            await self._take(row, swap)

    async def _handle_refusal(self, row: Row, error: AIFaceSwapError, began: float) -> None:
        """Raise what ends the row or the run; return if the POST is to be sent again."""
        row.was_refused = True
        match verdict(error):
            case Verdict.NO_SLOT if row.slot is not None:
                await self._change_slot(row, row.slot, error, began)
            case Verdict.UNAVAILABLE:
                self._breaker.pause(error, began)
            case Verdict.WRONG_ADDRESS:
                self._breaker.stop_if_repeated(error, began)
            case Verdict.KEY_REJECTED:
                raise RunStopped(error)
            case Verdict.NO_CREDITS:
                await self._handle_no_credits(row, error)
            case Verdict.REJECTED:
                row.is_rejected = not row.may_exist
                raise error
            case _:
                self._breaker.pause_if_repeated(error, began)
                raise error
        if self.stopping:
            raise RunStopped(error)

    async def _handle_no_credits(self, row: Row, error: AIFaceSwapError) -> None:
        """Stop the run; return if the service only repeated what it once said to this key."""
        if row.was_resumed and row.may_exist and self.recovery is not None:
            row.was_resumed = False
            await asyncio.sleep((row.entry.sent_at or 0.0) + LIST_LAG - time.time())
            with suppress(UnresolvedRowError):
                await self._recover(row)
                if row.entry.swap_id is None:
                    row.update(key=new_idempotency_key())
                return
        if not row.may_exist:
            row.update(state=State.NO_CREDITS, error_json=error_json(error))
            await self._write(row.entry)
        raise RunStopped(error)

    async def _change_slot(
        self, row: Row, slot: Slot, error: AIFaceSwapError, began: float
    ) -> None:
        """Give up a slot that others hold, and wait for another one."""
        retry_after = getattr(error, "retry_after", None) or 0.0
        # While other swaps of this run are in progress it does not stand still.
        left = math.inf if self._slots.held > 1 else self._breaker.time_left(began)
        if left <= 0:
            raise RunStopped(error)
        slot.refused(retry_after, at_most=left)
        row.slot = None
        row.slot = await self._slots.acquire(first=True)

    async def _finish(self, row: Row) -> None:
        """Wait for the row's swap, and give its slot back when it has finished."""
        swap = row.swap
        if swap is None or not swap.is_finished:
            swap = row.swap = await self._wait_out_troubles(row)
        self._breaker.progressed()
        if row.slot is not None:
            row.slot.release()
            row.slot = None
            self._on_change()
        if swap.has_failed:
            raise SwapFailedError.of(swap)
        row.update(state=State.AWAITING_DOWNLOAD, swap_json=swap_json(swap))

    async def _wait_out_troubles(self, row: Row) -> Swap:
        """Wait for a row's swap; a poll that failed proves nothing, and is repeated for a while."""
        since = math.inf
        while True:
            began = self._clock()
            try:
                return await self.wait(row.swap or row.entry.swap_id or "")
            except WaitTimeoutError:
                raise
            except AIFaceSwapError:
                failed = self._clock()
                since = min(since, failed) if failed - began < _POLL_TROUBLE else failed
                if failed - since >= _POLL_TROUBLE:
                    raise
            await asyncio.sleep(_POLL_PAUSE)

    # --- the result ---

    async def _save_result(self, row: Row) -> None:
        folder = self._settings.download_to
        if folder is None:
            return
        await self._write(row.entry)

        async def get(swap_id: str) -> Swap:
            row.swap = await self.read(get_swap(swap_id))
            row.update(swap_json=swap_json(row.swap))
            return row.swap

        swap = row.swap or await get(row.entry.swap_id or "")
        stem = folder / _file_stem(row.entry.number, swap.id)
        async with self._downloads:
            path = await save_result(
                self._transport, swap, stem, READING, get, max_bytes=MAX_DOWNLOAD, add_suffix=True
            )
        row.update(path=os.fsencode(path))

    # --- the end ---

    async def _fail(self, row: Row, error: AIFaceSwapError) -> Outcome:
        """Write down a failure that is final; any other leaves the row open for the next run."""
        if row.entry.state == State.NEW:
            return Outcome(row=row.entry.row, error=error)
        error.idempotency_key = row.entry.key
        if isinstance(error, WaitTimeoutError):
            row.swap = error.swap or row.swap
        row.update(seconds=self._clock() - row.began)
        if row.is_rejected or isinstance(error, SwapFailedError):
            json = None if row.swap is None else swap_json(row.swap)
            row.update(state=State.FAILED, swap_json=json, error_json=error_json(error))
            await self._write(row.entry)
        return outcome_of(row.entry, row.swap, error)

    async def _within_limits(self, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await attempt()
            except AuthenticationError as error:
                raise RunStopped(error) from error
            except RateLimitError as error:
                wait = error.retry_after
                if wait is None or wait > self._settings.max_wait:
                    raise RunStopped(error) from error
            await asyncio.sleep(wait)

    async def _write(self, entry: JournalEntry) -> None:
        if self._journal is not None:
            await self._journal.write(entry)


def _file_stem(row: int, swap_id: str) -> str:
    """A name that is this row's alone and stays in its folder, whatever the service sends."""
    safe_id = re.sub(r"[^A-Za-z0-9_-]", "_", swap_id)[:80]
    return f"{row:06d}-{safe_id}"
