"""The emulator as a server: creations a second, start to ready, memory, looks among many swaps."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from aifaceswap.emulator import Emulator
from bench.emulator_subject import FEW, MANY
from bench.harness import API_KEY, CORES, NO_LIMITS, SWAP, Spread, Table, Target, ratios, serving

CONNECTIONS = 16
CREATIONS = 2000


def measure(*, quick: bool) -> list[Table]:
    """All tables about the emulator."""
    rounds = 3 if quick else 15
    return [_measure_rate(rounds), _measure_start(rounds), _measure_many(rounds)]


@contextmanager
def _subject(kind: str) -> Iterator[str]:
    """One of the processes of `emulator_subject`, and its first line."""
    core = json.dumps(CORES[-1] if CORES else None)
    command = [sys.executable, "-m", "bench.emulator_subject", kind, core]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


@attrs.frozen
class Wire:
    """A raw connection, so that the server is what is measured."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, url: str) -> Wire:
        host, port = url.split("/")[2].split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def exchange(self, line: str, headers: str = "", body: bytes = b"") -> None:
        head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {API_KEY}\r\n{headers}"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 20"), answer
        length = answer.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        await self.reader.readexactly(int(length))

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


# --- creations -----------------------------------------------------------------------------


def _measure_rate(rounds: int) -> Table:
    rates: dict[str, list[float]] = {"bare aiohttp.web handler": [], "emulator": []}
    with serving(**NO_LIMITS) as server, _subject("bare") as bare:
        for number in range(-1, rounds):  # round -1 warms up
            for each, base_url in zip(rates.values(), (bare, server.base_url), strict=True):
                rate = asyncio.run(_create_many(base_url))
                if number >= 0:
                    each.append(rate)
    base, ours = rates.values()
    ratio, rate = ratios(ours, base), Spread.of(ours).median
    return Table(
        f"Creations a second, {CONNECTIONS} connections of one client process",
        ("", "a second", "bare = 1", "quartiles"),
        [
            (name, round(Spread.of(each).median), *_compare(each, base))
            for name, each in rates.items()
        ],
        # Whichever is less: 3,000 a second, or half of what the bare handler can.
        targets=[Target("wanted over reached", min(3000 / rate, 0.5 / ratio.median), 1.0)],
    )


def _compare(values: list[float], base: list[float]) -> tuple[float, str]:
    ratio = ratios(values, base)
    return ratio.median, str(ratio)


async def _create_many(base_url: str) -> float:
    wires = [await Wire.to(base_url) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    await asyncio.gather(*(_create(wire, number) for number, wire in enumerate(wires)))
    rate = CREATIONS / (time.perf_counter() - began)
    for wire in wires:
        await wire.close()
    return rate


async def _create(wire: Wire, connection: int) -> None:
    body, run = json.dumps(SWAP).encode(), time.perf_counter_ns()
    for number in range(CREATIONS // CONNECTIONS):
        key = f"Idempotency-Key: {run}-{connection}-{number}\r\n"
        headers = f"{key}Content-Type: application/json\r\n"
        await wire.exchange("POST /api/v1/swaps", headers, body)


# --- start to ready ------------------------------------------------------------------------


def _measure_start(rounds: int) -> Table:
    programs = [_start_program() for _ in range(rounds)]
    inside = [asyncio.run(_start_inside()) for _ in range(rounds)]
    return Table(
        "From start to ready, in ms",
        ("", "median", "quartiles"),
        [_in_ms("`aifaceswap emulator`", programs), _in_ms("`async with Emulator()`", inside)],
        targets=[Target("seconds of `aifaceswap emulator`", Spread.of(programs).median, 0.4)],
    )


def _start_program() -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "aifaceswap", "emulator"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith('{"base_url"')
        seconds = time.perf_counter() - began
        process.terminate()
    return seconds


async def _start_inside() -> float:
    began = time.perf_counter()
    async with Emulator():
        return time.perf_counter() - began


def _in_ms(name: str, seconds: list[float]) -> tuple[str, float, str]:
    spread = Spread.of([each * 1000 for each in seconds])
    return name, spread.median, str(spread)


# --- many swaps ----------------------------------------------------------------------------


def _measure_many(rounds: int) -> Table:
    with _subject("many") as line:
        found = json.loads(line)
        costs = asyncio.run(_look(found["few"], found["many"], rounds * 5))
    slower = {kind: ratios(costs[kind, "many"], costs[kind, "few"]) for kind in ("list", "get")}
    return Table(
        f"{MANY:,} swaps: a process of {found['mib']:.0f} MiB, {found['grown']:.0f} MiB more",
        ("µs over HTTP", f"among {FEW}", f"among {MANY:,}", "ratio", "quartiles"),
        [
            (
                kind,
                Spread.of(costs[kind, "few"]).median,
                Spread.of(costs[kind, "many"]).median,
                ratio.median,
                str(ratio),
            )
            for kind, ratio in slower.items()
        ],
        targets=[
            Target("MiB of the process", found["mib"], 200),
            *(
                Target(f"{kind} among many over among few", ratio.median, 1.05)
                for kind, ratio in slower.items()
            ),
        ],
    )


async def _look(few: list[str], many: list[str], rounds: int) -> dict[tuple[str, str], list[float]]:
    """What a look costs in µs, by its kind and among how many, in turns."""
    costs: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, urls in (("few", few), ("many", many)):
            wire = await Wire.to(urls[0])
            paths = [url[url.index("/api/v1") :] for url in urls]
            for kind, asked in (("get", paths), ("list", ["/api/v1/swaps?limit=25"] * FEW)):
                began = time.perf_counter()
                for path in asked:
                    await wire.exchange(f"GET {path}")
                cost = (time.perf_counter() - began) / len(asked) * 1e6
                costs.setdefault((kind, name), []).append(cost)
            await wire.close()
    return costs
