"""The pages of the documentation, what stands on them, and their commands carried out.

A page is README.md or any Markdown file below docs. Of its code blocks

- `python` is run as it stands, unless its first line is a comment with a file's name
  (`# swap.py`): then it is saved under that name, for a command of the page to run;
- `console` holds commands after `$ ` and what they print on a terminal. They are carried out in
  the page's order, in one new folder, with an environment that has no key in it. What differs
  from run to run (ids, times, ports) may differ, and so may whatever the page shows as `…`:
  within a line, or as a line of its own for any number of lines. A command that ends with `&`
  goes on until the page ends;
- everything else is only shown: it must not be Python.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What pages call their ports; a run of theirs takes free ones instead.
PORTS = ("8123", "8080", "8081")

_BLOCK = re.compile(r"^```([^\n`]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w-]+\.\w+)")
_VARYING = re.compile(
    r"\b(?:tsk|req)_[0-9a-f]{24}\b"
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|\b20\d\d-\d\d-\d\d \d\d:\d\d(?::\d\d)?\b"
    r"|(?<=127\.0\.0\.1:)\d+"
)
_SKIPPED_LINES = r"(?:.*\n)*?"


def pages() -> list[Path]:
    """README and every page below docs, in whatever folder."""
    written = (page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
    return [ROOT / "README.md", *sorted(written)]


def name_of(page: Path) -> str:
    """How a page is called in tests: its path below the root."""
    return page.relative_to(ROOT).as_posix()


@attrs.frozen
class Block:
    """One code block.

    Attributes:
        language: What stands after the fence.
        text: What is in it.
        line: The page's line on which `text` begins, from 1.
    """

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name that it is to be saved under, if it is a file."""
        match = _FILE.fullmatch(self.text.partition("\n")[0])
        return match[1] if match else None


@attrs.frozen
class Command:
    """A command of a page, and what the page says that it prints."""

    line: str
    output: str

    @property
    def is_server(self) -> bool:
        return self.line.endswith("&")

    def printed(self, output: str, *, so_far: bool = False) -> bool:
        """Whether the page shows this output; `so_far`: whether more may follow."""
        shown = _VARYING.sub("…", self.output).split("\n")
        lines = (_SKIPPED_LINES if line == "…" else _line(line) for line in shown)
        pattern = "".join(lines) + (r"[\s\S]*" if so_far else "")
        return re.fullmatch(pattern, f"{output}\n") is not None


def _line(shown: str) -> str:
    return re.escape(shown).replace("…", ".*") + "\n"


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for found in _BLOCK.finditer(text)
    ]


def fences(page: Path) -> int:
    """How many lines of a page begin or end a code block, well written or not."""
    return len(re.findall(r"^[ >]*(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE))


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console block."""
    first, *rest = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not first, f"line {block.line}: output without a command"
    for part in rest:
        line, _, output = part.replace("\\\n", "").partition("\n")
        yield Command(line, output.strip("\n"))


class Terminal:
    """Carries out the commands of one page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A reader of the README is in a clone.
        (folder / "docs").symlink_to(DOCS)
        self._servers: list[tuple[subprocess.Popen[bytes], int]] = []
        self._ports = {port: str(_free_port()) for port in PORTS}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        settings = {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}
        self._env = {**os.environ, **settings, "PATH": path}
        for name in ("AIFACESWAP_API_KEY", "AIFACESWAP_BASE_URL"):
            self._env.pop(name, None)

    def save(self, name: str, text: str) -> None:
        (self._folder / name).write_text(self._with_ports(text), encoding="utf-8")

    def carry_out(self, command: Command) -> None:
        """Do what the command says, and see that it prints what the page shows."""
        command = Command(self._with_ports(command.line), self._with_ports(command.output))
        if command.line.startswith("export "):
            for word in shlex.split(command.line)[1:]:
                name, _, value = word.partition("=")
                self._env[name] = value
            return
        terminal, theirs = pty.openpty()
        process = self._start(command.line, theirs)
        os.close(theirs)
        if command.is_server:
            self._servers.append((process, terminal))
            output = _read(terminal, until=command)
        else:
            output = _read(terminal)
            os.close(terminal)
            assert process.wait() == 0 or command.output, f"$ {command.line}\n{output}"
        if command.output:
            matches = command.printed(output, so_far=command.is_server)
            assert matches, f"$ {command.line}\n{output}\n\nis not\n\n{command.output}"

    def close(self) -> None:
        for server, terminal in self._servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
            os.close(terminal)

    def _start(self, line: str, terminal: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", line.removesuffix("&")],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )

    def _with_ports(self, text: str) -> str:
        for shown, port in self._ports.items():
            text = text.replace(shown, port)
        return text


def _read(terminal: int, *, until: Command | None = None) -> str:
    """What is written to a terminal: all there is, or as much as a command says."""
    written = b""
    while until is None or not until.printed(_tidy(written), so_far=True):
        try:
            written += os.read(terminal, 65_536)
        except OSError:  # nobody has it open any more
            break
    return _tidy(written)


def _tidy(written: bytes) -> str:
    lines = re.sub(r"\r+\n", "\n", written.decode(errors="replace")).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
