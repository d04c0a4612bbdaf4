"""Shared waits: one poll for all swaps that a client waits for, and deliveries that need none.

Polls run in tasks that live no longer than the waits they serve. Each wait reports to its own
callback in its own task: what goes wrong with one swap, page or callback concerns that wait alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import attrs

from aifaceswap._api.requests import Call, get_swap, list_swaps
from aifaceswap._api.responses import read_result
from aifaceswap._http.attempts import CallOptions
from aifaceswap._http.retry import is_retryable
from aifaceswap._http.transport import Transport
from aifaceswap._limits import MAX_PAGE_SIZE
from aifaceswap._polling.deliveries import DeliveryTracker
from aifaceswap._polling.schedule import PolledSwap, PollSchedule
from aifaceswap._polling.wait import Wait, has_surely_finished
from aifaceswap.errors import (
    AIFaceSwapError,
    APIStatusError,
    AuthenticationError,
    DailyLimitError,
    NotFoundError,
    RateLimitError,
)
from aifaceswap.models import Swap

T = TypeVar("T")
OnUpdate = Callable[[Swap], object]

# Seconds between two polls: at least, and at most.
SHORTEST_INTERVAL = 1.0
LONGEST_INTERVAL = 15.0
_POLLS_PER_SWAP = 5
# Seconds that one poll may take, and that it may wait for the rate limiter.
_POLL_TIMEOUT = 10.0
_POLL_MAX_WAIT = 60.0
# GETs of single swaps at once, for those that the list does not show.
_SINGLE_POLLS = 10
# A list without a response for so long does not hold up single polls.
_LIST_PATIENCE = 3.0
# A list that fails is tried again after so long, then after twice as long each time.
_LIST_RETRY = 5.0
_LIST_RETRY_AT_MOST = 300.0
_CREATED_REMEMBERED = 1000
# A swap that is known to exist can be missing from a replica for so long.
_REPLICA_LAG = 30.0
# Where deliveries are reliable, one is overdue so long after most swaps have finished, or after
# so long while no duration is known.
_OVERDUE = 2.0
_FIRST_OVERDUE = 45.0
# A wait is polled again this long before its timeout.
_LAST_POLL = 1.0


class Watcher:
    """Ends waits on any number of event loops, by polls and by webhook deliveries."""

    def __init__(self, transport: Transport, options: CallOptions) -> None:
        self._transport = transport
        self._options = attrs.evolve(
            options,
            timeout=min(_POLL_TIMEOUT, options.timeout),
            deadline=_POLL_TIMEOUT,
            max_retries=min(1, options.max_retries),
            max_wait=_POLL_MAX_WAIT,
        )
        self._deliveries = DeliveryTracker()
        self._created: OrderedDict[str, float] = OrderedDict()
        self._pollers: dict[asyncio.AbstractEventLoop, _Poller] = {}

    async def wait(
        self, swap: Swap | str, timeout: float | None, on_update: OnUpdate | None = None
    ) -> Swap:
        """Wait until a swap has finished, well or not.

        Raises `WaitTimeoutError` after `timeout` seconds, what `on_update` raises, and errors
        that a later poll would meet again.
        """
        if isinstance(swap, Swap) and has_surely_finished(swap):
            return swap
        swap_id = swap.id if isinstance(swap, Swap) else swap
        delivered = self._deliveries.final_swap(swap_id)
        if delivered is not None and has_surely_finished(delivered):
            self._deliveries.record_awaited(swap_id)
            return delivered
        return await self._poller().wait(swap, timeout, on_update)

    def record_created(self, swap_id: str) -> None:
        """A swap was created a moment ago: it may be missing from a replica."""
        self._created[swap_id] = asyncio.get_running_loop().time()
        if len(self._created) > _CREATED_REMEMBERED:
            self._created.popitem(last=False)

    def deliver(self, swap: Swap) -> None:
        """Report to all waits, from any thread, how a webhook delivery describes a swap."""
        if swap.is_finished:
            self._deliveries.record_delivered(swap)
        for loop, poller in list(self._pollers.items()):
            with contextlib.suppress(RuntimeError):  # it may close at any moment
                loop.call_soon_threadsafe(poller.deliver, swap)

    def expect_deliveries(self) -> None:
        """Rely on deliveries from now on, until one is missed."""
        self._deliveries.expect()

    def _poller(self) -> _Poller:
        loop = asyncio.get_running_loop()
        poller = self._pollers.get(loop)
        if poller is None:
            for closed in [one for one in list(self._pollers) if one.is_closed()]:
                self._pollers.pop(closed, None)
            poller = self._pollers[loop] = _Poller(
                self._transport, self._options, self._deliveries, self._created
            )
        return poller


class _Poller:
    """The waits of one event loop, and the polls that they share."""

    def __init__(
        self,
        transport: Transport,
        options: CallOptions,
        deliveries: DeliveryTracker,
        created: Mapping[str, float],
    ) -> None:
        self._transport = transport
        self._options = options
        self._deliveries = deliveries
        self._created = created
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._schedule = PollSchedule()
        self._waits: dict[str, list[Wait]] = {}
        self._singles: dict[str, asyncio.Task[None]] = {}
        self._list: asyncio.Task[None] | None = None
        self._list_failures = 0
        self._list_off_until = self._last_poll = self._paused_until = float("-inf")
        self._day_is_over: DailyLimitError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_planning = False

    async def wait(
        self, swap: Swap | str, timeout: float | None, on_update: OnUpdate | None
    ) -> Swap:
        swap_id, seen = (swap.id, swap) if isinstance(swap, Swap) else (swap, None)
        wait = Wait(swap_id, self._clock(), timeout, seen, on_update)
        self._waits.setdefault(swap_id, []).append(wait)
        self._plan_soon()
        try:
            return await wait.follow()
        finally:
            self._remove(wait)
            if not self._waits and self._loop.is_running():
                await self._end_polls()

    def deliver(self, swap: Swap) -> None:
        """A delivery has reported how a swap is."""
        self._see(swap, delivered=True)
        self._plan_soon()

    def _remove(self, wait: Wait) -> None:
        waits = self._waits[wait.swap_id]
        waits.remove(wait)
        if not waits:
            del self._waits[wait.swap_id]
            self._cancel_single(wait.swap_id)
        if not self._loop.is_closed():
            self._plan_soon()

    async def _end_polls(self) -> None:
        """See the polls in flight end: none outlives the last wait."""
        polls = [*self._singles.values(), *([self._list] if self._list else [])]
        for poll in polls:
            poll.cancel()
        if polls:
            await asyncio.wait(polls, timeout=1.0)

    # --- when to poll ---------------------------------------------------------------------------

    def _plan_soon(self) -> None:
        """Plan the next poll, once for all that changes in this turn of the loop."""
        if not self._is_planning:
            self._is_planning = True
            self._loop.call_soon(self._plan)

    def _plan(self) -> None:
        self._is_planning = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._day_is_over is not None and self._clock() < self._paused_until:
            self._end_unhooked(self._day_is_over)
        when = self._next_poll()
        if when is not None:
            self._timer = self._loop.call_at(when, self._poll)

    def _next_poll(self) -> float | None:
        """When the next poll is due; None while all waits have one in flight."""
        waits = [wait for wait in self._open_waits() if wait.swap_id not in self._singles]
        if not waits or len(self._singles) >= _SINGLE_POLLS:
            return None
        relying = self._relying(waits)
        due = [self._last_chance(wait) for wait in waits]
        due += [self._overdue_at(wait) for wait in relying]
        if len(relying) < len(waits):
            due.append(self._regular_poll([wait for wait in waits if wait not in relying]))
        return max(min(due), self._earliest_poll())

    def _earliest_poll(self) -> float:
        """The earliest next poll: later after a 429, and while the list may still respond."""
        if self._list is None or self._list_failures:
            return self._paused_until
        return max(self._paused_until, self._last_poll + _LIST_PATIENCE)

    def _regular_poll(self, waits: list[Wait]) -> float:
        """When waits that do not rely on deliveries are polled."""
        if any(wait.last_seen is None and wait.polled_at is None for wait in waits):
            return self._last_poll + SHORTEST_INTERVAL
        first = min(wait.since for wait in waits) + SHORTEST_INTERVAL
        return max(first, self._last_poll + self._interval(waits))

    def _last_chance(self, wait: Wait) -> float:
        """When a wait is polled before it gives up, unless it was polled just before."""
        when = wait.deadline - min(_LAST_POLL, (wait.deadline - wait.since) / 2)
        was_polled = wait.polled_at is not None and wait.polled_at >= when - SHORTEST_INTERVAL
        return float("inf") if was_polled else when

    def _relying(self, waits: Iterable[Wait]) -> set[Wait]:
        """The waits that a delivery will most likely end, and is not overdue for."""
        if not self._deliveries.are_reliable:
            return set()
        now = self._clock()
        return {w for w in waits if w.can_rely_on_delivery and now < self._overdue_at(w)}

    def _overdue_at(self, wait: Wait) -> float:
        """When a delivery is overdue: after most swaps have finished, then at twice the age."""
        typical = self._schedule.long_duration
        patience = typical + _OVERDUE if typical else _FIRST_OVERDUE
        return wait.unfinished_at + max(patience, wait.unfinished_at - wait.since)

    def _interval(self, waits: list[Wait]) -> float:
        """Seconds from the last poll to the next."""
        scarcity = self._scarcity()
        youngest = self._clock() - max(wait.since for wait in waits)
        longest = max(self._schedule.typical_duration, youngest) / _POLLS_PER_SWAP * scarcity
        longest = min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, longest))
        if len(waits) > MAX_PAGE_SIZE:
            return longest
        last = self._last_poll
        swaps = [
            PolledSwap(wait.since - last, None if wait.forecast is None else wait.forecast - last)
            for wait in waits
        ]
        return self._schedule.next_poll_in(swaps, SHORTEST_INTERVAL, longest, scarcity)

    def _scarcity(self) -> float:
        """1 where requests are plenty, up to 5 where none are left."""
        limits = self._transport.rate_limit
        if limits is None or limits.limit <= 0:
            return 1.0
        return 1.0 / min(1.0, max(0.2, 2 * limits.remaining / limits.limit))

    # --- polling --------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Poll every wait that does not rely on a delivery, or is about to give up."""
        self._last_poll = now = self._clock()
        waits = [wait for wait in self._open_waits() if wait.swap_id not in self._singles]
        relying = self._relying(waits)
        due = [w for w in waits if w not in relying or self._last_chance(w) <= now]
        for wait in due:
            wait.polled_at = now
        ids = list(dict.fromkeys(wait.swap_id for wait in due))
        can_list = len(ids) > 1 and self._list is None and now >= self._list_off_until
        if can_list:
            self._list = self._spawn(self._poll_list(ids), ids[0])
        if not can_list or self._list_failures:
            self._poll_each(ids)
        self._plan_soon()

    def _poll_each(self, ids: Iterable[str]) -> None:
        """Poll single swaps, as many as may be polled at once."""
        for swap_id in [one for one in ids if one in self._waits and one not in self._singles]:
            if len(self._singles) >= _SINGLE_POLLS:
                break
            # Those that have to stand back come first the next time.
            self._waits[swap_id] = self._waits.pop(swap_id)
            self._singles[swap_id] = self._spawn(self._poll_single(swap_id), swap_id)

    def _spawn(self, poll: Coroutine[Any, Any, None], swap_id: str) -> asyncio.Task[None]:
        """Start a poll, in the context of one who waits for it."""
        context = self._waits[swap_id][0].context.copy()
        task = self._loop.create_task(poll, context=context)
        task.add_done_callback(self._poll_has_ended)
        return task

    def _poll_has_ended(self, task: asyncio.Task[None]) -> None:
        if task is self._list:
            self._list = None
        else:
            for swap_id in [one for one, poll in self._singles.items() if poll is task]:
                del self._singles[swap_id]
        if self._waits:
            self._plan_soon()

    def _cancel_single(self, swap_id: str) -> None:
        if (poll := self._singles.get(swap_id)) is not None:
            poll.cancel()

    async def _send(self, call: Call[T]) -> T:
        return await self._transport.send(call, self._options, read_result)

    async def _poll_single(self, swap_id: str) -> None:
        try:
            swap = await self._send(get_swap(swap_id, purpose="poll"))
        except AuthenticationError as error:
            self._fail(self._waits, error)
        except RateLimitError as error:
            self._pause([swap_id], error)
        except Exception as error:  # whatever it is, it concerns this swap alone
            is_final = not (_may_pass(error) or self._may_lag(swap_id, error))
            (self._fail if is_final else self._note)([swap_id], error)
        else:
            if swap.id == swap_id:
                self._see(swap)

    async def _poll_list(self, ids: list[str]) -> None:
        """Poll by pages of the list; what they do not show is polled singly."""
        missing = dict.fromkeys(ids)
        try:
            await self._read_pages(missing)
        except AuthenticationError as error:
            self._fail(self._waits, error)
            return
        except RateLimitError as error:
            self._pause(missing, error)
            if error.attempts:
                self._turn_list_off(after=2)
            return
        except Exception as error:  # parts of the list's form are not documented: do without it
            self._note(missing, error)
            self._turn_list_off()
        else:
            self._list_failures = 0
        self._poll_each(missing)

    async def _read_pages(self, missing: dict[str, None]) -> None:
        """Read pages for as long as they show swaps that are waited for."""
        cursor: str | None = None
        seen: set[str | None] = set()
        while len(missing) > 1 and cursor not in seen:
            seen.add(cursor)
            page = await self._send(list_swaps(MAX_PAGE_SIZE, cursor, purpose="poll"))
            found = [swap for swap in page if swap.id in missing]
            for swap in page:
                missing.pop(swap.id, None)
                self._cancel_single(swap.id)
                self._see(swap)
            cursor = page.next_cursor
            if not cursor or not found:
                break

    def _turn_list_off(self, *, after: int = 1) -> None:
        """Do without the list for a while, longer each time that it fails."""
        self._list_failures += 1
        if self._list_failures >= after:
            seconds = _LIST_RETRY * 2.0 ** min(self._list_failures - after, 10)
            self._list_off_until = self._clock() + min(_LIST_RETRY_AT_MOST, seconds)

    # --- what polls and deliveries show ---------------------------------------------------------

    def _see(self, swap: Swap, *, delivered: bool = False) -> None:
        now = self._clock()
        for wait in self._waits.get(swap.id, ()):
            if wait.has_ended:
                continue
            was_seen, unfinished_at = wait.last_seen is not None, wait.unfinished_at
            has_webhook = wait.has_webhook or swap.webhook_url is not None
            wait.see(swap, now, delivered=delivered)
            if wait.has_ended:
                if has_webhook:
                    self._deliveries.record_awaited(swap.id)
                if was_seen:
                    self._learn(wait, now if delivered else unfinished_at, now)

    def _learn(self, wait: Wait, earliest: float, latest: float) -> None:
        """A swap has finished between these moments; far apart they say too little."""
        if latest - earliest > max(SHORTEST_INTERVAL, (latest - wait.since) / 2):
            return
        self._schedule.record_duration((earliest + latest) / 2 - wait.since)
        if wait.forecast is not None:
            self._schedule.record_forecast(wait.forecast, wait.forecast_at, earliest, latest)

    def _may_lag(self, swap_id: str, error: Exception) -> bool:
        """Whether a swap that is not found was known to exist a moment ago."""
        if not isinstance(error, NotFoundError):
            return False
        waits = self._waits.get(swap_id, ())
        known = [wait.unfinished_at for wait in waits if wait.last_seen is not None]
        known.append(self._created.get(swap_id, float("-inf")))
        return self._clock() - max(known) < _REPLICA_LAG

    def _pause(self, ids: Iterable[str], error: RateLimitError) -> None:
        """Poll nothing for as long as a 429 asks; to ask our own rate limiter again is free."""
        seconds = SHORTEST_INTERVAL if error.retry_after is None else error.retry_after
        if not error.attempts:
            seconds = min(seconds, LONGEST_INTERVAL)
        self._paused_until = self._clock() + max(seconds, SHORTEST_INTERVAL)
        self._day_is_over = error if isinstance(error, DailyLimitError) else None
        self._note(ids, error)

    def _end_unhooked(self, error: DailyLimitError) -> None:
        """No poll can end these waits today, and no delivery can either."""
        for wait in self._open_waits():
            if not wait.has_webhook:
                wait.fail(error)

    def _note(self, ids: Iterable[str], error: Exception) -> None:
        """Remember why a poll failed, for the error of a wait that times out."""
        for swap_id in ids:
            for wait in self._waits.get(swap_id, ()):
                wait.trouble = error

    def _fail(self, ids: Iterable[str], error: Exception) -> None:
        for swap_id in ids:
            for wait in self._waits.get(swap_id, ()):
                wait.fail(error)

    def _open_waits(self) -> list[Wait]:
        return [wait for waits in self._waits.values() for wait in waits if not wait.has_ended]


def _may_pass(error: Exception) -> bool:
    """Whether the next poll may well succeed; pages of a proxy say nothing of the swap."""
    if not isinstance(error, AIFaceSwapError):
        return False
    is_page = isinstance(error, APIStatusError) and error.code is None and error.status in _PAGES
    return is_page or is_retryable(error)


_PAGES = frozenset({301, 302, 303, 307, 308, 403})
