"""Run the benchmarks: `python -m bench [name ...] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import attrs

from bench import budgets, bulk, creations, emulator, imports, life, parts, waits, webhooks
from bench.harness import CORES, Table, pin, versions

BENCHMARKS = {
    "creations": creations.measure,
    "parts": parts.measure,
    "imports": imports.measure,
    "life": life.measure,
    "waits": waits.measure,
    "budgets": budgets.measure,
    "bulk": bulk.measure,
    "webhooks": webhooks.measure,
    "emulator": emulator.measure,
}
# Distributions whose versions stand with the results.
MEASURED = ["aifaceswap", "aiohttp", "anyio", "attrs", "cattrs"]
MEASURED += ["httpx", "openai", "requests", "aiolimiter", "limits", "pyrate-limiter"]


def main() -> None:
    """Run what is asked for; never fail because of a number."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all unless given")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first impression")
    parser.add_argument("--json", type=Path, help="write all results into this file, too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - BENCHMARKS.keys():
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")

    setting = {"python": platform.python_version(), **versions(MEASURED)}
    print(", ".join(f"{name} {version}" for name, version in setting.items()))
    pin(CORES[0] if CORES else None)
    tables: list[Table] = []
    for name in arguments.names or BENCHMARKS:
        for table in BENCHMARKS[name](quick=arguments.quick):
            table.print()
            tables.append(table)
    if arguments.json:
        _write(arguments.json, setting, tables)


def _write(path: Path, setting: dict[str, str], tables: list[Table]) -> None:
    results = [attrs.asdict(table) for table in tables]
    path.write_text(json.dumps({"setting": setting, "tables": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
