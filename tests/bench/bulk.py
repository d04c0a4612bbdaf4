"""Bulk runs: finished swaps a minute within the service's limits, and what the engine costs."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Self

import attrs
from aiohttp import web

from aifaceswap import AsyncClient, Budget, SwapRequest, WebhookEvent, webhooks
from aifaceswap.emulator import Emulator
from bench.harness import API_KEY, Table, Target
from support.virtual_time import run_virtual

ALONE = {10.0: 13, 30.0: 10, 60.0: 7, 120.0: 4}  # a minute, each swap polled every 2 s
HOOK = "https://example.com/hook"
INSTANT = "https://example.com/instant.jpg"


def measure(*, quick: bool) -> list[Table]:
    """The tables of bulk runs."""
    return [_throughput(200 if quick else 1000), _engine(quick=quick), _resuming(quick=quick)]


# --- throughput ---


def _throughput(rows: int) -> Table:
    results = {seconds: run_virtual(_polled, seconds, rows) for seconds in ALONE}
    told = {seconds: run_virtual(_told, seconds, rows) for seconds in ALONE}
    bests = {seconds: _best(seconds) for seconds in ALONE}
    cells = [
        (
            f"{seconds:.0f} s",
            f"{bests[seconds]:.1f}",
            f"{rate:.1f}",
            rate / bests[seconds],
            requests,
            told[seconds][0] / min(60, 600 / seconds),
            told[seconds][1],
            refused + told[seconds][2],
            ALONE[seconds],
        )
        for seconds, (rate, requests, refused) in results.items()
    ]
    targets = [
        Target(f"best over ours, {seconds:.0f} s", bests[seconds] / rate, 1 / 0.95)
        for seconds, (rate, _, _) in results.items()
    ]
    targets.append(Target("requests for a swap of 30 s", results[30.0][1], 1.6))
    targets += [
        Target(
            f"best over ours, {seconds:.0f} s, webhooks", min(60, 600 / seconds) / rate, 1 / 0.97
        )
        for seconds, (rate, _, _) in told.items()
    ]
    targets.append(Target("requests for a swap of 30 s, webhooks", told[30.0][1], 1.02))
    refusals = [refused for *_, refused in (*results.values(), *told.values())]
    targets.append(Target("answers 429", sum(refusals), 0))
    return Table(
        f"Finished swaps a minute: {rows} swaps, 60 requests a minute, 10 slots",
        (
            *("swaps take", "best of list polls", "aifaceswap", "share", "requests"),
            *("webhooks: share", "requests", "429", "alone"),
        ),
        cells,
        targets=targets,
        notes=[
            "best: min(60 - 60/q, 600/(T + q/2)) at its best interval q; webhooks: min(60, 600/T)",
            "alone: arithmetic, each swap polled on its own every 2 s",
            "in virtual time; durations spread evenly by half their mean to both sides",
        ],
    )


def _best(seconds: float) -> float:
    intervals = [step / 100 for step in range(101, 3000)]
    return max(min(60 - 60 / q, 600 / (seconds + q / 2)) for q in intervals)


async def _polled(seconds: float, rows: int) -> tuple[float, float, int]:
    async with (
        Emulator(duration=seconds, spread=seconds / 2, credits=1e9) as emulator,
        AsyncClient(API_KEY, base_url=emulator.base_url, budget=Budget()) as client,
    ):
        return await _run(emulator, client, _rows(rows))


async def _told(seconds: float, rows: int) -> tuple[float, float, int]:
    """The same with a webhook receiver beside the client."""
    async with _Receiver() as receiver:
        emulator = Emulator(
            duration=seconds, spread=seconds / 2, credits=1e9, deliver_to=receiver.origin
        )
        async with (
            emulator,
            AsyncClient(API_KEY, base_url=emulator.base_url, budget=Budget()) as client,
        ):
            receiver.client = client
            requests = [attrs.evolve(row, webhook_url=HOOK) for row in _rows(rows)]
            return await _run(emulator, client, requests)


class _Receiver:
    """A web application that takes deliveries in."""

    client: AsyncClient

    async def __aenter__(self) -> Self:
        # Virtual time runs ahead of the clock by which signatures are judged.
        handle = webhooks.aiohttp_handler(self._took, API_KEY, tolerance=1e10)
        application = web.Application()
        application.router.add_post("/hook", handle)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _took(self, event: WebhookEvent) -> None:
        self.client.deliver(event)


async def _run(
    emulator: Emulator, client: AsyncClient, requests: list[SwapRequest]
) -> tuple[float, float, int]:
    """Swaps a minute in the steady part, requests for each swap, answers 429."""
    clock = asyncio.get_running_loop().time
    rows = len(requests)
    async with client.swaps.bulk(requests) as outcomes:
        ends = [clock() async for _ in outcomes]
        first, last = rows // 5, rows * 9 // 10
        rate = (last - first) / (ends[last] - ends[first]) * 60
        refused = sum(request.status == 429 for request in emulator.requests)
        return rate, len(emulator.requests) / rows, refused


def _rows(number: int, source: str = "https://example.com/face.jpg") -> list[SwapRequest]:
    return [
        SwapRequest(source_url=source, target_url=f"https://example.com/{row}/target.jpg")
        for row in range(number)
    ]


# --- the engine ---


def _engine(*, quick: bool) -> Table:
    rows, rounds = (500, 3) if quick else (2000, 7)
    rates: dict[str, list[float]] = {"create()": [], "bulk()": [], "bulk(journal=…)": []}
    for _ in range(rounds):
        for name, rate in asyncio.run(_race(rows)).items():
            rates[name].append(rate)
    base = statistics.median(rates["create()"])
    shares = {name: statistics.median(values) / base for name, values in rates.items()}
    return Table(
        f"The engine itself: {rows} instant swaps, fifty at once, limits lifted",
        ("", "rate, create() = 1"),
        list(shares.items()),
        targets=[
            Target("create() over bulk()", 1 / shares["bulk()"], 1 / 0.8),
            Target("create() over bulk(journal=…)", 1 / shares["bulk(journal=…)"], 1 / 0.5),
        ],
        notes=["client and server share one process and one loop"],
    )


async def _race(rows: int) -> dict[str, float]:
    async with (
        _Service() as base_url,
        AsyncClient(API_KEY, base_url=base_url, budget=None) as client,
    ):
        with tempfile.TemporaryDirectory() as folder:
            return {
                "create()": await _bare(client, rows),
                "bulk()": await _bulk(client, rows, None),
                "bulk(journal=…)": await _bulk(client, rows, Path(folder) / "run.sqlite"),
            }


async def _bare(client: AsyncClient, rows: int) -> float:
    requests = iter(_rows(rows, INSTANT))
    began = time.perf_counter()

    async def worker() -> None:
        for request in requests:
            await client.swaps.create(source_url=request.source_url, target_url=request.target_url)

    await asyncio.gather(*(worker() for _ in range(50)))
    return rows / (time.perf_counter() - began)


async def _bulk(client: AsyncClient, rows: int, journal: Path | None) -> float:
    requests = _rows(rows, INSTANT)
    began = time.perf_counter()
    async with client.swaps.bulk(requests, journal=journal, concurrency=50) as outcomes:
        async for outcome in outcomes:
            assert outcome.ok, outcome
    return rows / (time.perf_counter() - began)


# --- memory and resuming ---


def _resuming(*, quick: bool) -> Table:
    few, many = (500, 5_000) if quick else (1_000, 100_000)
    memory = {rows: asyncio.run(_memory(rows)) for rows in (few, many)}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for rows in (many // 2, many):
            seconds[rows] = asyncio.run(_resume(rows, Path(folder) / f"{rows}.sqlite"))
    return Table(
        "Memory of a run, and resuming a journal whose rows are all finished",
        ("rows", "MiB at the peak", "seconds to resume"),
        [
            (rows, memory.get(rows, ""), seconds.get(rows, ""))
            for rows in sorted({*memory, *seconds})
        ],
        targets=[
            Target(f"MiB more for {many} rows than for {few}", memory[many] - memory[few], 30),
            Target(f"seconds to resume {many} rows", seconds[many], 2),
            Target("time for twice the rows", seconds[many] / seconds[many // 2], 2.4),
        ],
        notes=["memory as Python counts it (tracemalloc), the emulator's share not in it"],
    )


class _Service:
    """The least that a run needs of a service: answers each creation with a finished swap."""

    async def __aenter__(self) -> str:
        self._numbers = count()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/api/v1"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                writer.write(self._answer(head))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        body = b'{"data": [], "next_cursor": null}'
        if head.startswith(b"POST"):
            swap = b'{"id": "tsk_%d", "status": "done", "result_url": "https://example.com/r.jpg"}'
            body = swap % next(self._numbers)
        lines = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return lines % len(body) + body


async def _memory(rows: int) -> float:
    async with _Service() as base_url:
        client = AsyncClient(API_KEY, base_url=base_url, budget=None)
        tracemalloc.start()
        async with client, client.swaps.bulk(_lazily(rows), concurrency=50) as outcomes:
            async for _ in outcomes:
                pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak / 2**20


async def _lazily(rows: int) -> AsyncIterator[SwapRequest]:
    for request in _requests(rows):
        yield request


def _requests(rows: int) -> Iterator[SwapRequest]:
    for row in range(rows):
        yield SwapRequest(source_url=INSTANT, target_url=f"https://example.com/{row}/t.jpg")


async def _resume(rows: int, journal: Path) -> float:
    async with _Service() as base_url:
        client = AsyncClient(API_KEY, base_url=base_url, budget=None)
        async with client:
            requests = list(_requests(rows))
            async with client.swaps.bulk(requests, journal=journal, concurrency=500) as outcomes:
                async for _ in outcomes:
                    pass
            began = time.perf_counter()
            again = client.swaps.bulk(requests, journal=journal, skip_finished=True)
            async with again as outcomes:
                async for _ in outcomes:
                    pass
            return time.perf_counter() - began
