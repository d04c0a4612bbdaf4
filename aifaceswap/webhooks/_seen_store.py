"""Remembers which deliveries were handled, so that each is handled once."""

from __future__ import annotations

import time
from typing import Literal, Protocol, TypeAlias

from aifaceswap import _validation

Claim: TypeAlias = Literal["new", "busy", "done"]
"""What a `SeenStore` says of a delivery: new, being handled just now, or handled."""


class SeenStore(Protocol):
    """Remembers deliveries, so that one that comes twice is handled once.

    One of your own, in a database that several processes share, needs these three methods.
    What they raise is logged and answered with 500: the delivery comes again.
    """

    async def claim(self, delivery: str) -> Claim:
        """Ask whether a delivery is to be handled, and if so reserve it, in one atomic step.

        A claim that was neither committed nor released must expire: its process has died.

        Args:
            delivery: The delivery's name, e.g. ``"swap.completed:tsk_1"``.

        Returns:
            ``"new"``: it was not known, and is the caller's now. ``"busy"``: another has
            claimed it. ``"done"``: it was committed.
        """
        ...

    async def commit(self, delivery: str) -> None:
        """Note that a claimed delivery has been handled.

        Args:
            delivery: Its name.
        """

    async def release(self, delivery: str) -> None:
        """Give a claim back: handling failed, the delivery is to come again.

        Args:
            delivery: Its name.
        """


class MemorySeen:
    """A `SeenStore` in the memory of this process, which forgets.

    Args:
        max_deliveries: How many handled deliveries are remembered, the newest ones; from 1 up.
        ttl: Seconds that each is remembered; above 0.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(self, *, max_deliveries: int = 10_000, ttl: float = 86_400.0) -> None:
        self._max = _validation.positive_integer("max_deliveries", max_deliveries)
        self._ttl = _validation.seconds("ttl", ttl)
        self._claimed: set[str] = set()
        # When each is to be forgotten; in this order.
        self._done: dict[str, float] = {}

    def __len__(self) -> int:
        """How many deliveries are remembered or being handled."""
        return len(self._claimed) + len(self._done)

    async def claim(self, delivery: str) -> Claim:
        """Reserve a delivery; see `SeenStore.claim`."""
        self._forget(time.monotonic())
        if delivery in self._done:
            return "done"
        if delivery in self._claimed:
            return "busy"
        self._claimed.add(delivery)
        return "new"

    async def commit(self, delivery: str) -> None:
        """Note that it has been handled; see `SeenStore.commit`."""
        self._claimed.discard(delivery)
        self._done[delivery] = time.monotonic() + self._ttl
        if len(self._done) > self._max:
            del self._done[next(iter(self._done))]

    async def release(self, delivery: str) -> None:
        """Give a claim back; see `SeenStore.release`."""
        self._claimed.discard(delivery)

    def _forget(self, now: float) -> None:
        while self._done and self._done[oldest := next(iter(self._done))] <= now:
            del self._done[oldest]
