"""Shared waits: one poll for all swaps that a client waits for, and deliveries that need none."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict

import attrs

from aifaceswap._http.attempts import CallOptions
from aifaceswap._http.transport import Transport
from aifaceswap._polling.deliveries import DeliveryTracker
from aifaceswap._polling.poller import OnUpdate, Poller
from aifaceswap._polling.sharing import Publisher
from aifaceswap._polling.wait import has_surely_finished
from aifaceswap.coordination import Ends, SwapReport
from aifaceswap.models import Swap, SwapStatus

# Seconds that one poll may take, and that it may wait for the rate limiter.
_POLL_TIMEOUT = 10.0
_POLL_MAX_WAIT = 60.0
_CREATED_REMEMBERED = 1000


class Watcher:
    """Ends waits on any number of event loops, by polls and by webhook deliveries."""

    def __init__(
        self,
        transport: Transport,
        options: CallOptions,
        publisher: Publisher,
        ends: Ends | None = None,
    ) -> None:
        self._transport = transport
        self._options = attrs.evolve(
            options,
            timeout=min(_POLL_TIMEOUT, options.timeout),
            deadline=_POLL_TIMEOUT,
            max_retries=min(1, options.max_retries),
            max_wait=_POLL_MAX_WAIT,
        )
        self._publisher = publisher
        self._ends = ends
        self._deliveries = DeliveryTracker()
        self._created: OrderedDict[str, float] = OrderedDict()
        self._pollers: dict[asyncio.AbstractEventLoop, Poller] = {}

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
        seen = self._deliveries.final_swap(swap_id)
        if seen is not None and has_surely_finished(seen):
            if seen.webhook_url or (isinstance(swap, Swap) and swap.webhook_url):
                self._deliveries.record_awaited(swap_id)
            return seen
        return await self._poller().wait(swap, timeout, on_update)

    async def watch(self, swap_id: str) -> None:
        """Wait until a swap has finished that others most likely wait for, too."""
        unfinished = Swap(id=swap_id, status=SwapStatus.QUEUED)
        await self._poller().wait(unfinished, None, is_guest=True)

    def record_created(self, swap_id: str) -> None:
        """A swap was created a moment ago: it may be missing from a replica."""
        self._created[swap_id] = asyncio.get_running_loop().time()
        if len(self._created) > _CREATED_REMEMBERED:
            self._created.popitem(last=False)

    def record_seen(self, *swaps: Swap) -> None:
        """A call has shown swaps: the slots of those that have finished are free."""
        if finished := [swap for swap in swaps if swap.is_finished]:
            self._publisher.publish_soon(SwapReport(finished))

    def deliver(self, swap: Swap) -> None:
        """Report to all waits, from any thread, how a webhook delivery describes a swap."""
        if swap.is_finished:
            self._deliveries.record_delivered(swap)
        for loop, poller in list(self._pollers.items()):
            with contextlib.suppress(RuntimeError):  # it may close at any moment
                loop.call_soon_threadsafe(poller.deliver, swap)
        self._publisher.publish_soon(SwapReport([swap], is_delivery=True))

    def expect_deliveries(self) -> None:
        """Rely on deliveries from now on, until one is missed."""
        self._deliveries.expect()

    def _poller(self) -> Poller:
        loop = asyncio.get_running_loop()
        poller = self._pollers.get(loop)
        if poller is None:
            for closed in [one for one in list(self._pollers) if one.is_closed()]:
                self._pollers.pop(closed, None)
            poller = self._pollers[loop] = Poller(
                transport=self._transport,
                options=self._options,
                deliveries=self._deliveries,
                created=self._created,
                publisher=self._publisher,
                ends=self._ends,
            )
        return poller
