"""Celery and taskiq, their workers killed at random: every row is exactly one swap, without a 429.

A killed worker's rows come back after seconds at the earliest, so only `nox -s crashes` runs this.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aifaceswap.emulator import Emulator
from process.examples.apps import EXAMPLES, free_port
from support.commands import environment
from support.redis_server import serving_redis

ROWS = int(os.environ.get("AIFACESWAP_WORKER_ROWS", "0"))
KILLS = 12
# Seconds after which another worker takes over the row of a dead one.
LONGEST_ROW = 15
PATIENCE = 900.0

COMMANDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "celery": (
        ("celery", "--app=celery_rows", "--quiet", "worker", "--concurrency=4", "-lWARNING"),
        ("celery", "--app=celery_rows", "--quiet", "worker", "--concurrency=4", "-lWARNING"),
    ),
    "taskiq": (
        ("taskiq", "worker", "taskiq_rows:broker", "--workers=3", "--max-async-tasks=3"),
        ("taskiq", "scheduler", "taskiq_rows:scheduler"),
    ),
}
PRODUCER = """
import asyncio, inspect, json, sys, uuid
from {module} import submit
job = str(uuid.UUID(int=7))
rows = [
    (job, row, "https://example.com/face.jpg", f"https://example.com/{{row}}/target.jpg")
    for row in range(int(sys.argv[1]))
]
outcomes = submit(rows, timeout={patience})
print(json.dumps(asyncio.run(outcomes) if inspect.iscoroutine(outcomes) else outcomes))
"""


@contextmanager
def started(command: tuple[str, ...], env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of the engine with its own children, all of which end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=EXAMPLES, env=env, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def children_of(parent: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # ended meanwhile
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(path.parent.name))
    return found


def kill_one(processes: list[subprocess.Popen[bytes]], chance: random.Random) -> None:
    """SIGKILL for a random worker."""
    workers = [child for process in processes for child in children_of(process.pid)]
    if workers:
        os.kill(chance.choice(workers), signal.SIGKILL)


@pytest.mark.skipif(ROWS == 0, reason="takes minutes: nox -s crashes")
@pytest.mark.parametrize("engine", COMMANDS)
def test_no_killed_worker_loses_or_doubles_a_row(engine: str) -> None:
    """Every row has its own swap, whichever worker died at whichever moment."""
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} not installed")
    chance = random.Random(7)
    with ExitStack() as stack:
        port = free_port()
        stack.enter_context(serving_redis("--port", str(port)))
        service = stack.enter_context(Emulator(duration=2.0, spread=1.0))
        env = environment(
            REDIS_URL=f"redis://127.0.0.1:{port}/0",
            AIFACESWAP_API_KEY=service.api_key,
            AIFACESWAP_BASE_URL=service.base_url,
            LONGEST_ROW=str(LONGEST_ROW),
        )
        processes = [stack.enter_context(started(command, env)) for command in COMMANDS[engine]]
        code = PRODUCER.format(module=f"{engine}_rows", patience=PATIENCE)
        producer = subprocess.Popen(
            [sys.executable, "-c", code, str(ROWS)],
            cwd=EXAMPLES,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            kills = 0
            while producer.poll() is None:
                time.sleep(chance.uniform(0.5, 2.0))
                if kills < KILLS and service.swaps:
                    kill_one(processes[: len(processes) if engine == "celery" else 1], chance)
                    kills += 1
        finally:
            producer.kill()
            output, _ = producer.communicate()
    outcomes: list[dict[str, Any]] = json.loads(output)

    assert sorted(outcome["row"] for outcome in outcomes) == list(range(ROWS))
    assert len({outcome["swap"] for outcome in outcomes}) == ROWS
    assert len(service.swaps) == ROWS
    assert [one for one in service.requests if one.status == 429] == []
