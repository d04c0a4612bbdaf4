"""The command as users run it: in a process of its own, on pipes or on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

INSTANT = "https://example.com/instant.jpg"
FOREVER = "https://example.com/forever.jpg"

_TIMEOUT = 90.0


@attrs.frozen
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        data: dict[str, Any] = json.loads(line)
        return data

    @property
    def next(self) -> str:
        """What is to be done next: the end of stderr."""
        return self.err.rpartition("Next: ")[2].strip()


def environment(**more: str) -> dict[str, str]:
    """The environment of a user, with no settings of the test run's own."""
    names = ("PATH", "HOME", "LANG", *(name for name in os.environ if name.startswith("COVERAGE_")))
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "TERM": "xterm-256color", "COLUMNS": "", **more}


def run_process(
    *arguments: str, env: Mapping[str, str] | None = None, code: str | None = None
) -> Outcome:
    """Run the command to its end, its output on pipes."""
    start = ["-m", "aifaceswap"] if code is None else ["-c", code]
    done = subprocess.run(
        [sys.executable, *start, *arguments],
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@attrs.define(eq=False)
class Running:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    output: int
    seen: bytes = b""

    def read_until(self, text: str) -> str:
        """Wait until the output shows a text; what it has shown by then."""
        deadline = time.monotonic() + _TIMEOUT
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, self.seen
            assert self._read(deadline), self.seen
        return self.seen.decode()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait for the end; the exit code."""
        deadline = time.monotonic() + _TIMEOUT
        while self._read(deadline):
            pass
        return self.process.wait(timeout=_TIMEOUT)

    @property
    def text(self) -> str:
        """All of the output so far."""
        return self.seen.decode()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.output], [], [], max(0.0, deadline - time.monotonic()))
        try:
            chunk = os.read(self.output, 65_536) if ready else b""
        except OSError:  # a terminal whose other end has been closed
            chunk = b""
        self.seen += chunk
        return bool(chunk)


@contextmanager
def running(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start the command with stdout and stderr on one pipe."""
    reader, writer = os.pipe()
    with _started(arguments, env, reader, writer) as command:
        yield command


@contextmanager
def on_terminal(
    *arguments: str, env: Mapping[str, str] | None = None, columns: int = 80
) -> Iterator[Running]:
    """Start the command on a terminal."""
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (24, columns))
    with _started(arguments, env, reader, writer, stdin=writer) as command:
        yield command


@contextmanager
def _started(
    arguments: tuple[str, ...],
    env: Mapping[str, str] | None,
    reader: int,
    writer: int,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "aifaceswap", *arguments],
        env=environment(**(env or {})),
        stdin=stdin,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    try:
        yield Running(process, reader)
    finally:
        process.kill()
        process.wait()
        os.close(reader)
