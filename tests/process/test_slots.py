"""Workers that share slots and are killed: no 429, and every row one swap.

Only `nox -s crashes` runs it, with 80 swaps of 5 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aifaceswap.emulator import Emulator, Limits
from support.redis_fixtures import serving_redis
from support.redis_server import RedisServer

WORKER = Path(__file__).parents[1] / "support" / "slot_worker.py"
ROWS = int(os.environ.get("AIFACESWAP_SLOT_ROWS", "0"))
SECONDS = 5.0


def start(redis: RedisServer, emulator: Emulator, folder: Path, name: str) -> subprocess.Popen[str]:
    where = (redis.url, emulator.api_key, emulator.base_url, str(folder), name)
    command = [sys.executable, str(WORKER), *where]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def rows_of(folder: Path, name: str) -> list[Path]:
    return list((folder / name).iterdir()) if (folder / name).exists() else []


def kill(worker: subprocess.Popen[str], folder: Path, name: str) -> None:
    """SIGKILL in the middle of its rows, which return to the queue as they do with Celery."""
    worker.kill()
    worker.communicate()
    for row in rows_of(folder, name):
        row.rename(folder / "todo" / row.name)


@pytest.mark.skipif(not ROWS, reason="needs minutes: nox -s crashes")
def test_killed_workers_neither_leak_slots_nor_exceed_them(tmp_path: Path) -> None:
    """The service counts the swaps of the killed, and never more than ten."""
    for name in ("todo", "done"):
        (tmp_path / name).mkdir()
    for number in range(ROWS):
        (tmp_path / "todo" / str(number)).touch()
    limits = Limits(per_minute=None, per_day=None)
    with (
        serving_redis() as redis,
        Emulator(duration=SECONDS, limits=limits, credits=1e6) as emulator,
    ):
        workers = {name: start(redis, emulator, tmp_path, name) for name in "abcd"}
        try:
            for worker in workers.values():
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
            began = time.monotonic()
            for name, after in (("a", ROWS // 4), ("b", ROWS // 2)):
                worker = workers.pop(name)
                # One that starts late may find that all is done.
                while worker.poll() is None and not (
                    len(rows_of(tmp_path, "done")) >= after and rows_of(tmp_path, name)
                ):
                    time.sleep(0.01)
                kill(worker, tmp_path, name)
                workers[name + name] = start(redis, emulator, tmp_path, name + name)
            for worker in workers.values():
                assert worker.wait(50 + ROWS * SECONDS) == 0
        finally:
            for worker in workers.values():
                worker.kill()
                worker.communicate()
        seconds = time.monotonic() - began

    ideal = ROWS * SECONDS / 10
    statuses = [request.status for request in emulator.requests]
    print(f"{seconds:.1f} s, {seconds / ideal:.2f} of the ideal; {len(statuses)} requests")
    assert len(rows_of(tmp_path, "done")) == len(emulator.swaps) == ROWS
    assert 429 not in statuses
