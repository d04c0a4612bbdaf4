"""Local files of rows: what they were when a row was written down, and their URLs.

A row is recognised by its files as they are written and by what is in them. Its files are
published just ahead of its POST, and the URLs are frozen with its body.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs

from aifaceswap._api import codec
from aifaceswap._api.requests import local_files, swap_body, with_urls
from aifaceswap.bulk._breaker import CircuitBreaker, RunStopped
from aifaceswap.bulk._identity import files_identity, written_place
from aifaceswap.bulk._journal import JournalEntry, JournalView
from aifaceswap.errors import (
    ConfigurationError,
    FileStoreError,
    InvalidRequestError,
)
from aifaceswap.models import FileSource, SwapRequest

if TYPE_CHECKING:
    from aifaceswap.files import LocalFile, PublishedFile
    from aifaceswap.files._publisher import Publisher

# Rows whose files are being published, or that wait with them for a slot.
_AHEAD = 16
# So many of them at once: requests to create swaps are not to wait for bandwidth or a processor.
_AT_ONCE = 6
# A URL that is valid for less is replaced before it is first sent: swaps wait in a queue.
_SPARE_SECONDS = 900.0


class WrittenPath(os.PathLike[str]):
    """A path as it is written in a file of rows, and the folder that it starts from.

    Attributes:
        text: The path as it is written; a row is recognised by it.
    """

    def __init__(self, text: str, folder: str | os.PathLike[str]) -> None:
        self.text: str = text
        self._folder = folder

    def __fspath__(self) -> str:
        return os.path.join(self._folder, self.text)

    def __repr__(self) -> str:
        return repr(os.fspath(self))


@attrs.frozen(kw_only=True)
class Inputs:
    """The local files of a row.

    Attributes:
        request: The row's request, without URLs for these files.
        files: The files that were read, by the names of their fields.
        hashes: The hashes of all files, if the row is recognised by them.
        place: What it is written like, if it is recognised by that.
    """

    request: SwapRequest
    files: Mapping[str, LocalFile]
    hashes: Mapping[str, str] = attrs.field(factory=dict[str, str])
    place: bytes | None = None

    @property
    def identity(self) -> bytes:
        """What the row is recognised by."""
        return b"" if self.place is None else files_identity(self.place, self.hashes)

    @property
    def body(self) -> bytes:
        """The body without the URLs of the files."""
        return self.body_with({})

    def body_with(self, urls: Mapping[str, str]) -> bytes:
        """The body with the URLs of the files, by the names of their fields."""
        target = self.files.get("target")
        is_gif = target is not None and target.media_type == "image/gif"
        return swap_body(with_urls(self.request, urls, is_gif=is_gif))


class RowFiles:
    """Reads and publishes the local files of a run's rows.

    Args:
        open_publisher: Returns the client's publisher; called once there is a local file.
        max_wait: Seconds without a file that is published after which the run stops.
        on_change: Called when the store begins or ceases to fail.

    Attributes:
        ahead: Limits how many rows have their files published before they have a slot.
        breaker: Pauses publishing while the store fails.
    """

    def __init__(
        self,
        open_publisher: Callable[[], Publisher],
        max_wait: float,
        on_change: Callable[[], object],
    ) -> None:
        self.ahead: asyncio.Semaphore = asyncio.Semaphore(_AHEAD)
        self.breaker: CircuitBreaker = CircuitBreaker(max_wait, on_change)
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._open_publisher = open_publisher
        self._last: dict[str, tuple[object, LocalFile]] = {}
        self._clock = asyncio.get_running_loop().time

    async def read(
        self, request: SwapRequest, journal: JournalView | None, *, is_named: bool
    ) -> Inputs:
        """Read a row's files as far as that is needed to recognise it.

        Args:
            request: The row.
            journal: The journal's rows, if there is a journal.
            is_named: Whether the row is recognised by a name instead.

        Raises:
            InvalidRequestError: A file is missing, cannot be read, or is not an image.
            ConfigurationError: The client has no store.
        """
        inputs = local_files(request)
        # An open file may be closed when the row's turn comes.
        files = {
            name: await self._open(name, value)
            for name, value in inputs.items()
            if not _is_path(value)
        }
        if journal is None or is_named:
            return Inputs(request=request, files=files)
        written = {
            name: f"sha256:{files[name].sha256}" if name in files else _written(value)
            for name, value in inputs.items()
        }
        place = written_place(swap_body(request), written)
        found = {name: _stat(value) for name, value in inputs.items() if name not in files}
        known = _known_files(journal, place, found)
        hashes = {name: file.sha256 for name, file in files.items()}
        for name, now in found.items():
            before = known.get(name)
            if before is None or now not in (None, _fingerprint(before)):
                files[name] = await self._open(name, inputs[name])
                hashes[name] = files[name].sha256
            else:
                hashes[name] = before["sha256"]
        return Inputs(request=request, files=files, hashes=hashes, place=place)

    async def read_all(self, inputs: Inputs) -> Inputs:
        """Read and check the files that were not read yet.

        Raises:
            InvalidRequestError: A file is missing, cannot be read, is not an image, or is not
                the one that the row was recognised by.
        """
        files = {
            name: inputs.files.get(name) or await self._open(name, value)
            for name, value in local_files(inputs.request).items()
        }
        for name, file in files.items():
            if inputs.hashes.get(name, file.sha256) != file.sha256:
                reason = "must not change while a run reads it"
                raise InvalidRequestError.for_field(name, file.name, reason)
        return attrs.evolve(inputs, files=files)

    async def publish(self, entry: JournalEntry) -> JournalEntry:
        """Publish the files of a row that is not sent yet, unless its URLs are still good.

        Returns:
            The row with its body; not written down yet.

        Raises:
            InvalidRequestError: A file cannot be published.
            RunStopped: The store has failed for too long.
        """
        if not needs_files(entry) or not _ends_within(entry, _SPARE_SECONDS):
            return entry
        if entry.inputs is None:
            text = "the URLs of its files have expired, and the row is not in the input with them"
            raise InvalidRequestError(text, field="source")
        inputs = await self.read_all(entry.inputs)
        published = await self._publish_all(inputs.files)
        values = local_files(inputs.request)
        files = {
            name: {"path": _path(values[name]), **_frozen(inputs.files[name], published[name])}
            for name in published
        }
        return attrs.evolve(
            entry,
            body=inputs.body_with({name: file.url for name, file in published.items()}),
            place=inputs.place,
            files=codec.dumps(files).decode(),
            inputs=inputs,
        )

    async def _open(self, name: str, value: Any) -> LocalFile:
        """Read and check a file; a path that many rows in succession have is read once."""
        found = (_written(value), _stat(value)) if _is_path(value) else None
        before, file = self._last.get(name, (None, None))
        if file is not None and found == before:
            return file
        publisher = self._open_publisher()
        if publisher.store is None:
            from aifaceswap.files._publisher import missing_store  # noqa: PLC0415 - its users pay

            raise ConfigurationError(missing_store(name), field="files")
        opened = await publisher.open(name, value)
        assert not isinstance(opened, str)  # noqa: S101 - a URL is not a local input
        if found is not None:
            self._last[name] = found, opened
        return opened

    async def _publish_all(self, files: Mapping[str, LocalFile]) -> dict[str, PublishedFile]:
        publisher = self._open_publisher()
        while True:
            async with self.breaker.turn():
                began = self._clock()
                try:
                    async with self._at_once:
                        published = {name: await publisher.publish(files[name]) for name in files}
                except ConfigurationError as error:
                    raise RunStopped(error) from error
                except FileStoreError as error:
                    failure = error
                else:
                    self.breaker.accepted()
                    return published
            self.breaker.pause(failure, began)


def needs_files(entry: JournalEntry) -> bool:
    """Whether the row's files are published before it is sent; then they are frozen."""
    has_files = entry.inputs is not None or entry.files is not None
    return has_files and entry.swap_id is None and entry.sent_at is None


