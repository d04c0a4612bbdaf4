"""What webhook deliveries have reported, and whether waits can rely on them."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict

from aifaceswap.models import Swap

# Deliveries that arrived before their waits: a swap can finish before its creation responds.
_REMEMBERED = 1000
# With four workers behind one port, this many in a row come by chance once in 65,000 times.
_ENOUGH = 8


class DeliveryTracker:
    """The swaps that deliveries have reported as finished, for any thread.

    Deliveries are reliable for this process when those of the last swaps that it waited for
    itself have all arrived here. With several workers behind one port they do not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: OrderedDict[str, Swap] = OrderedDict()
        self._delivered: set[str] = set()
        # The last swaps that were waited for here, and whether their deliveries have arrived.
        self._own: OrderedDict[str, bool] = OrderedDict()

    @property
    def are_reliable(self) -> bool:
        """Whether the next swap's end will most likely be delivered to this process."""
        with self._lock:
            return len(self._own) == _ENOUGH and all(self._own.values())

    def expect(self) -> None:
        """Rely on deliveries until one is missed."""
        with self._lock:
            self._own = OrderedDict((f"expected {n}", True) for n in range(_ENOUGH))

    def record_delivered(self, swap: Swap) -> None:
        """A delivery has reported how a swap finished, perhaps after a poll did."""
        self.record_finished(swap)
        with self._lock:
            self._delivered.add(swap.id)
            if swap.id in self._own:
                self._own[swap.id] = True

    def record_finished(self, swap: Swap) -> None:
        """Another process has seen how a swap finished."""
        with self._lock:
            self._finished[swap.id] = swap
            self._finished.move_to_end(swap.id)
            if len(self._finished) > _REMEMBERED:
                self._delivered.discard(self._finished.popitem(last=False)[0])

    def record_awaited(self, swap_id: str) -> None:
        """A swap with a webhook that was waited for here has finished."""
        with self._lock:
            self._own.setdefault(swap_id, swap_id in self._delivered)
            for oldest in list(itertools.islice(self._own, max(0, len(self._own) - _ENOUGH))):
                del self._own[oldest]

    def final_swap(self, swap_id: str) -> Swap | None:
        """The finished swap as a delivery or another process reported it, or None."""
        return self._finished.get(swap_id)
