"""Benchmarks in several processes, of this version alone or beside that of a commit.

What one process measures is shifted as a whole by where its memory happens to lie. Medians of
processes are steady where medians of rounds in one process are not.
"""

from __future__ import annotations

import compileall
import json
import os
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.harness import Table, Target

CHECKOUT = Path(__file__).parents[2]

Cells = Sequence[float]


@contextmanager
def checked_out(commit: str) -> Iterator[str]:
    """A folder with the package as it is in a commit, compiled."""
    with TemporaryDirectory() as folder:
        archive = Path(folder, "package.tar")
        command = ["git", "-C", str(CHECKOUT), "archive", "-o", str(archive), commit, "aifaceswap"]
        subprocess.run(command, check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        compileall.compile_dir(folder, quiet=1)
        yield folder


def measured(
    name: str, *, quick: bool, package: str | None = None, peers: str | None = None
) -> list[Table]:
    """The tables of one benchmark, run in a process of its own."""
    with TemporaryDirectory() as folder:
        output = Path(folder, "tables.json")
        command = [sys.executable, "-m", "bench", name, "--processes", "1", "--json", str(output)]
        changes = {"BENCH_PACKAGE": package, "BENCH_PEERS": peers}
        given = {key: value for key, value in changes.items() if value is not None}
        subprocess.run(
            [*command, *(["--quick"] if quick else [])],
            check=True,
            env={**os.environ, **given},
            stdout=subprocess.DEVNULL,
        )
        tables = json.loads(output.read_text())["tables"]
    return [
        Table(**{**table, "targets": [Target(**target) for target in table["targets"]]})
        for table in tables
    ]


def combined(runs: Sequence[Sequence[Table]]) -> list[Table]:
    """The same tables with the median of all processes in each cell."""
    return [_combined(tables) for tables in zip(*runs, strict=True)]


def compared(
    name: str, commit: str, ours: Sequence[Sequence[Table]], theirs: Sequence[Sequence[Table]]
) -> Table:
    """Each figure of this version by the commit's: the median of processes by the other's."""
    rows: list[Sequence[str | float]] = []
    for now, then in zip(combined(ours), combined(theirs), strict=True):
        others = {str(row[0]): row for row in then.rows}
        for row in now.rows:
            other = others.get(str(row[0]), [])
            for column, cell, base in zip(now.columns, row, other, strict=False):
                if isinstance(cell, float | int) and isinstance(base, float | int) and base:
                    rows.append((now.title, str(row[0]), column, cell, base, cell / base))
    columns = ("table", "row", "column", "now", commit, "ratio")
    note = f"medians of {len(ours)} processes of each version, in turn"
    return Table(f"{name} against {commit}", columns, rows, notes=[note])


def _combined(tables: Sequence[Table]) -> Table:
    first = tables[0]
    rows = [
        [_cell(cells) for cells in zip(*same, strict=True)]
        for same in zip(*(table.rows for table in tables), strict=True)
    ]
    targets = [
        Target(same[0].what, _median([target.measured for target in same]), same[0].limit)
        for same in zip(*(table.targets for table in tables), strict=True)
    ]
    notes = [*first.notes, *([f"medians of {len(tables)} processes"] if tables[1:] else [])]
    return Table(first.title, first.columns, rows, targets=targets, notes=notes)


def _cell(cells: Sequence[str | float]) -> str | float:
    numbers = [cell for cell in cells if isinstance(cell, float | int)]
    if len(numbers) == len(cells):
        return _median(numbers)
    return cells[0] if len({*cells}) == 1 else "; ".join(map(str, cells))


def _median(values: Cells) -> float:
    return statistics.median(values)
