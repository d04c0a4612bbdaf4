"""Reads the settings of an emulator from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from aifaceswap.emulator.settings import Settings


def load_settings(path: str | PathLike[str]) -> Settings:
    """Read settings and faults from a TOML file, for `Emulator(**load_settings(path))`.

    The file has a table `[settings]` and tables `[[fault]]`; both are optional:

        [settings]
        prices = { image = 3 }
        idempotency = { forget_after = 3600 }

        [[fault]]
        match = "POST /swaps"
        do = { action = "cloudflare_page", status = 524 }

    Args:
        path: The file.

    Returns:
        The settings that the file names, and `faults`.

    Raises:
        ValueError: It is not such a file; the message names the field.
        OSError: It cannot be read.
    """
    from aifaceswap.emulator._script import read_script  # noqa: PLC0415 - loads cattrs

    return read_script(Path(path).read_bytes(), str(path))
