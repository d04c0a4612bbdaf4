"""Shared by the four examples: the orders of a shop, and the messages for its customers.

`Orders` takes the place of your own database. The page makes an order id for each form, so a form
that is sent twice is one order, with one idempotency key and one swap.
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

#: The service rejected the order: no swap was created, and nothing was charged.
REJECTED = (
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
        """The fields that the customer may see."""
        hidden = {"webhook_url", "idempotency_key", "swap_id"}
        return {name: value for name, value in asdict(self).items() if name not in hidden}


class Orders:
    """The orders in a file, for all threads. A commit takes much less time than a request."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._lock = threading.Lock()
        self._execute("PRAGMA journal_mode = WAL")
        self._execute(_TABLE)

    def place(self, order_id: str, source_url: str, target_url: str, hook: str | None) -> Order:
        """Store an order with a new idempotency key, or return the one that was sent before."""
        afs.SwapRequest(source_url=source_url, target_url=target_url)  # rejects invalid URLs
        if not _ORDER_ID.fullmatch(order_id):
            raise afs.InvalidRequestError("This order id is invalid. Please reload the page.")
        self._execute(
            "INSERT OR IGNORE INTO orders (id, source_url, target_url, webhook_url, "
            "idempotency_key) VALUES (?, ?, ?, ?, ?)",
            *(order_id, source_url, target_url, hook, str(uuid.uuid4())),
        )
        order = self.get(order_id)
        if order is None or (order.source_url, order.target_url) != (source_url, target_url):
            text = "This order was sent before with other images. Please reload the page."
            raise afs.InvalidRequestError(text)
        return order

    def get(self, order_id: str) -> Order | None:
        """The order with this id."""
        rows = self._execute("SELECT * FROM orders WHERE id = ?", order_id)
        return Order(**{**rows[0], "ended": bool(rows[0]["ended"])}) if rows else None

    def in_progress(self) -> list[str]:
        """The swaps that are not finished: at the start, those from before the restart."""
        query = "SELECT swap_id FROM orders WHERE swap_id IS NOT NULL AND NOT ended"
        return [row["swap_id"] for row in self._execute(query)]

    def created(self, order: Order, swap: afs.Swap) -> Order:
        """Store the swap of an order."""
        self._execute("UPDATE orders SET swap_id = ? WHERE id = ?", swap.id, order.id)
        self.update(swap)
        return self.get(order.id) or order

    def update(self, swap: afs.Swap) -> None:
        """Store the state of a swap. A finished order does not change any more."""
        error = "The photo could not be made. Please try other images." if swap.has_failed else None
        self._execute(
            "UPDATE orders SET status = ?, progress = ?, result_url = ?, error = ?, ended = ? "
            "WHERE swap_id = ? AND NOT ended",
            *(swap.status, swap.progress or 0, swap.result_url, error, swap.is_finished, swap.id),
        )

    def forget(self, order: Order) -> None:
        """Delete an order that was rejected: sent again, it gets a new key."""
        self._execute("DELETE FROM orders WHERE id = ? AND swap_id IS NULL", order.id)

    def _execute(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()


@dataclass(frozen=True)
class Problem:
    """The message for a customer when there is no swap."""

    status: int
    message: str
    field: str | None = None
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After`, if trying again can help."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def public(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"error": self.message, "field": self.field}


_INVALID = {
    "source_url": "The photo of the face must be a public https:// address.",
    "target_url": "The other photo must be a public https:// address.",
}
_MESSAGES: dict[type[afs.AIFaceSwapError], str] = {
    afs.SourceUnreachableError: "One of the images cannot be downloaded. Is its address public?",
    afs.PayloadTooLargeError: "One of the images is too large.",
    afs.UnsupportedMediaTypeError: "One of the addresses is not an image.",
    afs.ContentRejectedError: "These images are not allowed. Please choose others.",
}


def explain(error: afs.AIFaceSwapError) -> Problem:
    """Tell the customer what they can do, and log what the shop has to fix."""
    match error:
        case afs.InvalidRequestError():
            return Problem(400, _INVALID.get(error.field, error.message), field=error.field)
        case afs.RateLimitError():
            wait = math.ceil(error.retry_after or 5)
            return Problem(
                503, "Many photos are being made. Please try again in a moment.", retry_after=wait
            )
        case afs.InsufficientCreditsError() | afs.AuthenticationError():
            log.error("no swaps can be created: %s", error)
            return Problem(503, "Photos cannot be made at the moment. Please try again later.")
        case afs.APIStatusError() if isinstance(error, REJECTED):
            return Problem(error.status, _MESSAGES.get(type(error), "These images cannot be used."))
        case afs.APIConnectionError() | afs.APIResponseError() | afs.ServerError():
            log.warning("no response from the service: %s", error)
            text = "No response in time. Send the form again: you are not charged twice."
            return Problem(503, text, retry_after=5)
    log.error("an order failed", exc_info=error)
    return Problem(500, "Something went wrong on our side. Please try again later.")
