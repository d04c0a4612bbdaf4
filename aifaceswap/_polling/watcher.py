"""One shared answer to "has it ended yet?" for every wait of a client.

Whoever waits may have to look for all: the first wait leads, looks at the newest swaps with one
list call, and hands over to another wait when its own swap has ended. So no background task
outlives a wait, and a hundred waits cost no more requests than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator

import anyio
import attrs

from aifaceswap._api.requests import get_swap, list_swaps
from aifaceswap._api.responses import read_answer
from aifaceswap._http.retry import is_retryable
from aifaceswap._http.transport import CallOptions, Transport
from aifaceswap._limits import MAX_PAGE_SIZE
from aifaceswap._polling.deliveries import DeliveryTracker
from aifaceswap._polling.schedule import PollSchedule, Watched
from aifaceswap.errors import (
    AIFaceSwapError,
    APIResponseError,
    BadRequestError,
    NotFoundError,
    WaitTimeoutError,
)
from aifaceswap.models import Swap

SHORTEST_INTERVAL = 1.0
LONGEST_INTERVAL = 15.0
_LOOKS_PER_SWAP = 5
# Single looks at swaps that the list did not show, in one round.
_SINGLE_LOOKS = 10
# Where deliveries are reliable, a swap is looked at after so many typical durations without
# one, or after so many seconds while no duration is known.
_OVERDUE = 2.0
_SHORTEST_PATIENCE = 5.0
_FIRST_PATIENCE = 45.0


class Watcher:
    """Ends waits: by looking, and by what webhook deliveries say.

    Args:
        transport: What sends the looks.
        options: How patient one look is; it is tried again at the next round anyway.
    """

    def __init__(self, transport: Transport, options: CallOptions) -> None:
        self._transport = transport
        self._options = attrs.evolve(options, max_retries=min(1, options.max_retries))
        self._told = DeliveryTracker()
        self._rounds: dict[asyncio.AbstractEventLoop, _Rounds] = {}

    async def wait(
        self,
        swap: Swap | str,
        timeout: float | None,
        on_update: Callable[[Swap], object] | None = None,
    ) -> Swap:
        """Wait until a swap has ended.

        Args:
            swap: The swap, or its id.
            timeout: Seconds to wait at most; None: for ever.
            on_update: Called with the swap each time it has been looked at.

        Returns:
            The swap as it ended, well or not.

        Raises:
            WaitTimeoutError: It had not ended in time.
            AIFaceSwapError: Looking failed in a way that will not pass.
        """
        if isinstance(swap, Swap) and swap.is_finished:
            return swap
        rounds = self._own_rounds()
        told = self._told.final_swap(swap.id if isinstance(swap, Swap) else swap)
        return told or await rounds.wait(swap, timeout, on_update)

    def saw(self, swap: Swap) -> None:
        """Tell all waits, on whatever loop, what has become of a swap.

        Args:
            swap: The swap as a webhook delivery describes it.
        """
        if swap.is_finished:
            self._told.record_delivered(swap)
        for loop, rounds in list(self._rounds.items()):
            with contextlib.suppress(RuntimeError):  # it may close at any moment
                loop.call_soon_threadsafe(rounds.was_told, swap)

    def expect_deliveries(self) -> None:
        """Rely on deliveries from now on, until one is missed."""
        self._told.expect()

    def _own_rounds(self) -> _Rounds:
        loop = asyncio.get_running_loop()
        if loop not in self._rounds:
            for ended in [loop for loop in self._rounds if loop.is_closed()]:
                del self._rounds[ended]
            self._rounds[loop] = _Rounds(self._transport, self._options, self._told)
        return self._rounds[loop]


@attrs.define(eq=False)
class _Wait:
    """One wait for one swap."""

    swap_id: str
    since: float
    seen: Swap | None
    on_update: Callable[[Swap], object] | None
    looked: bool = False
    # When it was last seen unfinished, or began.
    heard: float = attrs.field(default=attrs.Factory(lambda self: self.since, takes_self=True))
    # When it will end by its progress, and when that was foreseen.
    forecast: float | None = None
    foreseen_at: float = 0.0
    ended: Swap | AIFaceSwapError | None = None
    # Set when it has ended, when it is its turn to lead, and when another wait has begun.
    event: asyncio.Event = attrs.field(factory=asyncio.Event)

    def foresee(self, now: float) -> None:
        """Take the progress that was seen for a straight line."""
        progress = self.seen.progress if self.seen is not None else None
        if progress is not None and 0 < progress < 100:  # noqa: PLR2004 - per cent
            self.forecast = self.since + (now - self.since) * 100 / progress
            self.foreseen_at = now

    def end(self, how: Swap | AIFaceSwapError) -> None:
        self.ended = how
        self.event.set()


class _Rounds:
    """The waits of one event loop, and the looks that one of them makes for all."""

    def __init__(self, transport: Transport, options: CallOptions, told: DeliveryTracker) -> None:
        self._transport = transport
        self._options = options
        self._told = told
        self._clock = asyncio.get_running_loop().time
        self._waits: dict[str, list[_Wait]] = {}
        self._leader: _Wait | None = None
        self._look_scope: anyio.CancelScope | None = None
        self._last_look = float("-inf")
        self._durations = PollSchedule()
        self._trouble: AIFaceSwapError | None = None
        self._list_is_readable = True

    async def wait(
        self,
        swap: Swap | str,
        timeout: float | None,
        on_update: Callable[[Swap], object] | None = None,
    ) -> Swap:
        seen = swap if isinstance(swap, Swap) else None
        swap_id = swap.id if isinstance(swap, Swap) else swap
        wait = _Wait(swap_id, self._clock(), seen, on_update)
        self._waits.setdefault(swap_id, []).append(wait)
        if self._leader is not None:
            self._leader.event.set()
        try:
            async with asyncio.timeout(timeout):
                ended = await self._follow_or_lead(wait)
        except TimeoutError:
            raise self._timed_out(wait, timeout) from self._trouble
        finally:
            self._leave(wait)
        if isinstance(ended, AIFaceSwapError):
            raise ended
        return ended

    def was_told(self, swap: Swap) -> None:
        """A delivery has said what became of a swap."""
        self._saw(swap, told=True)
        if self._leader and self._leader.ended and self._look_scope:
            self._look_scope.cancel()

    async def _follow_or_lead(self, wait: _Wait) -> Swap | AIFaceSwapError:
        while wait.ended is None:
            if self._leader is None:
                self._leader = wait
            if self._leader is wait:
                await self._lead(wait)
            else:
                wait.event.clear()
                await wait.event.wait()
        return wait.ended

    async def _lead(self, wait: _Wait) -> None:
        """Look once, when it is due; or come back early, because something has changed."""
        delay = self._next_look() - self._clock()
        if delay > 0:
            wait.event.clear()
            with anyio.move_on_after(delay):
                await wait.event.wait()
            return
        self._last_look = self._clock()
        with anyio.CancelScope() as self._look_scope:
            await self._look()

    def _leave(self, wait: _Wait) -> None:
        waits = self._waits[wait.swap_id]
        waits.remove(wait)
        if not waits:
            del self._waits[wait.swap_id]
        if self._leader is wait:
            self._leader = None
        # Also where an heir leaves before its turn has come.
        heir = next(self._open_waits(), None)
        if self._leader is None and heir is not None:
            heir.event.set()

    def _timed_out(self, wait: _Wait, timeout: float | None) -> WaitTimeoutError:
        status = f"it was {wait.seen.status}" if wait.seen else "it was never seen"
        return WaitTimeoutError(
            f"{wait.swap_id} had not ended after {timeout:g} s ({status} when last looked at); "
            "it goes on at the service: wait for it again, without creating it anew",
            swap_id=wait.swap_id,
            swap=wait.seen,
        )

    # --- when to look ---

    def _next_look(self) -> float:
        """The moment at which the next look is due."""
        waits = list(self._impatient_waits())
        if not waits:
            return min(wait.heard for wait in self._open_waits()) + self._patience()
        if any(wait.seen is None and not wait.looked for wait in waits):
            return self._last_look + SHORTEST_INTERVAL
        first_look = min(wait.since for wait in waits) + SHORTEST_INTERVAL
        return max(first_look, self._last_look + self._interval(waits))

    def _impatient_waits(self) -> Iterator[_Wait]:
        """The waits that do not rely on a delivery, or have done so for too long."""
        if not self._told.is_reliable:
            return self._open_waits()
        latest = self._clock() - self._patience()
        return (w for w in self._open_waits() if w.heard <= latest or not self._is_relied_on(w))

    def _patience(self) -> float:
        """Seconds without news after which a delivery is overdue."""
        typical = self._durations.typical
        return max(_SHORTEST_PATIENCE, _OVERDUE * typical) if typical else _FIRST_PATIENCE

    def _is_relied_on(self, wait: _Wait) -> bool:
        """Whether a delivery is expected to end this wait; who shows progress wants looks."""
        has_webhook = wait.seen is not None and wait.seen.webhook_url is not None
        return has_webhook and wait.on_update is None and self._told.is_reliable

    def _interval(self, waits: list[_Wait]) -> float:
        """Seconds from the last look to the next."""
        scarcity = self._scarcity()
        youngest = self._clock() - max(wait.since for wait in waits)
        longest = max(self._durations.typical, youngest) / _LOOKS_PER_SWAP * scarcity
        longest = min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, longest))
        if len(waits) > MAX_PAGE_SIZE:
            return longest
        last = self._last_look
        watched = [
            Watched(wait.since - last, None if wait.forecast is None else wait.forecast - last)
            for wait in waits
        ]
        return self._durations.next_poll_in(watched, SHORTEST_INTERVAL, longest, scarcity)

    def _scarcity(self) -> float:
        """1 where requests are plenty, up to 5 where none are left."""
        limits = self._transport.rate_limit
        if limits is None or limits.limit <= 0:
            return 1.0
        return 1.0 / min(1.0, max(0.2, 2 * limits.remaining / limits.limit))

    # --- looking ---

    async def _look(self) -> None:
        """Look once at every swap that is waited for and has no delivery to wait for."""
        missing = list(dict.fromkeys(wait.swap_id for wait in self._impatient_waits()))
        try:
            if len(missing) > 1 and self._list_is_readable:
                missing = await self._look_at_pages(missing)
            await self._look_at_each(missing)
        except AIFaceSwapError as error:
            if not is_retryable(error):
                self._end_all(error)
            self._trouble = error
        else:
            self._trouble = None

    async def _look_at_pages(self, wanted: Iterable[str]) -> list[str]:
        """Look at pages of the list for as long as they show swaps that are waited for."""
        missing = dict.fromkeys(wanted)
        cursor: str | None = None
        while len(missing) > 1:
            call = list_swaps(MAX_PAGE_SIZE, cursor, purpose="poll")
            try:
                page = await self._transport.send(call, self._options, read_answer)
            except (APIResponseError, BadRequestError, NotFoundError) as error:
                # Parts of the list's form are not documented: do without it.
                self._list_is_readable = is_retryable(error)
                break
            found = [swap for swap in page if swap.id in missing]
            for swap in found:
                del missing[swap.id]
                self._saw(swap)
            cursor = page.next_cursor
            if cursor is None or not found:
                break
        return list(missing)

    async def _look_at_each(self, swap_ids: list[str]) -> None:
        for swap_id in swap_ids[:_SINGLE_LOOKS]:
            call = get_swap(swap_id, purpose="poll")
            try:
                self._saw(await self._transport.send(call, self._options, read_answer))
            except NotFoundError as error:
                self._end(swap_id, error)
            # Those that were not reached this time come first the next.
            if swap_id in self._waits:
                self._waits[swap_id] = self._waits.pop(swap_id)

    def _saw(self, swap: Swap, *, told: bool = False) -> None:
        for wait in self._waits.get(swap.id, ()):
            started_before = wait.seen is None
            was_missed = not told and self._is_relied_on(wait)
            wait.seen, wait.looked = swap, True
            if not swap.is_finished:
                wait.heard = self._clock()
                wait.foresee(wait.heard)
            if wait.on_update is not None:
                wait.on_update(swap)
            if swap.is_finished and wait.ended is None:
                wait.end(swap)
                if was_missed:
                    self._told.record_missed(swap.id)
                elif not started_before:
                    self._learn_from(wait, told=told)

    def _learn_from(self, wait: _Wait, *, told: bool) -> None:
        """It ended now, as a delivery told, or since it was last seen unfinished."""
        now = self._clock()
        unfinished = now if told else wait.heard
        self._durations.learn((now + unfinished) / 2 - wait.since)
        if wait.forecast is not None:
            self._durations.judge(wait.forecast, wait.forecast - wait.foreseen_at, unfinished, now)

    def _end(self, swap_id: str, error: AIFaceSwapError) -> None:
        for wait in self._waits.get(swap_id, ()):
            wait.end(copy.copy(error))

    def _end_all(self, error: AIFaceSwapError) -> None:
        for swap_id in self._waits:
            self._end(swap_id, error)

    def _open_waits(self) -> Iterator[_Wait]:
        return (wait for waits in self._waits.values() for wait in waits if wait.ended is None)
