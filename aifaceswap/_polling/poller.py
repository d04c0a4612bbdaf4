"""The polls of one event loop: when they are due, what they send, and what they show.

Polls run in tasks that live no longer than the waits they serve. Each wait reports to its own
callback in its own task: what goes wrong with one swap, page or callback concerns that wait alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from aifaceswap._api.requests import Call, get_swap, list_swaps
from aifaceswap._api.responses import read_result
from aifaceswap._http.attempts import CallOptions
from aifaceswap._http.transport import Transport
from aifaceswap._limits import MAX_PAGE_SIZE
from aifaceswap._polling.deliveries import DeliveryTracker
from aifaceswap._polling.schedule import ListHealth, OtherSwaps, PolledSwap, PollSchedule
from aifaceswap._polling.sharing import Publisher, SharedPolls
from aifaceswap._polling.wait import Wait, may_pass
from aifaceswap.coordination import Ends, SwapReport
from aifaceswap.errors import (
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
# GETs of single swaps at once, for those that the list does not show.
_SINGLE_POLLS = 10
# A list without a response for so long does not hold up single polls.
_LIST_PATIENCE = 3.0
# A swap that is known to exist can be missing from a replica for so long.
_REPLICA_LAG = 30.0
# Where deliveries are reliable, one is overdue so long after most swaps have finished, or after
# so long while no duration is known.
_OVERDUE = 2.0
_FIRST_OVERDUE = 45.0
# A wait is polled again this long before its timeout.
_LAST_POLL = 1.0
# Swaps of others that hold slots are polled if nobody has done so for so long, or for twice the
# time that swaps usually take.
_GUEST_INTERVAL = 5.0


class Poller:
    """The waits of one event loop, and the polls that they share."""

    def __init__(
        self,
        *,
        transport: Transport,
        options: CallOptions,
        deliveries: DeliveryTracker,
        created: Mapping[str, float],
        publisher: Publisher,
        ends: Ends | None,
    ) -> None:
        self._transport = transport
        self._options = options
        self._deliveries = deliveries
        self._created = created
        self._publisher = publisher
        self._shared = None if ends is None else SharedPolls(ends, self.receive)
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._schedule = PollSchedule()
        self._others = OtherSwaps(self._schedule)
        self._waits: dict[str, list[Wait]] = {}
        self._singles: dict[str, asyncio.Task[None]] = {}
        self._list: asyncio.Task[None] | None = None
        self._list_health = ListHealth()
        self._last_poll = self._paused_until = self._next_turn = float("-inf")
        self._day_is_over: DailyLimitError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_planning = False

    async def wait(
        self,
        swap: Swap | str,
        timeout: float | None,
        on_update: OnUpdate | None = None,
        *,
        is_guest: bool = False,
    ) -> Swap:
        swap_id, seen = (swap.id, swap) if isinstance(swap, Swap) else (swap, None)
        wait = Wait(swap_id, self._clock(), timeout, seen, on_update, is_guest=is_guest)
        self._waits.setdefault(swap_id, []).append(wait)
        if self._shared is not None:
            self._shared.start()
        self._plan_soon()
        try:
            return await wait.follow()
        finally:
            self._remove(wait)
            if not self._waits and self._loop.is_running():
                if self._shared is not None:
                    self._shared.stop()
                await self._end_polls()

    def deliver(self, swap: Swap) -> None:
        """A delivery has reported how a swap is."""
        self._see(swap, delivered=True)
        self._plan_soon()

    def receive(self, report: SwapReport, is_new: bool) -> None:
        """Another process has seen swaps; what is not new counts only if it has finished."""
        record = self._deliveries.record_finished
        if report.is_delivery:
            record = self._deliveries.record_delivered
        for swap in report.swaps:
            if swap.is_finished:
                record(swap)
            if swap.is_finished or is_new:
                self._see(swap, delivered=report.is_delivery)
        if report.list_age is not None and is_new:
            self._see_list(report.swaps, report.list_age)
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
        guests = [wait for wait in waits if wait.is_guest]
        if guests:
            due.append(self._guest_poll(guests))
        if len(relying) + len(guests) < len(waits):
            regular = [w for w in waits if w not in relying and not w.is_guest]
            due.append(self._regular_poll(regular))
        return max(min(due), self._earliest_poll())

    def _earliest_poll(self) -> float:
        """The earliest next poll: after a 429, another's turn, and what the list may take."""
        earliest = max(self._paused_until, self._next_turn)
        if self._list is None or self._list_health.failures:
            return earliest
        return max(earliest, self._last_poll + _LIST_PATIENCE)

    def _regular_poll(self, waits: list[Wait]) -> float:
        """When waits that do not rely on deliveries are polled."""
        if any(wait.last_seen is None and wait.polled_at is None for wait in waits):
            return self._last_poll + SHORTEST_INTERVAL
        first = min(wait.since for wait in waits) + SHORTEST_INTERVAL
        return max(first, self._last_poll + self._interval(waits))

    def _guest_poll(self, guests: list[Wait]) -> float:
        """When swaps that others most likely wait for are polled nevertheless."""
        patience = max(_GUEST_INTERVAL, 2 * self._schedule.typical_duration)
        since = max(self._last_poll, min(wait.since for wait in guests))
        return since + min(LONGEST_INTERVAL, patience)

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
        swaps += [PolledSwap(began - last, None) for began in self._others.began_at()]
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
        last_poll, self._last_poll = self._last_poll, self._clock()
        now = self._last_poll
        waits = [wait for wait in self._open_waits() if wait.swap_id not in self._singles]
        relying = self._relying(waits)
        due = [w for w in waits if w not in relying or self._last_chance(w) <= now]
        ids = list(dict.fromkeys(wait.swap_id for wait in due))
        if not ids:  # their waits have ended since this poll was planned
            self._last_poll = last_poll
            self._plan_soon()
            return
        can_list = self._list is None and now >= self._list_health.off_until
        if self._shared is not None and can_list:
            # One list serves all processes, also for one wait.
            self._list = self._spawn(self._poll_in_turn(self._shared, due, last_poll), ids[0])
        else:
            self._mark_polled(due, now)
            if len(ids) > 1 and can_list:
                self._list = self._spawn(self._poll_list(ids), ids[0])
            if len(ids) == 1 or not can_list or self._list_health.failures:
                self._poll_each(ids)
        self._plan_soon()

    def _mark_polled(self, waits: Iterable[Wait], now: float) -> None:
        self._last_poll = now
        for wait in waits:
            wait.polled_at = now

    async def _poll_in_turn(self, shared: SharedPolls, waits: list[Wait], last_poll: float) -> None:
        """Poll the list for all processes, or leave it to the one whose turn it is."""
        asked_at = self._last_poll
        async with shared.turn(SHORTEST_INTERVAL) as pause:
            if not pause:
                self._mark_polled(waits, self._clock())
                await self._poll_list([wait.swap_id for wait in waits])
            elif self._last_poll == asked_at:
                self._last_poll, self._next_turn = last_poll, self._clock() + pause

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
            is_final = not (may_pass(error) or self._may_lag(swap_id, error))
            (self._fail if is_final else self._note)([swap_id], error)
        else:
            if swap.id == swap_id:
                self._see(swap)
                self._publish(swap)

    async def _poll_list(self, ids: list[str]) -> None:
        """Poll by pages of the list; what they do not show is polled singly."""
        missing = dict.fromkeys(ids)
        began, swaps = self._clock(), list[Swap]()
        try:
            await self._read_pages(missing, swaps)
        except AuthenticationError as error:
            self._fail(self._waits, error)
            return
        except RateLimitError as error:
            self._pause(missing, error)
            if error.attempts:
                self._list_health.fail(self._clock(), after=2)
            return
        except Exception as error:  # parts of the list's form are not documented: do without it
            self._note(missing, error)
            self._list_health.fail(self._clock())
        else:
            self._list_health = ListHealth()
        self._poll_each(missing)
        if self._shared is not None and swaps:
            self._see_others(swaps)
            await self._shared.publish_list(swaps, self._clock() - began)
        else:
            self._publish(*swaps)

    async def _read_pages(self, missing: dict[str, None], swaps: list[Swap]) -> None:
        """Read pages for as long as they show swaps that are waited for."""
        cursor: str | None = None
        seen: set[str | None] = set()
        while cursor not in seen and (not seen or len(missing) > 1):
            seen.add(cursor)
            page = await self._send(list_swaps(MAX_PAGE_SIZE, cursor, purpose="poll"))
            swaps.extend(page)
            found = [swap for swap in page if swap.id in missing]
            for swap in page:
                missing.pop(swap.id, None)
                self._cancel_single(swap.id)
                self._see(swap)
            cursor = page.next_cursor
            if not cursor or not found:
                break

    # --- what polls and deliveries show ---------------------------------------------------------

    def _see(self, swap: Swap, *, delivered: bool = False) -> None:
        now = self._clock()
        if swap.is_finished:
            self._others.see_end(swap.id, now)
        for wait in self._waits.get(swap.id, ()):
            if wait.has_ended:
                continue
            was_seen, unfinished_at = wait.last_seen is not None, wait.unfinished_at
            has_webhook = wait.has_webhook or swap.webhook_url is not None
            wait.see(swap, now, delivered=delivered)
            if wait.has_ended:
                if has_webhook:
                    self._deliveries.record_awaited(swap.id)
                if was_seen and not wait.is_guest:
                    self._learn(wait, now if delivered else unfinished_at, now)

    def _see_list(self, swaps: Iterable[Swap], age: float) -> None:
        """Another process has polled the list; what it does not show is polled singly."""
        self._see_others(swaps)
        self._next_turn = float("-inf")
        shown = {swap.id for swap in swaps}
        waits = self._open_waits()
        relying = self._relying(waits)
        now = self._clock()
        polled = [wait for wait in waits if wait.since < now - age]
        self._mark_polled(polled, now)
        missing = [w.swap_id for w in polled if w.swap_id not in shown and w not in relying]
        self._poll_each(dict.fromkeys(missing))

    def _see_others(self, swaps: Iterable[Swap]) -> None:
        """A list has shown what other processes wait for."""
        unfinished = [swap.id for swap in swaps if not swap.is_finished]
        now = self._clock()
        self._others.see_list([one for one in unfinished if one not in self._waits], now)

    def _publish(self, *swaps: Swap) -> None:
        finished = [swap for swap in swaps if swap.is_finished]
        if finished:
            self._publisher.publish_soon(SwapReport(finished))

    def _learn(self, wait: Wait, earliest: float, latest: float) -> None:
        """A swap has finished between these moments; far apart they say too little."""
        is_known = self._schedule.record_end(wait.since, earliest, latest)
        if is_known and wait.forecast is not None:
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
