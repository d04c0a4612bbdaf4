"""What a caller passes as a file: distinguished from a URL, and checked by its bytes."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import attrs

from aifaceswap._http.images import HEAD, image_type, suffix_of
from aifaceswap._validation import FILE_EXPECTED
from aifaceswap.errors import InvalidRequestError

_CHUNK = 1024 * 1024
# The others are known as images, but few services of this kind read them.
_USUAL = ("image/jpeg", "image/png", "image/gif", "image/webp")


@attrs.frozen(kw_only=True)
class LocalFile:
    """A local image that can be published. Its content is read again when it is needed.

    Attributes:
        name: The file's name without its folder; empty for bytes.
        sha256: The hash of its content, in hex.
        size: Its size in bytes.
        mtime_ns: When it was last modified, in nanoseconds; None for bytes and open files.
        media_type: What it is by its first bytes, e.g. ``"image/jpeg"``.
    """

    name: str
    sha256: str
    size: int
    mtime_ns: int | None
    media_type: str
    _content: bytes | Path = attrs.field(repr=False, eq=False, alias="content")

    @property
    def suffix(self) -> str:
        """The file name suffix that fits the bytes, e.g. ``".jpg"``."""
        return suffix_of(self.media_type)

    @property
    def key(self) -> str:
        """A name that follows from the content: its hash and its suffix."""
        return self.sha256 + self.suffix

    def chunks(self) -> Iterator[bytes]:
        """Read the content, at most 1 MiB at once. Blocks while a file is read.

        Yields:
            The next bytes.

        Raises:
            InvalidRequestError: The file cannot be read, or has changed since it was checked.
        """
        if isinstance(self._content, bytes):
            yield self._content
            return
        digest = hashlib.sha256()
        try:
            with self._content.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    yield chunk
        except OSError as error:
            raise _unreadable(self.name, self._content, error) from None
        # What is published under this hash must be what was hashed.
        if digest.hexdigest() != self.sha256:
            reason = "must not change while it is published"
            raise InvalidRequestError.for_field(self.name, str(self._content), reason)

    def read(self) -> bytes:
        """Read the complete content. Blocks while a file is read.

        Returns:
            The bytes.

        Raises:
            InvalidRequestError: As for `chunks`.
        """
        return b"".join(self.chunks())


def check_file(field: str, value: object) -> LocalFile:
    """Check a local file, and read it for its hash. Blocks."""
    if isinstance(value, str | os.PathLike):
        return _check_path(field, Path(os.fsdecode(cast("str | os.PathLike[str]", value))))
    if isinstance(value, bytes | bytearray | memoryview):
        return _describe(field, "", bytes(cast("bytes", value)))
    if callable(getattr(value, "read", None)):
        content = _read_open_file(field, cast("IO[bytes]", value))
        return _describe(field, _name_of(value), content)
    raise InvalidRequestError.for_field(field, value, FILE_EXPECTED)


def _check_path(field: str, path: Path) -> LocalFile:
    try:
        found = path.stat()
        # A pipe would block, or be empty when it is read again.
        is_file = stat.S_ISREG(found.st_mode)
        head, sha256 = _hash(path) if is_file else (b"", "")
    except (OSError, ValueError) as error:
        raise _unreadable(field, path, error) from None
    if not is_file:
        raise InvalidRequestError.for_field(field, str(path), "must be a regular file")
    return LocalFile(
        name=path.name,
        sha256=sha256,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        media_type=_media_type(field, path, head),
        content=path,
    )


def _hash(path: Path) -> tuple[bytes, str]:
    with path.open("rb") as file:
        head = file.read(HEAD)
        digest = hashlib.sha256(head)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return head, digest.hexdigest()


def _describe(field: str, name: str, content: bytes) -> LocalFile:
    return LocalFile(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        mtime_ns=None,
        media_type=_media_type(field, name or "bytes", content[:HEAD]),
        content=content,
    )


def _media_type(field: str, shown: object, head: bytes) -> str:
    if not head:
        text = f"{field} must be an image; {str(shown)!r} is empty"
        raise InvalidRequestError(text, field=field, value=shown)
    media_type = image_type(head)
    if media_type is None:
        text = f"{field} must be an image; {str(shown)!r} begins with {head[:12]!r}"
        raise InvalidRequestError(text, field=field, value=shown)
    if media_type not in _USUAL:
        text = f"{field}: the service may not read {media_type} ({shown}); JPEG and PNG are safe"
        warnings.warn(text, UserWarning, stacklevel=2)
    return media_type


def _read_open_file(field: str, file: IO[bytes]) -> bytes:
    """Read from the position of an open file, and return there: a retry reads the same."""
    try:
        position = file.tell() if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        position = None
    try:
        content = cast("Any", file.read())
        if position is not None:
            file.seek(position)
    except (OSError, ValueError) as error:
        raise _unreadable(field, _name_of(file) or "the open file", error) from None
    if not isinstance(content, bytes):
        if hasattr(content, "close"):
            content.close()  # a coroutine that nobody awaits
        reason = "must be open in binary mode, with a read() that returns bytes"
        raise InvalidRequestError.for_field(field, file, reason)
    if not content and position:
        reason = "must have bytes after its position; use seek(0)"
        raise InvalidRequestError.for_field(field, file, reason)
    return content


def _name_of(file: object) -> str:
    name = getattr(file, "name", "")
    return Path(name).name if isinstance(name, str) else ""


def _unreadable(field: str, path: object, error: OSError | ValueError) -> InvalidRequestError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    hint = "; a URL must start with https://" if isinstance(error, FileNotFoundError) else ""
    text = f"{field} must be a file that can be read; {str(path)!r}: {reason}{hint}"
    return InvalidRequestError(text, field=field, value=str(path))
