"""From what a caller passes as `source` and `target` to URLs: shared by create, run and bulk."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, cast
from urllib.parse import urlsplit

import attrs
from anyio import to_thread

from aifaceswap import _validation
from aifaceswap._api.requests import local_files, with_urls
from aifaceswap._limits import FILES_VARIABLE, SIGNING_ENDPOINT_VARIABLE
from aifaceswap.errors import (
    AIFaceSwapError,
    ConfigurationError,
    FileStoreError,
    InvalidRequestError,
)
from aifaceswap.files._bucket import BucketStore, is_signing_store
from aifaceswap.files._emulator import EmulatorStore
from aifaceswap.files._local import LocalFile, check_file
from aifaceswap.files._store import FileStore, PublishedFile
from aifaceswap.models import SwapRequest

HOW_TO_SET_UP: Final = (
    f"set {FILES_VARIABLE} or pass files=, e.g. 's3://bucket/prefix' "
    "(pip install obstore), or pass a public https:// URL"
)
NOT_PUBLIC: Final = f"set {SIGNING_ENDPOINT_VARIABLE} to the public address of the bucket's server"


@attrs.frozen
class Publisher:
    """Publishes local files in a client's store.

    Attributes:
        store: The store; None: local files are rejected.
        is_local: Whether the client uses an emulator, which accepts URLs of this machine.
    """

    store: FileStore | None
    is_local: bool

    @classmethod
    def of(cls, files: object, base_url: str) -> Publisher:
        """The publisher of a client; nothing is opened, and obstore is not loaded."""
        is_local = _validation.is_loopback(urlsplit(base_url).hostname)
        if files is None:
            files = os.environ.get(FILES_VARIABLE) or None
        if files is None:
            return cls(EmulatorStore(base_url) if is_local else None, is_local)
        if isinstance(files, str) or is_signing_store(files):
            return cls(BucketStore(cast("str", files)), is_local)
        if isinstance(files, FileStore):
            return cls(files, is_local)
        reason = "must be a bucket like 's3://bucket/prefix', an obstore store or a FileStore"
        raise ConfigurationError.for_field("files", files, reason)

    async def open(self, field: str, value: object) -> LocalFile | str:
        """A checked local file, or the checked URL that was passed in its place."""
        if _validation.is_url(value):
            return _validation.file_url(field, value)
        file = await to_thread.run_sync(check_file, field, value, abandon_on_cancel=True)
        if self.store is None:
            raise InvalidRequestError(missing_store(field), field=field, value=value)
        return file

    async def publish(self, file: LocalFile) -> PublishedFile:
        """Publish a file that `open` has returned."""
        assert self.store is not None  # noqa: S101 - open() has checked it
        with _store_errors("publish"):
            published = await self.store.publish(file)
        if not isinstance(published, PublishedFile):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise FileStoreError(f"publish() of {self.store!r} must return a PublishedFile")
        if not (self.is_local or _validation.is_public_url(published.url)):
            raise FileStoreError(f"{self.store!r} publishes a URL that is not public: {NOT_PUBLIC}")
        return published

    async def withdraw(self, url: str) -> None:
        """Remove a published file."""
        if self.store is None:
            raise InvalidRequestError(f"there is no store of files: {HOW_TO_SET_UP}", field="url")
        with _store_errors("withdraw"):
            await self.store.withdraw(url)

    async def publish_files(self, request: SwapRequest) -> SwapRequest:
        """The request with the URLs of its files: all are checked before one is published."""
        given = local_files(request)
        files = {name: await self.open(name, file) for name, file in given.items()}
        urls = {name: await self.url_of(file) for name, file in files.items()}
        return with_urls(request, urls, is_gif=is_gif(files.get("target")))

    async def url_of(self, file: LocalFile | str) -> str:
        """The URL of what `open` has returned."""
        return file if isinstance(file, str) else (await self.publish(file)).url


def missing_store(field: str) -> str:
    """What is wrong with a local file where there is no store."""
    return f"{field} is a local file, and there is no store to publish it: {HOW_TO_SET_UP}"


def is_gif(file: object) -> bool:
    """Whether a target is a GIF, by its bytes."""
    return isinstance(file, LocalFile) and file.media_type == "image/gif"


@contextmanager
def _store_errors(action: str) -> Generator[None]:
    try:
        yield
    except AIFaceSwapError:
        raise
    except Exception as error:  # of a store that is not ours
        text = f"the store cannot {action} the file: {type(error).__name__}"
        raise FileStoreError(text) from error
