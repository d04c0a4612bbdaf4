"""What the benchmarks share: the server process, pinning, medians, tables."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import attrs

API_KEY = "key_emulator"
SWAP: dict[str, Any] = {
    "type": "image",
    "source_url": "https://example.com/face.jpg",
    "target_url": "https://example.com/target.jpg",
}
NO_LIMITS = {"per_minute": None, "per_day": None, "concurrent": None}


@attrs.frozen
class Target:
    """What is aimed at: `measured` should be at most `limit`."""

    what: str
    measured: float
    limit: float

    @property
    def is_met(self) -> bool:
        return self.measured <= self.limit


@attrs.frozen
class Table:
    """One result, to be printed and kept."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()

    def print(self) -> None:
        """Print as a Markdown table, with the targets below."""
        cells = [list(self.columns), *([_text(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        cells.insert(1, ["-" * width for width in widths])
        print(f"\n### {self.title}\n")
        for row in cells:
            print("|", " | ".join(map(str.ljust, row, widths)), "|")
        print()
        for target in self.targets:
            verdict = "met" if target.is_met else "MISSED"
            print(f"- {target.what}: {target.measured:.3g}, target {target.limit:.3g}: {verdict}")
        for note in self.notes:
            print(f"- {note}")
        sys.stdout.flush()


def _text(cell: str | float) -> str:
    return (
        cell if isinstance(cell, str) else f"{cell:.2f}" if isinstance(cell, float) else str(cell)
    )


@attrs.frozen
class Spread:
    """A median with its quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{self.low:.2f} to {self.high:.2f}"


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Round by round against the base: what disturbs a round disturbs both."""
    return Spread.of([value / other for value, other in zip(values, base, strict=True)])


def _cores() -> list[int]:
    """The cores that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


# Read before anything is pinned: the client has the first one, the server the last.
CORES = _cores()


def pin(core: int | None) -> None:
    """Keep this process on one core, where the system lets us."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def unpin() -> None:
    """Let this process, and those that it starts, run on all cores."""
    if CORES:
        os.sched_setaffinity(0, CORES)


class Server:
    """The emulator's process, seen from here."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.base_url = self._line()

    def statuses(self) -> dict[str, int]:
        """How many requests it has answered with each status."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counts: dict[str, int] = json.loads(self._line())
        return counts

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def serving(**limits: float | None) -> Iterator[Server]:
    """An emulator in another process, on another core than ours."""
    core = json.dumps(CORES[-1] if CORES else None)
    command = [sys.executable, "-m", "bench.server", json.dumps(limits), core]
    # Always this version's, also when the clients are those of another commit.
    env = {name: value for name, value in os.environ.items() if name != "BENCH_PACKAGE"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


def peer(name: str) -> ModuleType | None:
    """A package to be measured beside ours, if it is installed and wanted."""
    wanted = os.environ.get("BENCH_PEERS")
    if wanted is not None and name not in wanted.split(","):
        return None
    return optional(name)


def optional(name: str) -> ModuleType | None:
    """A module, if it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def versions(names: Sequence[str]) -> Mapping[str, str]:
    """The installed versions of these distributions."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
