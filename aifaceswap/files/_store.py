"""What a store of files is, and how concurrent uploads of one file become one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from copy import copy
from datetime import datetime
from typing import Protocol, TypeAlias, runtime_checkable

import attrs

from aifaceswap.errors import AIFaceSwapError
from aifaceswap.files._local import LocalFile
from aifaceswap.models import without_query


@attrs.frozen
class PublishedFile:
    """A file that the service can fetch.

    Attributes:
        url: Its URL; the signature in it is not shown by ``repr()``.
        expires_at: When the URL stops working, with a time zone; None: never.
    """

    url: str = attrs.field(repr=lambda url: repr(without_query(url)))
    expires_at: datetime | None = None


@runtime_checkable
class FileStore(Protocol):
    """Where local files are published. Both methods may be called from several event loops."""

    async def publish(self, file: LocalFile) -> PublishedFile:
        """Make a file available at a URL.

        Args:
            file: The file, which is an image.

        Returns:
            Its URL. The same file has the same URL while that is valid for long enough: a
            request that is repeated with its idempotency key must have the same body.

        Raises:
            FileStoreError: The store cannot take files.
            InvalidRequestError: The file cannot be read, or has changed.
        """
        ...

    async def withdraw(self, url: str) -> None:
        """Remove a file. A file that is gone already is not an error.

        Args:
            url: The URL that `publish` returned.

        Raises:
            FileStoreError: The file cannot be removed.
            InvalidRequestError: `url` is not a URL of this store.
        """
        ...


_Key: TypeAlias = tuple[int, str]


class Uploads:
    """Lets tasks that publish the same file wait for one upload, also across event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[_Key, Future[PublishedFile | None]] = {}

    async def share(
        self, name: str, publish: Callable[[], Awaitable[PublishedFile]]
    ) -> PublishedFile:
        """Run `publish`, or wait for the call with this name that is running."""
        key = os.getpid(), name  # nobody finishes for a fork what its parent has begun
        while True:
            with self._lock:
                running = self._running.get(key)
                if running is None:
                    own = self._running[key] = Future()
                    own.set_running_or_notify_cancel()  # no waiter can cancel it
                    break
            try:
                published = await asyncio.wrap_future(running)
            except AIFaceSwapError as error:
                # Each call gets its own: errors carry the idempotency key of their call.
                raise copy(error) from None
            if published is not None:  # not abandoned
                return published
        return await self._lead(key, own, publish)

    async def _lead(
        self,
        key: _Key,
        own: Future[PublishedFile | None],
        publish: Callable[[], Awaitable[PublishedFile]],
    ) -> PublishedFile:
        try:
            published = await publish()
        except BaseException as error:
            # If it was cancelled, one of those who wait publishes in its place.
            outcome = copy(error) if isinstance(error, AIFaceSwapError) else None
            self._end(key, own, outcome)
            raise
        self._end(key, own, published)
        return published

    def _end(
        self,
        key: _Key,
        own: Future[PublishedFile | None],
        outcome: PublishedFile | AIFaceSwapError | None,
    ) -> None:
        with self._lock:
            del self._running[key]
        if isinstance(outcome, AIFaceSwapError):
            own.set_exception(outcome)
        else:
            own.set_result(outcome)
