"""Draw the terminal of README: a swap, and a bulk run in progress.

    pip install pyte && python docs/plots/terminal.py

The commands are carried out against private emulators, in a terminal of their own.
"""

from __future__ import annotations

import fcntl
import html
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pyte

PICTURES = Path(__file__).parents[1] / "pictures"
PICTURE = Path(__file__).parents[1] / "_static" / "terminal.svg"
COLUMNS, LINES = 88, 40
NBSP = "\N{NO-BREAK SPACE}"
CELL, LINE, MARGIN = 8.4, 19, 18
BACKGROUND, FOREGROUND = "#1e2430", "#d8dee9"
COLORS = {"green": "#8fbf7f", "red": "#e06c75", "cyan": "#6fb3c9", "brown": "#d9b36c"}
FACE = "https://example.com/face.jpg"
RUN = "aifaceswap --emulator run docs/pictures/face.jpg docs/pictures/party.gif -o out.gif"
BULK = "aifaceswap --emulator bulk rows.csv --output out/"
HALF_DONE = r"2\d of 40"


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        targets = [f"https://example.com/{number}.jpg" for number in range(40)]
        targets[3] = "https://example.com/nsfw.jpg"
        rows = "".join(f"{FACE},{target}\n" for target in targets)
        Path(folder, "rows.csv").write_text(f"source_url,target_url\n{rows}", encoding="utf-8")
        shutil.copytree(PICTURES, Path(folder, "docs", "pictures"))
        lines = [*_screen(RUN, folder)[:-5], *_screen(BULK, folder, HALF_DONE)]
    PICTURE.write_text(_svg(lines), encoding="utf-8")


Piece = tuple[int, str, str, bool]  # column, text, color, bold


def _screen(command: str, folder: str, until: str = "(?!)") -> list[list[Piece]]:
    """The command, and the lines of the terminal at its end, or once the pattern matches."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(  # noqa: S603 - commands of this file
        ["bash", "-c", f"exec {command}"],  # noqa: S607
        cwd=folder,
        env={**os.environ, "TERM": "xterm-256color"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        while not re.search(until, "\n".join(screen.display)):
            stream.feed(os.read(terminal, 4096))
    except OSError:  # the command has ended
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.close(terminal)
    used = [index for index, text in enumerate(screen.display) if text.strip()]
    shown = [list(_pieces(screen.buffer[index])) for index in range(used[-1] + 1)]
    return [[(0, "$", COLORS["green"], True), (2, command, "#ffffff", False)], *shown]


def _pieces(line: dict[int, pyte.screens.Char]) -> Iterator[Piece]:
    """The words of a line that look the same."""
    cells = [(column, line[column]) for column in range(COLUMNS)]
    for (color, bold), found in groupby(cells, lambda cell: (cell[1].fg, cell[1].bold)):
        group = list(found)
        text = "".join(cell.data for _, cell in group)
        if text.strip():
            fill = COLORS.get(color, FOREGROUND if color == "default" else f"#{color}")
            indent = len(text) - len(text.lstrip())
            yield group[0][0] + indent, text.strip(), fill, bold


def _svg(lines: list[list[Piece]]) -> str:
    width, height = COLUMNS * CELL + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    texts = [
        f'<text x="{MARGIN + column * CELL:.1f}" y="{MARGIN + 14 + number * LINE}" fill="{fill}"'
        f' textLength="{len(text) * CELL:.1f}" font-weight="{700 if bold else 400}">'
        f"{html.escape(text.replace(' ', NBSP))}</text>"
        for number, line in enumerate(lines)
        for column, text, fill, bold in line
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}"'
        ' font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14">'
    )
    frame = f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>'
    return "\n".join([head, frame, *texts, "</svg>\n"])


if __name__ == "__main__":
    main()
