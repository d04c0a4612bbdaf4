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

from aifaceswap.emulator._actions import Drop, Late, Reorder
from aifaceswap.emulator._service import ids
from aifaceswap.emulator._times import TICK

if TYPE_CHECKING:
    from collections.abc import Callable

    from aifaceswap.emulator._service.fault_injector import FaultInjector
    from aifaceswap.emulator._service.state import StoredSwap
    from aifaceswap.emulator.faults import WebhookAction

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
        status: The receiver's status, or None where there was no response.
        error: What went wrong where there was no response, or None.
        fault: What was applied to it, or None.
    """

    at: float
    headers: tuple[tuple[str, str], ...]
    status: int | None
    error: str | None
    fault: WebhookAction | None = None


@attrs.frozen
class DeliveryRecord:
    """One webhook delivery and what became of it.

    Attributes:
        id: `dlv_…`: what `redeliver()` knows it by.
        swap_id: The swap that ended.
        event: `swap.completed` or `swap.failed`.
        webhook_url: What the swap's creator asked for.
        url: Where it is posted to, or None where it is undeliverable.
        state: `pending`, `delivered`, `failed` (all attempts used up), `undeliverable`, or
            `dropped` by a fault.
        body: The bytes that are posted, the same at each attempt; empty before the first.
        attempts: Oldest first.
    """

    id: str
    swap_id: str
    event: str
    webhook_url: str
    url: str | None
    state: str
    body: bytes
    attempts: tuple[DeliveryAttempt, ...]


@attrs.define(eq=False)
class Delivery:
    """A delivery in progress.

    Attributes:
        due: When its next attempt is; infinity where none is planned.
        delayed: Whether a fault has put off the next attempt, to which no fault applies again.
    """

    id: str
    swap: StoredSwap
    url: str | None
    state: str
    body: bytes = b""
    due: float = math.inf
    delayed: bool = False
    attempts: list[DeliveryAttempt] = attrs.field(factory=list[DeliveryAttempt], init=False)

    @property
    def event(self) -> str:
        """What happened to the swap."""
        return "swap.failed" if self.swap.life.fails else "swap.completed"

    def record(self) -> DeliveryRecord:
        """What can be said about it now."""
        return DeliveryRecord(
            id=self.id,
            swap_id=self.swap.id,
            event=self.event,
            webhook_url=self.swap.params.webhook_url or "",
            url=self.url,
            state=self.state,
            body=self.body,
            attempts=tuple(self.attempts),
        )


@attrs.define(eq=False)
class DeliveryQueue:
    """Deliveries, ordered by when they are due."""

    seed: int
    deliver_to: object
    faults: FaultInjector
    deliveries: deque[Delivery] = attrs.field(init=False, factory=lambda: deque(maxlen=KEPT))
    on_change: Callable[[], None] = attrs.field(init=False, default=lambda: None)
    # A swap until its delivery begins: an queue may hold very many of them.
    _due: list[tuple[float, int, StoredSwap | Delivery]] = attrs.field(
        init=False, factory=list[tuple[float, int, "StoredSwap | Delivery"]]
    )
    _pushed: int = attrs.field(init=False, default=0)
    begun: int = attrs.field(init=False, default=0)
    _held_back: list[Delivery] = attrs.field(init=False, factory=list[Delivery])

    def add(self, swap: StoredSwap) -> None:
        """Plan the delivery for when `swap` ends, if it does."""
        if swap.finish < math.inf:
            self._push(swap.finish, swap)

    def _redirect(self, webhook_url: str) -> str | None:
        if not isinstance(self.deliver_to, str):
            return None if self.deliver_to is None else webhook_url
        _, _, path, query, _ = urlsplit(webhook_url)
        return self.deliver_to.rstrip("/") + (path or "/") + (f"?{query}" if query else "")

    def _push(self, when: float, item: StoredSwap | Delivery) -> None:
        self._pushed += 1
        if isinstance(item, Delivery):
            item.due = when
        heapq.heappush(self._due, (when, self._pushed, item))
        if self._due[0][2] is item:
            self.on_change()

    def next_due(self) -> float:
        """When the next attempt is due; infinity where nothing is planned."""
        return self._due[0][0] if self._due else math.inf

    def take_due(self, now: float) -> list[tuple[Delivery, WebhookAction | None]]:
        """Take out the deliveries whose next attempt is to be made now, and its fault."""
        taken: list[tuple[Delivery, WebhookAction | None]] = []
        while self.next_due() <= now + TICK:
            when, _, item = heapq.heappop(self._due)
            delivery = item if isinstance(item, Delivery) else self._begin(item, when)
            if delivery.url is not None and delivery.due == when:
                delivery.due = math.inf
                action = self._find_fault(delivery)
                if not self._put_off(delivery, action, now):
                    taken.append((delivery, action))
        return taken

    def _begin(self, swap: StoredSwap, when: float) -> Delivery:
        url = self._redirect(swap.params.webhook_url or "")
        delivery = Delivery(
            ids.make_id(self.seed, "dlv", self.begun),
            swap,
            url,
            "undeliverable" if url is None else "pending",
            due=when,
        )
        self.begun += 1
        self.deliveries.append(delivery)
        return delivery

    def _find_fault(self, delivery: Delivery) -> WebhookAction | None:
        delayed, delivery.delayed = delivery.delayed, False
        return None if delayed else self.faults.strike_webhook(delivery.event)

    def _put_off(self, delivery: Delivery, action: WebhookAction | None, now: float) -> bool:
        match action:
            case Drop():
                delivery.state = "dropped"
            case Late(seconds):
                delivery.delayed = True
                self._push(now + seconds, delivery)
            case Reorder():
                delivery.delayed = True
                self._held_back.append(delivery)
            case _:
                return False
        return True

    def finish_attempt(self, delivery: Delivery, attempt: DeliveryAttempt, now: float) -> None:
        """Note what became of an attempt; plan the next where one is needed."""
        delivery.attempts.append(attempt)
        if attempt.status in _SUCCESS or delivery.state == "delivered":
            # One on demand may have arrived while this one was in progress.
            delivery.state = "delivered"
        elif len(delivery.attempts) > len(BACKOFF):
            delivery.state = "failed"
        else:
            self._push(now + BACKOFF[len(delivery.attempts) - 1], delivery)
        held_back, self._held_back = self._held_back, []
        for other in held_back:
            self._push(now, other)

    def redeliver(self, delivery_id: str, now: float) -> None:
        """Plan one more attempt for now; may raise `KeyError` or `ValueError`."""
        for delivery in self.deliveries:
            if delivery.id == delivery_id:
                if delivery.url is None:
                    raise ValueError(f"{delivery_id} is undeliverable: give deliver_to")
                delivery.state = "pending"
                self._push(now, delivery)
                return
        raise KeyError(delivery_id)
