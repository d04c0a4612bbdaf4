"""Remembers which deliveries were handled, so that each is handled once."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from typing import Literal, Protocol, TypeAlias, cast

import attrs

from aifaceswap import _validation

Claim: TypeAlias = Literal["new", "busy", "done"]
"""The state of a delivery: new, being handled now, or handled."""

_RELEASE_TIMEOUT = 5.0  # seconds
_RENEWALS = 3  # in the time of one lease

_log = logging.getLogger("aifaceswap")


@attrs.frozen
class DeliveryClaim:
    """What a `SeenStore` returns for a delivery.

    Attributes:
        state: ``"new"``: the delivery belongs to the caller now. ``"busy"``: another caller has
            claimed it. ``"done"``: it was committed.
        token: Names the owner of a new claim; nobody else can commit, release or renew it.
        lease: Seconds after which a new claim expires unless it is renewed; None: never.
    """

    state: Claim
    token: str = ""
    lease: float | None = None


class SeenStore(Protocol):
    """Remembers deliveries, so that one that arrives twice is handled once.

    Write your own for a database that several processes share. Errors that it raises are logged
    and answered with 500, so that the delivery is sent again.
    """

    async def claim(self, delivery: str) -> DeliveryClaim:
        """Reserve a delivery if it is new, in one atomic step.

        A claim that is not renewed must expire: its process has died.

        Args:
            delivery: The delivery's name, e.g. ``"swap.completed:tsk_1"``.

        Returns:
            The state, and for a new delivery the token and the lease.
        """
        ...

    async def commit(self, delivery: str, token: str) -> None:
        """Record that a claimed delivery has been handled.

        Args:
            delivery: The delivery's name.
            token: The claim's token. If another caller owns the delivery now, nothing changes.
        """

    async def release(self, delivery: str, token: str) -> None:
        """Give a claim back: handling failed, and the delivery will be sent again.

        Args:
            delivery: The delivery's name.
            token: The claim's token. If another caller owns the delivery now, nothing changes.
        """

    async def renew(self, delivery: str, token: str) -> bool:
        """Extend a claim by one lease: its handler is still running.

        Args:
            delivery: The delivery's name.
            token: The claim's token.

        Returns:
            Whether the claim still belongs to this token.
        """
        ...


class TokenlessSeenStore(Protocol):
    """A `SeenStore` without tokens: its claims must outlive the longest handler."""

    async def claim(self, delivery: str) -> Claim:
        """As `SeenStore.claim`; returns the state alone."""
        ...

    async def commit(self, delivery: str) -> None:
        """As `SeenStore.commit`."""

    async def release(self, delivery: str) -> None:
        """As `SeenStore.release`."""


class MemorySeen:
    """A `SeenStore` in the memory of this process; it is lost when the process ends.

    Claims do not expire: while the process lives, so does the handler.

    Args:
        max_deliveries: How many handled deliveries are remembered, the newest ones; 1 or more.
        ttl: Seconds that each is remembered; above 0.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(self, *, max_deliveries: int = 10_000, ttl: float = 86_400.0) -> None:
        self._max = _validation.positive_integer("max_deliveries", max_deliveries)
        self._ttl = _validation.seconds("ttl", ttl)
        self._claims = 0
        self._claimed: dict[str, str] = {}
        # When each is to be forgotten; in this order.
        self._done: dict[str, float] = {}

    def __len__(self) -> int:
        """How many deliveries are remembered or being handled."""
        return len(self._claimed) + len(self._done)

    async def claim(self, delivery: str) -> DeliveryClaim:
        """Reserve a delivery; see `SeenStore.claim`."""
        self._forget(time.monotonic())
        if delivery in self._done:
            return _DONE
        if delivery in self._claimed:
            return _BUSY
        self._claims += 1
        token = self._claimed[delivery] = str(self._claims)
        return DeliveryClaim("new", token)

    async def commit(self, delivery: str, token: str) -> None:
        """Record that it has been handled; see `SeenStore.commit`."""
        if self._claimed.get(delivery) != token:
            return
        del self._claimed[delivery]
        self._done[delivery] = time.monotonic() + self._ttl
        if len(self._done) > self._max:
            del self._done[next(iter(self._done))]

    async def release(self, delivery: str, token: str) -> None:
        """Give a claim back; see `SeenStore.release`."""
        if self._claimed.get(delivery) == token:
            del self._claimed[delivery]

    async def renew(self, delivery: str, token: str) -> bool:
        """Extend a claim; see `SeenStore.renew`."""
        return self._claimed.get(delivery) == token

    def _forget(self, now: float) -> None:
        while self._done and self._done[oldest := next(iter(self._done))] <= now:
            del self._done[oldest]


_DONE, _BUSY = DeliveryClaim("done"), DeliveryClaim("busy")


class _WithoutTokens:
    """Makes a `SeenStore` of a store with three methods."""

    def __init__(self, store: TokenlessSeenStore) -> None:
        self._store = store

    async def claim(self, delivery: str) -> DeliveryClaim:
        return DeliveryClaim(await self._store.claim(delivery))

    async def commit(self, delivery: str, token: str) -> None:
        await self._store.commit(delivery)

    async def release(self, delivery: str, token: str) -> None:
        await self._store.release(delivery)

    async def renew(self, delivery: str, token: str) -> bool:
        return True


def with_tokens(store: SeenStore | TokenlessSeenStore) -> SeenStore:
    """The store itself, or one around it if its methods take no tokens."""
    if "token" in inspect.signature(store.commit).parameters:
        return cast("SeenStore", store)
    return _WithoutTokens(cast("TokenlessSeenStore", store))


def start_renewal(
    store: SeenStore, delivery: str, claim: DeliveryClaim
) -> asyncio.Task[None] | None:
    """Renew a claim until the task is cancelled; None: it does not expire."""
    if claim.lease is None:
        return None
    pause = claim.lease / _RENEWALS
    return asyncio.create_task(_renew(store, delivery, claim.token, pause))


async def _renew(store: SeenStore, delivery: str, token: str, pause: float) -> None:
    is_owner = True
    while is_owner:
        await asyncio.sleep(pause)
        try:
            is_owner = await store.renew(delivery, token)
        except Exception as error:  # the store is out of reach: the next renewal may be in time
            _log.warning("the claim on %s could not be renewed: %s", delivery, type(error).__name__)
    _log.warning("the claim on %s has expired while it is handled: it can be repeated", delivery)


# Kept from the garbage collector until they are done.
_releases: set[asyncio.Task[None]] = set()


async def release_shielded(store: SeenStore, delivery: str, token: str) -> None:
    """Release a claim, also if the request is being cancelled, but within a few seconds."""
    from anyio import CancelScope  # noqa: PLC0415 - loaded only when a handler fails

    # A task of its own: neither a second cancellation nor a cancelled scope reaches it.
    task = asyncio.create_task(_release(store, delivery, token))
    _releases.add(task)
    task.add_done_callback(_releases.discard)
    with CancelScope(shield=True):
        await asyncio.shield(task)


async def _release(store: SeenStore, delivery: str, token: str) -> None:
    try:
        async with asyncio.timeout(_RELEASE_TIMEOUT):
            await store.release(delivery, token)
    except Exception as error:  # the handler's own error counts more, and the claim expires
        _log.warning("the claim on %s could not be released: %s", delivery, type(error).__name__)
