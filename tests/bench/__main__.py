"""Run the benchmarks: `python -m bench [name ...] [--quick] [--against COMMIT] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import import_module
from pathlib import Path

import attrs

from bench.harness import CORES, Table, pin, versions
from bench.processes import checked_out, combined, compared, measured

# Each is a module with a function `measure`.
BENCHMARKS = (
    *("creations", "parts", "imports", "life", "waits", "budgets", "bulk"),
    *("webhooks", "emulator", "many"),
)
# How many processes measure; the others start processes of their own or count requests.
PROCESSES = {"creations": 7}
# Distributions whose versions stand with the results.
MEASURED = ["aifaceswap", "aiohttp", "anyio", "attrs", "cattrs", "uvloop"]
MEASURED += ["httpx", "httpx2", "niquests", "openai", "requests"]
MEASURED += ["aiolimiter", "limits", "pyrate-limiter", "redis"]


def main() -> None:
    """Run the given benchmarks; never fail because of a number."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and processes")
    parser.add_argument("--against", metavar="COMMIT", help="compare with the package of a commit")
    parser.add_argument("--processes", type=int, help="processes that measure, for each version")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")

    setting = {"python": platform.python_version(), **versions(MEASURED)}
    print(", ".join(f"{name} {version}" for name, version in setting.items()))
    pin(CORES[0] if CORES else None)
    tables: list[Table] = []
    for name in arguments.names or BENCHMARKS:
        for table in _measure(name, arguments):
            table.print()
            tables.append(table)
    if arguments.json:
        _write(arguments.json, setting, tables)


def _measure(name: str, arguments: argparse.Namespace) -> list[Table]:
    quick: bool = arguments.quick
    processes: int = arguments.processes or (3 if quick else PROCESSES.get(name, 1))
    if arguments.against:
        processes = max(processes, 3)
        with checked_out(arguments.against) as package:
            in_turn = [None, package] * processes
            runs = [measured(name, quick=quick, package=one, peers="requests") for one in in_turn]
        return [compared(name, arguments.against, runs[::2], runs[1::2])]
    if processes > 1 and name in PROCESSES:
        return combined([measured(name, quick=quick) for _ in range(processes)])
    tables: list[Table] = import_module(f"bench.{name}").measure(quick=quick)
    return tables


def _write(path: Path, setting: dict[str, str], tables: list[Table]) -> None:
    results = [attrs.asdict(table) for table in tables]
    path.write_text(json.dumps({"setting": setting, "tables": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
