"""Three hundred creations of several processes with one key, ours and other limiters on Redis.

Each process has a clock of its own: neighbours are half a second apart, as machines can be. The
network and the emulator's window are those of the benchmark `budgets`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import IO, Any

from bench.budgets import CREATIONS, OURS, REQUESTS, WINDOWS
from bench.harness import Table, Target, optional, serving, unpin
from support.redis_server import ADVICE, PROGRAM, RedisServer

SKEW = 0.5
CONTENDERS = {OURS: "redis", "limits": "limits", "pyrate-limiter": "pyrate_limiter"}


def measure(*, quick: bool) -> list[Table]:
    """The tables of 4 and of 16 processes."""
    if PROGRAM is None:
        return [Table("many: not measured", ("why",), [(ADVICE,)])]
    window = 2 if quick else 6
    unpin()
    return [_table(processes, window) for processes in (4, 16)]


def _table(processes: int, window: int) -> Table:
    results = {
        name: _run(name, processes, window)
        for name, module in CONTENDERS.items()
        if optional(module) is not None
    }
    ideal = WINDOWS * window
    refused, seconds = results[OURS]
    return Table(
        f"{CREATIONS} creations of {processes} processes at {REQUESTS} in {window} s",
        ("", "429 responses", f"seconds (ideal {ideal})", "of the ideal"),
        [(name, count, took, took / ideal) for name, (count, took) in results.items()],
        targets=[
            Target("429 responses", refused, 0),
            Target("time of the ideal", seconds / ideal, 1.04),
        ],
        notes=[f"clocks of neighbouring processes are {SKEW:g} s apart"],
    )


def _run(name: str, processes: int, window: int) -> tuple[int, float]:
    """Refused requests and seconds, from the common start to the end of the last process."""
    limits = {"per_minute": REQUESTS, "window": window, "per_day": None, "concurrent": None}
    with serving(**limits) as server, _redis() as redis_url:
        orders = [
            {
                "name": name,
                "base_url": server.base_url,
                "redis_url": redis_url,
                "creations": CREATIONS * (number + 1) // processes
                - CREATIONS * number // processes,
                "skew": SKEW * (number % 2),
                "window": window,
            }
            for number in range(processes)
        ]
        seconds = _time_of(orders)
        return server.statuses().get("429", 0), seconds


@contextmanager
def _redis() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        server = RedisServer(folder)
        try:
            server.start()
            yield server.url
        finally:
            server.kill()


def _time_of(orders: Sequence[dict[str, Any]]) -> float:
    """Start a process for each order, let all begin at once, and wait for the last."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.many_worker", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for order in orders
    ]
    for worker in workers:
        _stream(worker.stdout).readline()
    began = time.perf_counter()
    for worker in workers:
        _stream(worker.stdin).write("\n")
        _stream(worker.stdin).flush()
    for worker in workers:
        assert _stream(worker.stdout).readline() == "done\n"
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.communicate()
    return seconds


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
