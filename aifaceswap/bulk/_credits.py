"""Keeps the credits that a run spends below its `max_credits`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from aifaceswap.bulk._breaker import RunStopped
from aifaceswap.errors import AIFaceSwapError


class Credits:
    """What was spent, what is reserved, and the price of each type as it was last seen.

    Of a type whose price is unknown one swap is created alone first.

    Args:
        most: The credits that may be spent; infinite: no limit.
    """

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self._spent = 0.0
        self._prices: dict[str, float] = {}
        # The prices of the swaps being created; None: unknown.
        self._reserved: dict[object, tuple[str, float | None]] = {}
        self._changed = asyncio.Condition()

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to watch over."""
        return self._most < math.inf

    def start(self, spent: float, prices: Mapping[str, float]) -> None:
        """Count what earlier runs have spent, and learn their prices."""
        self._spent += spent
        self._prices = {**self._prices, **prices}

    def learn(self, kind: str, cost: float | None) -> None:
        """Learn the price of a type, if none is known."""
        if cost is not None:
            self._prices.setdefault(kind, cost)

    def add(self, cost: float | None) -> None:
        """Count a swap of an earlier run whose cost was not known before."""
        self._spent += cost or 0.0

    async def reserve(self, row: object, kind: str) -> None:
        """Wait until the price of one more swap is sure not to pass the limit.

        Raises:
            RunStopped: It could.
        """
        async with self._changed:
            while not self._try_to_reserve(row, kind):
                await self._changed.wait()

    async def settle(self, row: object, cost: float | None) -> None:
        """Count what a swap has cost: 0 if none was created, None if the price is not known."""
        async with self._changed:
            kind, price = self._reserved.pop(row, ("", None))
            if cost:
                self._prices[kind] = cost
            self._spent += (price or 0.0) if cost is None else cost
            self._changed.notify_all()

    def _try_to_reserve(self, row: object, kind: str) -> bool:
        price = self._prices.get(kind)
        reserved = sum(price or 0.0 for _, price in self._reserved.values())
        fits = self._spent + reserved + (price or 0.0) <= self._most
        if price is None:
            fits = fits and self._spent + reserved < self._most
            fits = fits and (kind, None) not in self._reserved.values()
        if fits:
            self._reserved[row] = (kind, price)
        elif not self._reserved:
            raise self._spent_error(kind, price)
        return fits

    def _spent_error(self, kind: str, price: float | None) -> RunStopped:
        costs = "of unknown price" if price is None else f"for {price:g} credits"
        text = f"max_credits is {self._most:g}, and {self._spent:g} are spent"
        return RunStopped(AIFaceSwapError(f"{text}: the next {kind} ({costs}) could exceed it"))
