"""What a store of files is, and how concurrent uploads of one file become one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from copy import copy
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

import attrs

from aifaceswap.errors import AIFaceSwapError
from aifaceswap.files._local import LocalFile
from aifaceswap.models import without_query


def _shown_url(url: str) -> str:
    return repr(without_query(url))


@attrs.frozen
class PublishedFile:
    """A file that the service can fetch.

    Attributes:
        url: Its URL; the signature in it is not shown by ``repr()``.
        expires_at: When the URL stops working, with a time zone; None: never.
    """

    url: str = attrs.field(repr=_shown_url)
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


_ABANDONED: Final = None


class Uploads:
    """Lets tasks that publish the same file wait for one upload, also across event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Future[PublishedFile | None]] = {}

    async def share(
        self, key: str, publish: Callable[[], Awaitable[PublishedFile]]
    ) -> PublishedFile:
        """Run `publish`, or wait for the call with this key that is running."""
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
            if published is not _ABANDONED:
                return published
        return await self._lead(key, own, publish)

    async def _lead(
        self,
        key: str,
        own: Future[PublishedFile | None],
        publish: Callable[[], Awaitable[PublishedFile]],
    ) -> PublishedFile:
        published: PublishedFile | None = _ABANDONED
        failure: AIFaceSwapError | None = None
        try:
            published = await publish()
        except AIFaceSwapError as error:
            failure = copy(error)
            raise
        finally:
            with self._lock:
                del self._running[key]
            if failure is None:
                own.set_result(published)
            else:
                own.set_exception(failure)
        return published
