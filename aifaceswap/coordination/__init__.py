"""What several processes with one API key share: rate limits, slots and polls.

Anything with the four members of `Coordinator` can be used. `aifaceswap.redis.RedisCoordinator`
is the one of this package.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import attrs

from aifaceswap.budget import RequestBudget
from aifaceswap.models import Swap

__all__ = ["Coordinator", "Ends", "Slots", "SwapReport"]


@attrs.frozen
class SwapReport:
    """What one process has seen of swaps.

    Attributes:
        swaps: The swaps.
        origin: Names the reader that published it, which does not need it itself.
        is_delivery: Whether a webhook delivery reported them.
        list_age: If the swaps are a list of the key's newest swaps: seconds since it was requested.
            Otherwise None.
    """

    swaps: Sequence[Swap]
    origin: str = ""
    is_delivery: bool = False
    list_age: float | None = None


class Slots(Protocol):
    """The unfinished swaps that the service allows one API key, counted over all processes.

    A slot has a name: the idempotency key before its swap is created, then the swap's id. It
    outlives the process that took it, because the service counts the swap.
    """

    async def take(self, name: str) -> Collection[str] | None:
        """Take a slot, if one is free.

        A name keeps the slot that it or its swap holds. A slot of an idempotency key expires
        unless it is taken again within 20 seconds.

        Args:
            name: The idempotency key of the swap to create.

        Returns:
            None if the name holds a slot now. Otherwise the ids of swaps that hold the slots.

        Raises:
            APIConnectionError: The slots are out of reach, and nothing may be sent without them.
        """
        ...

    async def bind(self, name: str, swap_id: str) -> None:
        """Rename a slot: its swap has been created, and counts even if there was no slot for it.

        Args:
            name: The idempotency key.
            swap_id: The id of the swap. If it is known to have finished, the slot is freed.
        """

    async def free(self, name: str) -> None:
        """Free a slot whose swap was not created. Those of finished swaps are freed by `Ends`.

        Args:
            name: The idempotency key; one without a slot is ignored.
        """


class Ends(Protocol):
    """What the processes with one API key have seen of its swaps: one polls for all of them."""

    async def publish(self, report: SwapReport) -> None:
        """Pass on what was seen of swaps, and free the slots of those that have finished.

        Args:
            report: The swaps. Of the finished ones those are passed on that held a slot, and
                those that were delivered.
        """

    async def read(self, position: str, *, wait: bool) -> tuple[Sequence[SwapReport], str]:
        """Read what has been published.

        Args:
            position: What the last call returned; empty: read all that is kept.
            wait: Whether to wait a moment if there is nothing.

        Returns:
            The reports after the position, and the new position.
        """
        ...

    async def begin_poll(self, token: str) -> float:
        """Ask to be the one that polls now, or to remain it.

        Args:
            token: Names the caller. Its turn expires unless it calls again within 2 seconds.

        Returns:
            0 if it is the caller's turn. Otherwise the seconds after which to ask again.
        """
        ...

    async def end_poll(self, token: str, pause: float) -> None:
        """End a turn.

        Args:
            token: The caller; if it is another's turn, nothing changes.
            pause: Seconds for which nobody is to poll, 0 or more.
        """


class Coordinator(Protocol):
    """What `AsyncClient` and `Client` accept as ``coordinator=``."""

    def budget(self, scope: str) -> RequestBudget:
        """Return the rate limiter of one API key.

        Args:
            scope: A digest of the base URL and the API key.

        Returns:
            The same limiter for the same scope.
        """
        ...

    def slots(self, scope: str) -> Slots:
        """Return the slots of one API key.

        Args:
            scope: A digest of the base URL and the API key.

        Returns:
            The same slots for the same scope.
        """
        ...

    def ends(self, scope: str) -> Ends:
        """Return what is seen of the swaps of one API key.

        Args:
            scope: A digest of the base URL and the API key.

        Returns:
            The same object for the same scope.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of the running event loop. Clients do not call it."""
