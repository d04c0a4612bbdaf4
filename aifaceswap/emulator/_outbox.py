"""Webhook deliveries as state: what is due when, what was tried, what becomes of it. No IO."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import math
from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from .clock import TICK

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._state import Swap

#: Seconds between the attempts of one delivery.
BACKOFF: Final = (5.0, 30.0, 120.0, 600.0)

#: How many of the latest deliveries are kept for inspection.
KEPT: Final = 10_000

_SUCCESS = range(200, 300)

SIGNATURE_HEADER: Final = "x-aifaceswap-signature"


def sign(api_key: str, body: bytes, timestamp: int) -> str:
    """The value of the signature header for these raw bytes."""
    signed = b"%d.%s" % (timestamp, body)
    return f"t={timestamp},v1={hmac.digest(api_key.encode(), signed, hashlib.sha256).hex()}"


@attrs.frozen
class DeliveryAttempt:
    """One POST of a delivery.

    Attributes:
        at: When it was sent, in unix seconds.
        headers: The headers that the emulator set.
        status: The receiver's status, or None where there was no answer.
        error: What went wrong where there was no answer, or None.
    """

    at: float
    headers: tuple[tuple[str, str], ...]
    status: int | None
    error: str | None


@attrs.frozen
class DeliveryRecord:
    """One webhook delivery and what became of it.

    Attributes:
        swap_id: The swap that ended.
        event: `swap.completed` or `swap.failed`.
        webhook_url: What the swap's creator asked for.
        url: Where it is posted to, or None where it is undeliverable.
        state: `pending`, `delivered`, `failed` (all attempts used up) or `undeliverable`.
        body: The bytes that are posted, the same at each attempt; empty before the first.
        attempts: Oldest first.
    """

    swap_id: str
    event: str
    webhook_url: str
    url: str | None
    state: str
    body: bytes
    attempts: tuple[DeliveryAttempt, ...]


@attrs.define(eq=False)
class Delivery:
    """A delivery under way."""

    swap: Swap
    url: str | None
    state: str
    body: bytes = b""
    attempts: list[DeliveryAttempt] = attrs.field(factory=list[DeliveryAttempt], init=False)

    @property
    def event(self) -> str:
        """What happened to the swap."""
        return "swap.failed" if self.swap.life.fails else "swap.completed"

    def headers(self, now: float) -> tuple[tuple[str, str], ...]:
        """The headers of an attempt made at `now`."""
        signature = sign(self.swap.owner.api_key, self.body, int(now))
        return (("Content-Type", "application/json"), (SIGNATURE_HEADER, signature))

    def record(self) -> DeliveryRecord:
        """What can be said about it now."""
        return DeliveryRecord(
            swap_id=self.swap.id,
            event=self.event,
            webhook_url=self.swap.params.webhook_url or "",
            url=self.url,
            state=self.state,
            body=self.body,
            attempts=tuple(self.attempts),
        )


@attrs.define(eq=False)
class Outbox:
    """Deliveries, ordered by when they are due."""

    deliver_to: str | None
    deliveries: deque[Delivery] = attrs.field(init=False, factory=lambda: deque(maxlen=KEPT))
    on_change: Callable[[], None] = attrs.field(init=False, default=lambda: None)
    # A swap until its delivery begins: an outbox may hold very many of them.
    _due: list[tuple[float, int, Swap | Delivery]] = attrs.field(
        init=False, factory=list[tuple[float, int, "Swap | Delivery"]]
    )
    _pushed: int = attrs.field(init=False, default=0)

    def add(self, swap: Swap) -> None:
        """Plan the delivery for when `swap` ends, if it does."""
        if swap.finish < math.inf:
            self._push(swap.finish, swap)

    def _redirect(self, webhook_url: str) -> str | None:
        if self.deliver_to is None:
            return None
        _, _, path, query, _ = urlsplit(webhook_url)
        return self.deliver_to.rstrip("/") + (path or "/") + (f"?{query}" if query else "")

    def _push(self, when: float, item: Swap | Delivery) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (when, self._pushed, item))
        if self._due[0][2] is item:
            self.on_change()

    def next_due(self) -> float:
        """When the next attempt is due; infinity where nothing is planned."""
        return self._due[0][0] if self._due else math.inf

    def take_due(self, now: float) -> list[Delivery]:
        """Take out the deliveries whose next attempt is due and can be made."""
        taken: list[Delivery] = []
        while self.next_due() <= now + TICK:
            item = heapq.heappop(self._due)[2]
            delivery = item if isinstance(item, Delivery) else self._begin(item)
            if delivery.url is not None:
                taken.append(delivery)
        return taken

    def _begin(self, swap: Swap) -> Delivery:
        url = self._redirect(swap.params.webhook_url or "")
        delivery = Delivery(swap, url, "undeliverable" if url is None else "pending")
        self.deliveries.append(delivery)
        return delivery

    def finish_attempt(self, delivery: Delivery, attempt: DeliveryAttempt, now: float) -> None:
        """Note what became of an attempt; plan the next where one is needed."""
        delivery.attempts.append(attempt)
        if attempt.status in _SUCCESS:
            delivery.state = "delivered"
        elif len(delivery.attempts) > len(BACKOFF):
            delivery.state = "failed"
        else:
            self._push(now + BACKOFF[len(delivery.attempts) - 1], delivery)
