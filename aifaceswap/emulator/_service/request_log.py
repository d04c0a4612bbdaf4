"""The latest requests, for inspection: bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aifaceswap.emulator._service.records import Entry

#: How many of the latest requests are kept.
KEPT: Final = 10_000

#: How many bytes of bodies, headers and URLs are kept.
KEPT_BYTES: Final = 32 * 1024 * 1024


@attrs.define(eq=False)
class RequestLog:
    """Requests and their responses, oldest first."""

    _entries: deque[Entry] = attrs.field(factory=deque["Entry"], init=False)
    _size: int = attrs.field(default=0, init=False)

    def append(self, entry: Entry) -> None:
        """Add the latest request; drop the oldest ones that no longer fit."""
        self._entries.append(entry)
        self._size += _size_of(entry)
        while len(self._entries) > KEPT or self._size > KEPT_BYTES:
            self._size -= _size_of(self._entries.popleft())

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __reversed__(self) -> Iterator[Entry]:
        return reversed(self._entries)


def _size_of(entry: Entry) -> int:
    request = entry[1]
    headers = sum(len(name) + len(value) for name, value in request.headers.items())
    return len(request.path) + len(request.query) + headers + len(request.body)
