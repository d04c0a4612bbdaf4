"""Local files that a model may use: those in folders that the user has allowed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from aifaceswap import _validation
from aifaceswap.errors import InvalidRequestError
from aifaceswap.files._local import LocalFile, check_file


class Folders:
    """Finds what a model names as source or target.

    Args:
        allowed: The folders that may be read, with everything below them.
    """

    def __init__(self, allowed: Sequence[Path]) -> None:
        self._allowed = [folder.resolve() for folder in allowed]

    def find(self, name: str, value: str) -> LocalFile | str:
        """The checked file, or the checked URL. Blocks.

        Raises:
            InvalidRequestError: It is neither, or it is not in an allowed folder.
        """
        if _validation.is_url(value):
            return _validation.public_url(name, value)
        if not self._allowed:
            reason = "must be a public https:// URL; the user has allowed no local files (--allow)"
            raise InvalidRequestError.for_field(name, value, reason)
        # Resolved before it is checked: `..` and symbolic links lead elsewhere.
        paths = [_resolved(name, value, folder) for folder in self._allowed]
        inside = [path for path in paths if any(map(path.is_relative_to, self._allowed))]
        if not inside:
            reason = f"must be in an allowed folder: {', '.join(map(str, self._allowed))}"
            raise InvalidRequestError.for_field(name, value, reason)
        return check_file(name, next(filter(os.path.exists, inside), inside[0]))


def _resolved(name: str, value: str, folder: Path) -> Path:
    try:
        return (folder / Path(value).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # loops, unknown users, NUL
        reason = f"must be the path of a file ({error})"
        raise InvalidRequestError.for_field(name, value, reason) from None
