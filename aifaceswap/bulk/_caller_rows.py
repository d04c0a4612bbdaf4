"""Rows are read and progress is reported in the thread of a blocking caller.

There database cursors and ORMs expect it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Self

from aifaceswap.bulk._values import BulkProgress

_MOST_AT_ONCE = 256
_SECONDS_AT_ONCE = 0.001  # a slow iterator gives one row at a time
_SECONDS_UNTIL_WANTED = 0.005  # rows that are taken faster than that are wanted in larger batches


class CallerRows:
    """An async iterator whose rows come from an iterator in another thread.

    Args:
        rows: Where the rows come from.
        post: Hands a call to the thread that reads.
    """

    def __init__(
        self, rows: Iterable[object], post: Callable[[Callable[[], object]], object]
    ) -> None:
        self._rows = rows
        self._post = post
        self._iterator: Iterator[object] | None = None
        self._ready: deque[object] = deque()
        self._is_over = False
        self._at_once = 1
        self._delivered_at = 0.0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        if not self._ready and not self._is_over:
            await self._fetch()
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def _fetch(self) -> None:
        loop = asyncio.get_running_loop()
        is_hungry = loop.time() - self._delivered_at < _SECONDS_UNTIL_WANTED
        self._at_once = min(2 * self._at_once, _MOST_AT_ONCE) if is_hungry else 1
        future: asyncio.Future[list[object]] = loop.create_future()
        self._post(partial(self._read, self._at_once, future))
        self._ready.extend(await future)
        self._delivered_at = loop.time()

    def _read(self, most: int, future: asyncio.Future[list[object]]) -> None:
        """Read some rows; runs in the caller's thread."""
        if future.cancelled():
            return
        try:
            settle = partial(future.set_result, self._next_rows(most))
        except Exception as error:  # it ends the run, where the row is awaited
            settle = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            future.get_loop().call_soon_threadsafe(_unless_done, future, settle)

    def _next_rows(self, most: int) -> list[object]:
        if self._iterator is None:
            self._iterator = iter(self._rows)
        rows: list[object] = []
        ends = time.monotonic() + _SECONDS_AT_ONCE
        while len(rows) < most and (not rows or time.monotonic() < ends):
            try:
                rows.append(next(self._iterator))
            except StopIteration:
                self._is_over = True
                break
        return rows


class LatestProgress:
    """Reports in the caller's thread; what it has not come to see is left out."""

    def __init__(
        self,
        report: Callable[[BulkProgress], object],
        post: Callable[[Callable[[], object]], object],
    ) -> None:
        self._report = report
        self._post = post
        self._is_posted = False
        self._latest = BulkProgress(total=None)

    def __call__(self, progress: BulkProgress) -> None:
        self._latest = progress
        if not self._is_posted:
            self._is_posted = True
            self._post(self._report_latest)

    def _report_latest(self) -> None:
        self._is_posted = False
        self._report(self._latest)


def _unless_done(future: asyncio.Future[list[object]], settle: Callable[[], object]) -> None:
    if not future.done():
        settle()
