"""A real Redis server for tests, which can be killed and started again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

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

    def command(self, text: str) -> str:
        """Carry out a command; the first line of the response."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(self._path)
            connection.sendall(f"{text}\r\n".encode())
            with connection.makefile("rb") as lines:
                return lines.readline().decode().strip()

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


@contextmanager
def serving_redis(*options: str) -> Iterator[RedisServer]:
    """Run a server; skip the test where Redis is not installed."""
    pytest.importorskip("redis", reason="needs redis: pip install 'aifaceswap[redis]'")
    if PROGRAM is None:
        pytest.skip(ADVICE)
    with TemporaryDirectory() as folder:
        server = RedisServer(folder)
        try:
            server.start("--enable-debug-command", "yes", *options)
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def shared_redis_server() -> Iterator[RedisServer]:
    with serving_redis() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis_server: RedisServer) -> RedisServer:
    """A server with nothing in it, for tests that neither kill nor stop it."""
    shared_redis_server.command("FLUSHALL")
    return shared_redis_server


@pytest.fixture
def own_redis_server() -> Iterator[RedisServer]:
    """A server of this test alone, to kill or to stop."""
    with serving_redis() as server:
        yield server
