"""Looks for the swaps of rows whose idempotency keys the service may have forgotten.

Such a row was sent and got no response. Its swap, if there is one, is on the key's list; it is
taken for the row's only if its metadata says so. Nothing is charged while that is in doubt.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from aifaceswap._api import codec
from aifaceswap._api.requests import Call, list_swaps
from aifaceswap._limits import MAX_PAGE_SIZE
from aifaceswap.bulk._journal import JournalEntry
from aifaceswap.errors import AIFaceSwapError, APIResponseError, UnresolvedRowError
from aifaceswap.models import Swap, SwapPage

#: Seconds within which a key is taken to be remembered. How long it is, is not documented.
REPLAY_WITHIN = 12 * 3600.0
# Seconds after which a new swap is sure to be on the list.
LIST_LAG = 60.0
#: The field of the metadata that holds the idempotency key of a marked row.
MARK = "aifaceswap_idempotency_key"
# The clock that `sent_at` comes from may differ from the service's.
_CLOCK_SKEW = timedelta(minutes=10)
_SHOWN = 10


class KnownSwaps(Protocol):
    """What a journal knows of swaps and metadata."""

    async def known_ids(self, ids: Sequence[str]) -> set[str]:
        """Those of these swap ids that the journal has."""
        ...

    async def rows_with_metadata(self, metadata: Mapping[str, Any]) -> int:
        """How many rows of the journal have this metadata."""
        ...


def is_forgotten(entry: JournalEntry) -> bool:
    """Whether the service may no longer remember the row's idempotency key."""
    return entry.sent_at is not None and time.time() - entry.sent_at > REPLAY_WITHIN


def marked(body: bytes, key: str) -> bytes:
    """The body of a POST with its idempotency key in the metadata."""
    request = codec.loads(body)
    request["metadata"] = {**(request.get("metadata") or {}), MARK: key}
    return codec.dumps(request)


class Recovery:
    """Finds the swaps of rows that were sent long ago.

    Args:
        read: Sends a call that only reads.
        journal: The journal; its swaps are nobody else's.
    """

    def __init__(
        self, read: Callable[[Call[SwapPage]], Awaitable[SwapPage]], journal: KnownSwaps
    ) -> None:
        self._read = read
        self._journal = journal
        self._since: datetime | None = None
        # Swaps since then that the journal does not know, by their ids.
        self._unknown: dict[str, Swap] = {}

    async def list_since(self, sent_at: float) -> None:
        """Read the key's list back to a time, once for all rows that were sent later.

        Raises:
            AIFaceSwapError: The list cannot be read.
        """
        since = datetime.fromtimestamp(sent_at, UTC) - _CLOCK_SKEW
        if self._since is None or since < self._since:
            swaps = await self._pages_since(since)
            known = await self._journal.known_ids([swap.id for swap in swaps])
            self._unknown = {swap.id: swap for swap in swaps if swap.id not in known}
            self._since = since

    async def find(self, entry: JournalEntry) -> Swap | None:
        """The swap of a row that was sent.

        Args:
            entry: The row.

        Returns:
            Its swap; None if it has none.

        Raises:
            UnresolvedRowError: It may have one, but nothing says which, or the list cannot be
                read.
        """
        try:
            await self.list_since(entry.sent_at or 0.0)
        except AIFaceSwapError as error:
            text = f"it was sent without a response, and the list of swaps cannot be read: {error}"
            raise UnresolvedRowError(text) from error
        request = codec.loads(entry.body)
        candidates = [swap for swap in self._unknown.values() if _may_be(swap, request)]
        if not candidates:
            return None
        found = [swap for swap in candidates if _is_named(swap, request)]
        if len(found) == 1 and await self._is_unique(request["metadata"]):
            return self._unknown.pop(found[0].id)
        raise _unresolved(found or candidates)

    async def _pages_since(self, since: datetime) -> list[Swap]:
        swaps: list[Swap] = []
        cursor: str | None = None
        cursors = set[str]()
        while True:
            page = await self._read(list_swaps(MAX_PAGE_SIZE, cursor))
            recent = [swap for swap in page if swap.created_at is None or swap.created_at >= since]
            swaps.extend(recent)
            cursor = page.next_cursor
            if cursor is None or len(recent) < len(page):
                return swaps
            if cursor in cursors:
                raise APIResponseError("the list of swaps repeats a page", permanent=True)
            cursors.add(cursor)

    async def _is_unique(self, metadata: Mapping[str, Any]) -> bool:
        return MARK in metadata or await self._journal.rows_with_metadata(metadata) == 1


def _may_be(swap: Swap, request: Mapping[str, Any]) -> bool:
    """Whether nothing that the swap shows says that it is another request's."""
    if swap.type is not None and swap.type != request.get("type"):
        return False
    return not swap.metadata or _is_named(swap, request)


def _is_named(swap: Swap, request: Mapping[str, Any]) -> bool:
    """Whether the swap has the request's metadata, or its mark."""
    metadata: Mapping[str, Any] = request.get("metadata") or {}
    if not metadata or not swap.metadata:
        return False
    if MARK in metadata:
        return bool(swap.metadata.get(MARK) == metadata[MARK])
    return dict(swap.metadata) == dict(metadata)


def _unresolved(candidates: Sequence[Swap]) -> UnresolvedRowError:
    ids = tuple(swap.id for swap in candidates)
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return UnresolvedRowError(
        "it was sent without a response, so long ago that the service may have forgotten its key "
        "or the URLs of its files have expired, and its swap may be one of "
        f"{', '.join(ids[:_SHOWN])}{more}; it was not sent again",
        candidates=ids,
    )
