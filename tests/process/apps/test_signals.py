"""The same apps in processes of their own, which are told to stop, or killed, in mid-call."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aifaceswap.emulator import Emulator
from aifaceswap.emulator.faults import Fault, Latency
from process.apps.sites import load, source

RUN_AIOHTTP = """
import sys
from aiohttp import web
from shop import app
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), shutdown_timeout=25, print=None)
"""
ORDER = {
    "number": 7,
    "source_url": "https://example.com/face.jpg",
    "target_url": "https://example.com/target.jpg",
}


@contextmanager
def running(name: str, folder: Path, emulator: Emulator) -> Iterator[tuple[str, Any]]:
    """An app as its page has it, run as its page says: its URL and its process."""
    (folder / "shop.py").write_text(source(name), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
    run = {
        "aiohttp": ["-c", RUN_AIOHTTP, port],
        "fastapi": ["-m", "uvicorn", "shop:app", "--timeout-graceful-shutdown=25", "--port", port],
    }
    env = {
        **os.environ,
        "AIFACESWAP_API_KEY": emulator.api_key,
        "AIFACESWAP_BASE_URL": emulator.base_url,
    }
    with subprocess.Popen([sys.executable, *run[name]], cwd=folder, env=env) as process:
        try:
            _wait_for(int(port))
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the app does not listen")


def order(url: str) -> tuple[int, dict[str, str]]:
    """Order a swap, as one who waits for the answer."""
    request = urllib.request.Request(
        f"{url}/swaps", json.dumps(ORDER).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=90) as answer:
        return answer.status, json.load(answer)


def await_swap(emulator: Emulator) -> None:
    """Until the service has made the swap; its answer is still to come."""
    while not emulator.swaps:
        time.sleep(0.01)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(faults=[Fault("POST /swaps", Latency(2))]) as emulator:
        yield emulator


@pytest.mark.parametrize("name", ["aiohttp", "fastapi"])
def test_sigterm_waits_for_the_answer(name: str, tmp_path: Path, emulator: Emulator) -> None:
    """A server that is told to stop in mid-call still answers, and then ends by itself."""
    load(name)
    with running(name, tmp_path, emulator) as (url, process), ThreadPoolExecutor() as pool:
        ordered = pool.submit(order, url)
        await_swap(emulator)
        process.send_signal(signal.SIGTERM)
        status, swap = ordered.result()
        assert process.wait(90) in {0, -signal.SIGTERM}
    assert status == 202
    assert [made.id for made in emulator.swaps] == [swap["id"]]


@pytest.mark.parametrize("name", ["aiohttp", "fastapi"])
def test_a_killed_app_loses_nothing(name: str, tmp_path: Path, emulator: Emulator) -> None:
    """Killed before the answer came, started anew: the same order is the same swap."""
    load(name)
    with running(name, tmp_path, emulator) as (url, process), ThreadPoolExecutor() as pool:
        ordered = pool.submit(order, url)
        await_swap(emulator)
        process.kill()
        with pytest.raises((OSError, EOFError)):
            ordered.result()
    with running(name, tmp_path, emulator) as (url, _):
        _, swap = order(url)
    assert [made.id for made in emulator.swaps] == [swap["id"]]
