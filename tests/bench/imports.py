"""What importing costs: many interleaved interpreters, each doing one import."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import attrs

from bench.harness import Spread, Table, Target, optional, ratios

RESOURCE = optional("resource")  # not on Windows

BARE = "pass"
PACKAGE = "import aifaceswap"
CLIENT = "from aifaceswap import AsyncClient"
STACK = "import aiohttp, attrs, cattrs, anyio"
OURS = (BARE, PACKAGE, "import aifaceswap.webhooks", STACK, CLIENT)
STATEMENTS = (
    *OURS,
    "import httpx",
    "import httpx2",
    "import niquests",
    "import openai",
    "import requests",
)


@attrs.frozen
class Run:
    """One interpreter from start to end, in ms."""

    wall: float
    cpu: float


def measure(*, quick: bool) -> list[Table]:
    """The table of imports."""
    rounds = 8 if quick else 40
    peers = os.environ.get("BENCH_PEERS") is None
    statements = STATEMENTS if peers else OURS
    usable = [statement for statement in statements if _runs(statement)]
    runs: dict[str, list[Run]] = {statement: [] for statement in usable}
    for _ in range(rounds):
        for statement in usable:
            runs[statement].append(_run(statement))
    return [_table(runs)]


def _runs(statement: str) -> bool:
    """Whether all that it imports is installed; it also leaves compiled modules behind."""
    command = [sys.executable, "-c", statement]
    done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False, env=_environment())
    return done.returncode == 0


def _run(statement: str) -> Run:
    began, used = time.perf_counter(), _children()
    subprocess.run([sys.executable, "-c", statement], check=True, env=_environment())
    return Run((time.perf_counter() - began) * 1e3, (_children() - used) * 1e3)


def _environment() -> dict[str, str]:
    """The interpreters import the package that is measured."""
    package = os.environ.get("BENCH_PACKAGE")
    return {**os.environ, "PYTHONPATH": package} if package else dict(os.environ)


def _children() -> float:
    """CPU seconds of the interpreters so far."""
    if RESOURCE is None:
        times = os.times()
        return times.children_user + times.children_system
    usage = RESOURCE.getrusage(RESOURCE.RUSAGE_CHILDREN)
    return float(usage.ru_utime + usage.ru_stime)


def _table(runs: dict[str, list[Run]]) -> Table:
    wall = {name: _over_bare(runs, name, "wall") for name in runs}
    cpu = {name: _over_bare(runs, name, "cpu") for name in runs}
    return Table(
        "Imports: ms that they add to a bare interpreter",
        ("", "wall", "quartiles", "CPU", "quartiles"),
        [
            (name, wall[name].median, str(wall[name]), cpu[name].median, str(cpu[name]))
            for name in runs
            if name != BARE
        ],
        targets=[
            Target(f"`{PACKAGE}`, ms of CPU", cpu[PACKAGE].median, 15.0),
            Target(f"`{CLIENT}` over `{STACK}`, CPU", _ratio(runs, CLIENT, STACK), 1.10),
        ],
        notes=["wall time is not our own where other programs run; CPU time nearly is"],
    )


def _over_bare(runs: dict[str, list[Run]], name: str, what: str) -> Spread:
    return Spread.of(_added(runs, name, what))


def _ratio(runs: dict[str, list[Run]], name: str, other: str) -> float:
    return ratios(_added(runs, name, "cpu"), _added(runs, other, "cpu")).median


def _added(runs: dict[str, list[Run]], name: str, what: str) -> list[float]:
    """What each run took more than the bare one of its round, in ms."""
    pairs = zip(runs[name], runs[BARE], strict=True)
    return [getattr(run, what) - getattr(bare, what) for run, bare in pairs]
