"""A real Redis server for tests, which can be killed and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
ADVICE = "needs a Redis server: apt-get install redis-server, or brew install redis"


class RedisServer:
    """A server on a Unix socket: no port that another process may take meanwhile."""

    def __init__(self, folder: str) -> None:
        self._path = str(Path(folder, "redis.sock"))
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._path}"

    def start(self, *options: str) -> None:
        """Start it, empty, and wait until it responds."""
        assert PROGRAM is not None
        fixed = ("--port", "0", "--unixsocket", self._path, "--save", "", "--dir", self._folder)
        self._process = subprocess.Popen([PROGRAM, *fixed, *options], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while self._try("PING") not in {"+PONG", "-NOAUTH Authentication required."}:
            assert time.monotonic() < until, "the Redis server does not start"
            assert self._process.poll() is None, "the Redis server has ended"
            time.sleep(0.005)

    def kill(self) -> None:
        """End it as a crash does; what it knew is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it where it is: connections stay open, nothing responds."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it continue."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, text: str) -> str:
        """Carry out a command; the first line of the response."""
        return self.commands(text)

    def commands(self, *texts: str) -> str:
        """Carry out commands on one connection; the first line of the last response."""
        line = b""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(self._path)
            with connection.makefile("rb") as lines:
                for text in texts:
                    connection.sendall(f"{text}\r\n".encode())
                    line = lines.readline()
        return line.decode().strip()

    def info(self, section: str) -> str:
        """What the command INFO returns."""
        with self.start_command(f"INFO {section}") as connection, connection.makefile("rb") as file:
            return file.read(int(file.readline()[1:])).decode()

    def start_command(self, text: str) -> socket.socket:
        """Send a command without waiting for its end, e.g. ``DEBUG SLEEP``; close what returns."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        connection.sendall(f"{text}\r\n".encode())
        return connection

    def _try(self, text: str) -> str:
        try:
            return self.command(text)
        except OSError:
            return ""
