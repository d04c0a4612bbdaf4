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
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from aifaceswap.emulator import Emulator
from process.examples.apps import EXAMPLES, free_port
from support.commands import environment
from support.redis_fixtures import serving_redis

ROWS = int(os.environ.get("AIFACESWAP_WORKER_ROWS", "0"))
KILLS = 16
# Each one of so many is that of a machine.
MACHINES = 5
# Seconds after which another worker takes over the row of a dead one.
LONGEST_ROW = 15
TIMEOUT = 900.0

COMMANDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "celery": (
        ("celery", "--app=celery_rows", "--quiet", "worker", "--concurrency=4", "-lWARNING"),
        ("celery", "--app=celery_rows", "--quiet", "worker", "--concurrency=4", "-lWARNING"),
    ),
    "taskiq": (
        ("taskiq", "worker", "taskiq_rows:broker", "--workers=2", "--max-async-tasks=3"),
        ("taskiq", "worker", "taskiq_rows:broker", "--workers=2", "--max-async-tasks=3"),
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


class Program:
    """A program of the engine with the processes that it starts."""

    def __init__(self, command: tuple[str, ...], env: Mapping[str, str]) -> None:
        self._command = command
        self._env = env
        self.start()

    def start(self) -> None:
        """Start it, as a supervisor does."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command],
            cwd=EXAMPLES,
            env=self._env,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End it and all that it has started, as when its machine dies."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill_one_child(self, chance: random.Random) -> None:
        """End one of its workers, as the system does when memory is short."""
        if children := children_of(self._process.pid):
            os.kill(chance.choice(children), signal.SIGKILL)


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


def kill_something(workers: list[Program], number: int, chance: random.Random) -> None:
    """Most often one process, sometimes a machine that comes back."""
    worker = chance.choice(workers)
    if number % MACHINES == 0:
        worker.kill()
        worker.start()
    else:
        worker.kill_one_child(chance)


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
        programs = [Program(command, env) for command in COMMANDS[engine]]
        for program in programs:
            stack.callback(program.kill)
        workers = [
            one
            for one, command in zip(programs, COMMANDS[engine], strict=True)
            if "worker" in command
        ]
        code = PRODUCER.format(module=f"{engine}_rows", patience=TIMEOUT)
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
                    kills += 1
                    kill_something(workers, kills, chance)
        finally:
            producer.kill()
            output, _ = producer.communicate()
    outcomes: list[dict[str, Any]] = json.loads(output)

    assert sorted(outcome["row"] for outcome in outcomes) == list(range(ROWS))
    assert len({outcome["swap"] for outcome in outcomes}) == ROWS
    assert kills == KILLS, "more rows are needed"
    assert len(service.swaps) == ROWS
    assert [one for one in service.requests if one.status == 429] == []
