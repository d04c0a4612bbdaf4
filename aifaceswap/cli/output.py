"""Where results go besides files: to stdout as bytes, and to a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import BinaryIO

import click

from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.rendering import note, printable

#: What stands for stdout in place of a file.
STDOUT = Path("-")

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


def binary_stdout(context: CommandContext) -> BinaryIO:
    """Stdout for the bytes of a result, which nothing else may be written to."""
    if context.as_json:
        raise click.UsageError("--json and --output - both write to stdout: use one of them.")
    fault = "a terminal" if sys.stdout.isatty() else "closed"
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        advice = "Redirect it to a file or a pipe, or use --output FILE."
        raise click.UsageError(f"--output - writes bytes to stdout, which is {fault}. {advice}")
    return sys.stdout.buffer


def open_file(path: Path) -> None:
    """Open a file in the browser, and say what was done; without a display nothing is opened."""
    shown = printable(path)
    # On a terminal alone, a browser in text mode would take it over.
    if sys.platform not in {"darwin", "win32"} and not any(map(os.environ.get, _DISPLAYS)):
        note(f"Not opened, because there is no display: {shown}")
    elif webbrowser.open(path.resolve().as_uri()):
        note(f"Opened {shown}.")
    else:
        note(f"Not opened, because no browser was found: {shown}")
