"""What the four examples share: the orders of a shop, and what its customers are told.

`Orders` stands for your own database. Whoever orders chooses the order's id: the page makes one
for each form. So a form that is sent twice is one order, with one idempotency key, and one swap.
"""

from __future__ import annotations

import logging
import math
import re
import sqlite3
import threading
import uuid
from dataclasses import asdict, dataclass
from typing import Any

import aifaceswap as afs

log = logging.getLogger("shop")

_TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, source_url TEXT NOT NULL, target_url TEXT NOT NULL, webhook_url TEXT,
    idempotency_key TEXT NOT NULL, swap_id TEXT UNIQUE, status TEXT NOT NULL DEFAULT 'new',
    progress REAL NOT NULL DEFAULT 0, result_url TEXT, error TEXT, ended INTEGER NOT NULL DEFAULT 0
)"""
_ORDER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: The service has said no: there is no swap, and under this key there never will be.
REFUSED = (
    afs.BadRequestError,
    afs.InsufficientCreditsError,
    afs.PayloadTooLargeError,
    afs.UnsupportedMediaTypeError,
    afs.ContentRejectedError,
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A row of the table."""

    id: str
    source_url: str
    target_url: str
    webhook_url: str | None
    idempotency_key: str
    swap_id: str | None
    status: str
    progress: float
    result_url: str | None
    error: str | None
    ended: bool

    def public(self) -> dict[str, Any]:
        """What its customer may see."""
        hidden = {"webhook_url", "idempotency_key", "swap_id"}
        return {name: value for name, value in asdict(self).items() if name not in hidden}


class Orders:
    """The orders, in a file, for all threads. A commit takes far less time than a request."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._lock = threading.Lock()
        self._execute("PRAGMA journal_mode = WAL")
        self._execute(_TABLE)

    def place(self, order_id: str, source_url: str, target_url: str, hook: str | None) -> Order:
        """Store an order with a fresh idempotency key, or find it where it was sent before."""
        afs.SwapRequest(source_url=source_url, target_url=target_url)  # refuses what is no URL
        if not _ORDER_ID.fullmatch(order_id):
            raise afs.InvalidRequestError.for_field(
                "order", order_id, "is no order: load the page anew"
            )
        self._execute(
            "INSERT OR IGNORE INTO orders (id, source_url, target_url, webhook_url, "
            "idempotency_key) VALUES (?, ?, ?, ?, ?)",
            *(order_id, source_url, target_url, hook, str(uuid.uuid4())),
        )
        order = self.get(order_id)
        if order is None or (order.source_url, order.target_url) != (source_url, target_url):
            fault = "was sent before with other pictures: load the page anew"
            raise afs.InvalidRequestError.for_field("order", order_id, fault)
        return order

    def get(self, order_id: str) -> Order | None:
        """The order with this id."""
        rows = self._execute("SELECT * FROM orders WHERE id = ?", order_id)
        return Order(**{**rows[0], "ended": bool(rows[0]["ended"])}) if rows else None

    def under_way(self) -> list[str]:
        """The swaps that have not ended: at its start, those from before the app was stopped."""
        query = "SELECT swap_id FROM orders WHERE swap_id IS NOT NULL AND NOT ended"
        return [row["swap_id"] for row in self._execute(query)]

    def created(self, order: Order, swap: afs.Swap) -> Order:
        """Note which swap an order has become."""
        self._execute("UPDATE orders SET swap_id = ? WHERE id = ?", swap.id, order.id)
        self.saw(swap)
        return self.get(order.id) or order

    def saw(self, swap: afs.Swap) -> None:
        """Note how a swap is now. It ends once: what comes late does not undo that."""
        error = (swap.error_message or "The swap failed.") if swap.has_failed else None
        self._execute(
            "UPDATE orders SET status = ?, progress = ?, result_url = ?, error = ?, ended = ? "
            "WHERE swap_id = ? AND NOT ended",
            *(swap.status, swap.progress or 0, swap.result_url, error, swap.is_finished, swap.id),
        )

    def forget(self, order: Order) -> None:
        """Drop an order that was refused: sent again, it begins anew, with a fresh key."""
        self._execute("DELETE FROM orders WHERE id = ? AND swap_id IS NULL", order.id)

    def _execute(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()


@dataclass(frozen=True)
class Answer:
    """What a customer is told when there is no swap."""

    status: int
    message: str
    field: str | None = None
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After`, where there is any sense in coming back."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def public(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"error": self.message, "field": self.field}


def explain(error: afs.AIFaceSwapError) -> Answer:
    """Say what went wrong: to the customer what they can do, to the log what is ours to mend."""
    match error:
        case afs.InvalidRequestError():
            return Answer(400, error.message, field=error.field)
        case afs.RateLimitError():
            wait = math.ceil(error.retry_after or 5)
            return Answer(503, "Many swaps are being made just now.", retry_after=wait)
        case afs.InsufficientCreditsError() | afs.AuthenticationError():
            log.error("no swaps can be made: %s", error)
            return Answer(503, "No swaps can be made for now. We know of it.")
        case afs.APIStatusError() if isinstance(error, REFUSED):
            return Answer(error.status, error.message)
        case afs.APIConnectionError() | afs.APIResponseError() | afs.ServerError():
            log.warning("the service does not answer: %s", error)
            text = "The service does not answer. Send the form again: it is not paid twice."
            return Answer(503, text, retry_after=5)
    log.error("an order failed", exc_info=error)
    return Answer(500, "Something is wrong on our side.")
