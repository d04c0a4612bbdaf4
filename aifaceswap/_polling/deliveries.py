"""What webhook deliveries have told, and whether waits may rely on more of them."""

from __future__ import annotations

from aifaceswap.models import Swap

# Deliveries that came before their waits began: a swap may end before its creation answers.
_REMEMBERED = 1000
_NEWEST = 0.3
_RELIABLE = 0.8


class DeliveryTracker:
    """The swaps that deliveries have ended, and the share of deliveries that come."""

    def __init__(self) -> None:
        self._ended: dict[str, Swap] = {}
        self._missed: set[str] = set()
        self._share = 0.0

    @property
    def is_reliable(self) -> bool:
        """Whether the next swap's end will most likely be delivered."""
        return self._share > _RELIABLE

    def expect(self) -> None:
        """Rely on deliveries before the first one has come."""
        self._share = 1.0

    def record_delivered(self, swap: Swap) -> None:
        """A delivery has told that a swap has ended."""
        if swap.id in self._missed:  # it was only late
            self._missed.discard(swap.id)
            self._share = min(1.0, self._share / (1.0 - _NEWEST))
        if swap.id not in self._ended:
            self._share += _NEWEST * (1.0 - self._share)
        self._ended[swap.id] = swap
        while len(self._ended) > _REMEMBERED:
            self._ended.pop(next(iter(self._ended)), None)

    def record_missed(self, swap_id: str) -> None:
        """A swap had ended and no delivery had told it."""
        if len(self._missed) >= _REMEMBERED:
            self._missed.clear()
        self._missed.add(swap_id)
        self._share *= 1.0 - _NEWEST

    def final_swap(self, swap_id: str) -> Swap | None:
        """The swap as a delivery told its end, or None."""
        return self._ended.get(swap_id)
