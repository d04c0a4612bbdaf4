"""Start the examples with several processes: a Redis server, the emulator, the workers.

Your own deployment does not need this: set AIFACESWAP_API_KEY and REDIS_URL, and start the
workers with their own commands.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aifaceswap.emulator import Emulator
from rows import Row

FOLDER = Path(__file__).parent
FACE = "https://example.com/face.jpg"


class Services:
    """What runs on this machine while an example does."""

    def __init__(self, emulator: Emulator, redis_url: str, server: str) -> None:
        self.emulator = emulator
        self.redis_url = redis_url
        self.server = server

    @contextmanager
    def run(self, *arguments: str) -> Iterator[None]:
        """Run a Python program with its own children, and stop them at the end."""
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, cwd=FOLDER, start_new_session=True)  # noqa: S603
        try:
            yield
        finally:
            process.terminate()
            # What does not stop is killed, as a supervisor does: its rows come back.
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            _kill_group(process)
            process.wait()

    def show(self, outcomes: Iterable[Mapping[str, Any]]) -> None:
        """Print the outcome of each row, and what reached the service."""
        count = 0
        for count, outcome in enumerate(outcomes, 1):  # noqa: B007 - counted
            print(f"row {outcome['row']}: {outcome.get('result_url') or outcome['error']}")
        rejected = sum(request.status == 429 for request in self.emulator.requests)
        swaps = len(self.emulator.swaps)
        print(f"{count} rows, {swaps} swaps, {rejected} responses of 429", flush=True)


@contextmanager
def start(*, deliver_to: str | None = None, servers: Sequence[str] = ()) -> Iterator[Services]:
    """Read the options, start Redis and the emulator, and set the environment for both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--emulator", action="store_true", help="use a local emulator, no key")
    parser.add_argument("--duration", type=float, default=2.0, help="seconds for an emulated swap")
    if servers:
        parser.add_argument("--server", choices=servers, default=servers[0])
    options = parser.parse_args()
    if not options.emulator:
        parser.error("use --emulator; the first lines of this file show the command for a real key")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        with ExitStack() as stack:
            url = stack.enter_context(redis_server(parser))
            emulator = Emulator(duration=options.duration, deliver_to=deliver_to)
            stack.enter_context(emulator)
            os.environ["REDIS_URL"] = url
            os.environ["AIFACESWAP_API_KEY"] = emulator.api_key
            os.environ["AIFACESWAP_BASE_URL"] = emulator.base_url
            print(f"Emulator at {emulator.base_url}, Redis at {url}", flush=True)
            yield Services(emulator, url, getattr(options, "server", ""))
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def redis_server(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A Redis server on a free port, with nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        parser.error("redis-server is not installed: apt install redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        where = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        server = subprocess.Popen(  # noqa: S603
            [program, *where], stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def wait_for(port: int) -> None:
    """Wait until a server listens on a port."""
    until = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    """A port on which nothing listens, outside the range that the system gives to clients."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def sample_rows() -> list[Row]:
    """Twelve rows of one job: the arguments of `make_swap`."""
    job = str(uuid.uuid4())
    return [(job, row, FACE, f"https://example.com/{row}/target.jpg") for row in range(12)]


def place_orders(url: str, count: int) -> list[dict[str, Any]]:
    """Send orders to an app, each request on a connection of its own."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(functools.partial(_place_order, url), range(count)))


def _place_order(url: str, number: int) -> dict[str, Any]:
    target = f"https://example.com/{number}/target.jpg"
    images = {"source_url": FACE, "target_url": target}
    order = _send("PUT", f"{url}/orders/{uuid.uuid4()}", images)
    while "result_url" not in order:
        order = _send("GET", f"{url}/swaps/{order['swap']}")
    return {"row": number, **order}


def _send(method: str, url: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=60)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request(method, parts.path, json.dumps(body), headers)
        value: dict[str, Any] = json.load(connection.getresponse())
        return value


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
