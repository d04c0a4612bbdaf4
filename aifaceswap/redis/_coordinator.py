"""`RedisCoordinator`: what the processes that share an API key know of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from aifaceswap import _validation
from aifaceswap._limits import (
    MAX_UNFINISHED_SWAPS,
    REQUESTS_PER_DAY,
    REQUESTS_PER_WINDOW,
    WINDOW,
)
from aifaceswap.redis._budget import Limits, RedisBudget
from aifaceswap.redis._connection import Connection
from aifaceswap.redis._ends import RedisEnds
from aifaceswap.redis._slots import RedisSlots


class RedisCoordinator:
    """Shares the limits of API keys between processes and machines, through Redis."""

    def __init__(
        self,
        url_or_factory: str | Callable[[], Any],
        *,
        requests: int = REQUESTS_PER_WINDOW,
        per: float = WINDOW,
        per_day: int | None = REQUESTS_PER_DAY,
        slots: int = MAX_UNFINISHED_SWAPS,
        prefix: str = "aifaceswap",
        on_outage: Literal["local", "raise"] = "local",
        timeout: float = 0.5,
    ) -> None:
        self._connection = Connection(url_or_factory, _validation.seconds("timeout", timeout))
        self._limits = Limits(
            requests=_validation.positive_integer("requests", requests),
            per=_validation.seconds("per", per),
            per_day=None if per_day is None else _validation.positive_integer("per_day", per_day),
        )
        self._number_of_slots = _validation.positive_integer("slots", slots)
        self._prefix = prefix
        self._on_outage = on_outage
        self._budgets: dict[str, RedisBudget] = {}
        self._slots: dict[str, RedisSlots] = {}
        self._ends: dict[str, RedisEnds] = {}

    def budget(self, scope: str) -> RedisBudget:
        """Return the rate limiter of one API key; see `Coordinator.budget`."""
        if scope not in self._budgets:
            self._budgets[scope] = RedisBudget(
                self._connection, self._prefix_of(scope), self._limits, self._on_outage
            )
        return self._budgets[scope]

    def slots(self, scope: str) -> RedisSlots:
        """Return the slots of one API key; see `Coordinator.slots`."""
        if scope not in self._slots:
            self._slots[scope] = RedisSlots(
                self._connection, self._prefix_of(scope), self._number_of_slots
            )
        return self._slots[scope]

    def ends(self, scope: str) -> RedisEnds:
        """Return the finished swaps of one API key; see `Coordinator.ends`."""
        if scope not in self._ends:
            self._ends[scope] = RedisEnds(self._connection, self._prefix_of(scope))
        return self._ends[scope]

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._connection.aclose()

    def _prefix_of(self, scope: str) -> str:
        # The braces keep all keys of a scope on one node of a cluster.
        return f"{self._prefix}:{{{scope}}}"
