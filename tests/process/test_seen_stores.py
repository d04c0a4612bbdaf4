"""The stores of the page about webhooks, shared by four processes, two of them killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from support.redis_fixtures import own_redis_server
from support.redis_server import RedisServer
from support.seen_worker import DELIVERIES

__all__ = ["own_redis_server"]

WORKER = Path(__file__).parents[1] / "support" / "seen_worker.py"


@pytest.fixture(params=["sql", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("own_redis_server")
        return "redis", server.url
    return "sql", str(tmp_path / "seen.sqlite")


def start(kind: str, where: str, log: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), kind, where, str(log), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.timeout(150)
def test_each_delivery_is_handled_once_by_four_workers(
    place: tuple[str, str], tmp_path: Path
) -> None:
    """Only what a killed worker was handling is handled again."""
    log = tmp_path / "log"
    log.touch()
    workers = {name: start(*place, log, name) for name in ("one", "two", "killed", "killed2")}
    try:
        for worker in workers.values():
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for name in ("killed", "killed2"):
            # One that started late may find that everything is handled.
            while f"{name} begins" not in log.read_text() and workers[name].poll() is None:
                time.sleep(0.01)
            workers[name].kill()
        for name in ("one", "two"):
            assert workers[name].wait(90) == 0
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()

    ends: Counter[str] = Counter()
    begun: defaultdict[str, list[str]] = defaultdict(list)
    for line in log.read_text().splitlines():
        name, what, swap_id = line.split()
        assert what != "never", line
        ends[swap_id] += what == "ends"
        begun[swap_id].append(f"{name} {what}")
    assert len(ends) == DELIVERIES
    repeated = {swap_id for swap_id, count in ends.items() if count != 1}
    # A worker can die between the end of its handler and the commit.
    assert all(any("killed" in note for note in begun[swap_id]) for swap_id in repeated)
    assert len(repeated) <= 16
