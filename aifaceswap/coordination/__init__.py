"""What several processes with one API key share: rate limits, slots and finished swaps.

Anything with the four members of `Coordinator` can be used. `aifaceswap.redis.RedisCoordinator`
is the one of this package.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from aifaceswap.budget import RequestBudget
from aifaceswap.models import Swap

__all__ = ["Coordinator", "Ends", "Slots"]


class Slots(Protocol):
    """The unfinished swaps that the service allows one API key, counted over all processes.

    A slot has a name: the idempotency key before its swap is created, then the swap's id. It
    outlives the process that took it, because the service counts the swap.
    """

    async def take(self, name: str, *, max_wait: float | None = None) -> bool:
        """Wait for a slot.

        Args:
            name: The idempotency key of the swap to create. A name that holds a slot keeps it.
            max_wait: Maximum seconds to wait, 0 or more. None: as long as it takes.

        Returns:
            Whether the name holds a slot now.
        """
        ...

    async def bind(self, name: str, swap_id: str) -> None:
        """Rename a slot: its swap has been created.

        Args:
            name: The idempotency key.
            swap_id: The id of the swap. If it is known to have finished, the slot is freed.
        """

    async def free(self, *names: str) -> None:
        """Free slots: their swaps have finished, or were never created.

        Args:
            names: Idempotency keys and ids of swaps; names without a slot are ignored.
        """


class Ends(Protocol):
    """Finished swaps of one API key, passed on between processes."""

    async def publish(self, swaps: Sequence[Swap]) -> None:
        """Pass on swaps that have finished.

        Args:
            swaps: The swaps; one that was published before may come again.
        """

    async def read(self, after: str = "") -> tuple[Sequence[Swap], str]:
        """Wait a moment for swaps that any process publishes.

        Args:
            after: The position that the last call returned. Empty: from now on.

        Returns:
            The swaps that were published after the position, and the new position.
        """
        ...

    async def lead(self, wanted: Collection[str]) -> Collection[str] | None:
        """Report the swaps that this process waits for, and ask to be the one that polls.

        Args:
            wanted: The ids of the swaps.

        Returns:
            The ids that all processes wait for, if this one is to poll now; otherwise None.
        """
        ...


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
        """Return the finished swaps of one API key.

        Args:
            scope: A digest of the base URL and the API key.

        Returns:
            The same finished swaps for the same scope.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of the running event loop. Clients do not call it."""
