"""What importing costs: many interleaved interpreters, each doing one import."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import attrs

from bench.harness import Spread, Table, Target

BARE = "pass"
PACKAGE = "import aifaceswap"
CLIENT = "from aifaceswap import AsyncClient"
STACK = "import aiohttp, attrs, cattrs, anyio"
STATEMENTS = (
    BARE,
    PACKAGE,
    "import aifaceswap.webhooks",
    STACK,
    CLIENT,
    "import httpx",
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
    usable = [statement for statement in STATEMENTS if _runs(statement)]
    runs: dict[str, list[Run]] = {statement: [] for statement in usable}
    for _ in range(rounds):
        for statement in usable:
            runs[statement].append(_run(statement))
    return [_table(runs)]


def _runs(statement: str) -> bool:
    """Whether all that it imports is installed; it also leaves compiled modules behind."""
    command = [sys.executable, "-c", statement]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _run(statement: str) -> Run:
    began, used = time.perf_counter(), _children()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return Run((time.perf_counter() - began) * 1e3, (_children() - used) * 1e3)


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _table(runs: dict[str, list[Run]]) -> Table:
    wall = {name: Spread.of([run.wall for run in runs[name]]) for name in runs}
    cpu = {name: Spread.of([run.cpu for run in runs[name]]) for name in runs}
    return Table(
        "Imports: a whole interpreter, in ms",
        ("", "wall", "quartiles", "over bare", "CPU"),
        [
            (
                name,
                round(wall[name].median, 1),
                f"{wall[name].low:.0f} to {wall[name].high:.0f}",
                round(_over(runs[name], runs[BARE]), 1),
                round(cpu[name].median, 1),
            )
            for name in runs
        ],
        targets=[
            Target(f"ms that `{PACKAGE}` adds", _over(runs[PACKAGE], runs[BARE]), 15.0),
            Target(
                f"what `{CLIENT}` adds, over what `{STACK}` adds",
                _over(runs[CLIENT], runs[BARE]) / _over(runs[STACK], runs[BARE]),
                1.10,
            ),
        ],
    )


def _over(runs: Sequence[Run], bare: Sequence[Run]) -> float:
    """Median of the differences within each round, in ms."""
    return Spread.of([run.wall - base.wall for run, base in zip(runs, bare, strict=True)]).median