def has_expired(entry: JournalEntry) -> bool:
    """Whether a URL in the body of a row does not work any more."""
    return entry.files is not None and _ends_within(entry, 0.0)


def _ends_within(entry: JournalEntry, seconds: float) -> bool:
    if entry.files is None:
        return True
    ends = [file["expires"] for file in _load(entry).values() if file["expires"] is not None]
    return bool(ends) and min(ends) <= time.time() + seconds


def _known_files(
    journal: JournalView, place: bytes, found: Mapping[str, tuple[int, int] | None]
) -> Mapping[str, Any]:
    """What the files of a row were, if the journal has one that is written like it."""
    expected = journal.expected(place)
    if expected is not None:
        files = _load(expected)
        if all(now == _fingerprint(files[name]) for name, now in found.items()):
            return files
    newest = journal.newest_at(place)
    return {} if newest is None else _load(newest)


def _load(entry: JournalEntry) -> Mapping[str, Any]:
    files: Mapping[str, Any] = codec.loads((entry.files or "{}").encode())
    return files


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def _written(value: FileSource) -> str:
    if isinstance(value, WrittenPath):
        return value.text
    return os.fsdecode(cast("str | os.PathLike[str]", value))


def _path(value: Any) -> str | None:
    """Where a file is, for reports; None: it is not a file with a path."""
    if not isinstance(value, str | os.PathLike):
        return None
    return os.path.abspath(os.fsdecode(cast("str | os.PathLike[str]", value)))


def _stat(value: Any) -> tuple[int, int] | None:
    """Size and time of a regular file, or None if it is missing."""
    try:
        found = os.stat(value)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _fingerprint(file: Mapping[str, Any]) -> tuple[int, int]:
    return file["size"], file["mtime_ns"]


def _frozen(file: LocalFile, published: PublishedFile) -> dict[str, Any]:
    ends = published.expires_at
    return {
        "sha256": file.sha256,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "expires": None if ends is None else ends.timestamp(),
    }
