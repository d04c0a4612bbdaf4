"""Files that appear when they are complete, whatever kind of place they are written to."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from aifaceswap.errors import InvalidRequestError

# Where a new file cannot be made or put in an old one's place: bind mounts, folders of others.
_NO_NEW_FILES = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_RENAMES = frozenset({errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.ETXTBSY})
_in_place = threading.Lock()


def check_target(path: str | os.PathLike[str]) -> Path:
    """Check that a file can be written there, before a request is sent.

    Args:
        path: The file.

    Returns:
        The path.

    Raises:
        InvalidRequestError: It does not name a file, or cannot be written to.
    """
    try:
        target = Path(path)
    except TypeError:
        raise InvalidRequestError.for_field(
            "path", path, "must be a path: a str or a PathLike"
        ) from None
    if fault := _target_fault(target):
        raise InvalidRequestError.for_field("path", str(path), fault)
    return target


def _target_fault(target: Path) -> str | None:  # noqa: PLR0911 - one for each fault
    try:
        longest = _longest_name(target.parent)
        if len(os.fsencode(target.name)) > longest:
            return f"must have a file name of at most {longest} bytes"
        real = _real(target)
        if not real.parent.is_dir():
            return "must be in a folder that exists"
        mode = _mode(real)
        if not target.name or (mode is not None and stat.S_ISDIR(mode)):
            return "must name a file, not a folder"
        if mode is not None and not stat.S_ISREG(mode):
            return "must be a regular file"
        if not os.access(real.parent, os.W_OK) and not os.access(real, os.W_OK):
            return "must be in a folder that can be written to"
    except (OSError, ValueError) as error:
        return f"must be a valid file name ({error})"
    return None


def _real(target: Path) -> Path:
    """The file itself if the path is a symbolic link: the link stays."""
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, and odd file systems
        return 255


class PartialFile:
    """A file that takes its target's place when it is complete, and disappears otherwise.

    Args:
        target: The target; a target with another name in the same folder can be chosen later.

    Attributes:
        file: The open file.
    """

    def __init__(self, target: Path) -> None:
        self._folder = _real(target).parent
        self._path: Path | None = self._folder / f".{uuid.uuid4().hex}.part"
        self.file: IO[bytes]
        try:
            self.file = self._path.open("x+b")
        except OSError as error:
            # Only one file may be writable, e.g. one that is mounted into a container.
            if error.errno not in _NO_NEW_FILES or not _real(target).exists():
                raise
            self._path = None
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # a full disk: what is still buffered cannot be written
            self.file.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    def reserve(self, size: int) -> None:
        """Check that the disk has room, before a large download begins.

        Raises:
            OSError: It has not.
        """
        _check_space(self._folder, size)

    def move_to(self, target: Path) -> None:
        """Put the complete file in the target's place; links are followed, modes kept.

        Raises:
            OSError: The target cannot be written.
        """
        real = _real(target)
        self.file.flush()
        os.fsync(self.file.fileno())
        if self._path is not None:
            with suppress(FileNotFoundError):
                shutil.copymode(real, self._path)
            try:
                os.replace(self._path, real)
            except OSError as error:
                if error.errno not in _NO_RENAMES or not real.is_file():
                    raise
            else:
                _sync_folder(real.parent)
                return
        self._copy_into(real)

    def _copy_into(self, real: Path) -> None:
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        with _in_place, real.open("r+b") as file:
            _check_space(real.parent, size - os.fstat(file.fileno()).st_size)
            shutil.copyfileobj(self.file, file)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a renamed file survive a power cut; Windows does so by itself."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        text = f"{os.strerror(errno.ENOSPC)}: {size} bytes are needed, {free} are free"
        raise OSError(errno.ENOSPC, text, str(folder))
