"""Webhooks: reading a delivery, receiving deliveries under uvicorn, waits that they end."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from aiohttp import web

from aifaceswap import AsyncClient, WebhookEvent, WebhookVerificationError, webhooks
from aifaceswap._api import codec
from aifaceswap.emulator import Emulator, Limits
from bench.harness import API_KEY, CORES, SWAP, Table, Target, peer, ratios

CONNECTIONS = 50
RUNS = 1_000
DELIVERY = {
    "event": "swap.completed",
    "id": "tsk_0",
    "type": "image",
    "status": "done",
    "credit_cost": 1,
    "progress": 100,
    "created_at": "2026-01-01T00:00:00.000Z",
    "result_url": "https://example.com/result.jpg?signature=0123456789abcdef",
    "error": None,
    "metadata": {"row": 1},
    "webhook_url": "https://shop.example.com/hooks/swap",
}
_numbers = itertools.count()


def measure(*, quick: bool) -> list[Table]:
    """All tables about webhooks."""
    rounds = 5 if quick else 40
    tables = [_measure_parse(rounds)]
    if peer("uvicorn"):
        tables += [_measure_app(http, rounds) for http in ("h11", "httptools") if _has(http)]
    return [*tables, asyncio.run(_measure_runs())]


# --- reading one ---------------------------------------------------------------------------


def _measure_parse(rounds: int) -> Table:
    body, header = _deliveries(1)[0]
    forged = header[:-64] + "0" * 64
    bare = _bare_reader(body, header)
    contenders: dict[str, Callable[[], object]] = {
        "hmac, json.loads and cattrs": bare,
        "parse()": lambda: webhooks.parse(body, header, API_KEY),
        "parse(), refused": lambda: _refused(body, forged),
    }
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            costs[name].append(_cpu(contender, 2_000))
    by_name = {
        name: ratios(cost, costs["hmac, json.loads and cattrs"]) for name, cost in costs.items()
    }
    refused = ratios(costs["parse(), refused"], costs["parse()"])
    return Table(
        "CPU for one delivery",
        ("", "ratio", "quartiles"),
        [(name, spread.median, str(spread)) for name, spread in by_name.items()],
        targets=[
            Target("parse() over the bare work", by_name["parse()"].median, 1.2),
            Target("a refused delivery over an accepted one", refused.median, 1.0),
        ],
    )


def _bare_reader(body: bytes, header: str) -> Callable[[], object]:
    """The work that nobody can leave out, with the package's own converter."""

    def read() -> object:
        stamp, _, signature = header[2:].partition(",v1=")
        signed = f"{stamp}.".encode() + body
        assert hmac.compare_digest(hmac.digest(API_KEY.encode(), signed, "sha256").hex(), signature)
        return codec.structure(json.loads(body), WebhookEvent)

    return read


def _refused(body: bytes, header: str) -> None:
    try:
        webhooks.parse(body, header, API_KEY)
    except WebhookVerificationError:
        return
    raise AssertionError("a forged delivery was accepted")


def _cpu(contender: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        contender()
    return (time.process_time() - began) / times


# --- receiving them ------------------------------------------------------------------------


def _measure_app(http: str, rounds: int) -> Table:
    names = ("bare", "hmac and json.loads", "parse()", "WebhookApp")
    costs: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_serving(name, http)) for name in names}
        for _ in range(rounds):
            for name, server in servers.items():
                costs[name].append(server.cost())
    rates = {name: ratios(costs["hmac and json.loads"], cost) for name, cost in costs.items()}
    return Table(
        f"Deliveries a second of CPU time under uvicorn with {http}, {CONNECTIONS} connections",
        ("", "rate", "quartiles"),
        [(name, spread.median, str(spread)) for name, spread in rates.items()],
        targets=[
            Target("hmac and json.loads over WebhookApp", 1 / rates["WebhookApp"].median, 1.25)
        ],
        notes=["the first three apps do nothing else than their names say"],
    )


class _Receiver:
    """A server process, seen from here."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._port = int(self._line())

    def cost(self) -> float:
        """CPU seconds for one delivery."""
        deliveries = [_deliveries(20) for _ in range(CONNECTIONS)]
        before = self._used()
        asyncio.run(_post_all(self._port, deliveries))
        return (self._used() - before) / (20 * CONNECTIONS)

    def _used(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def _serving(name: str, http: str) -> Iterator[_Receiver]:
    core = json.dumps(CORES[-1] if CORES else None)
    command = [sys.executable, "-m", "bench.receiver", name, http, core]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield _Receiver(process)
        assert process.stdin is not None
        process.stdin.close()


async def _post_all(port: int, deliveries: list[list[tuple[bytes, str]]]) -> None:
    await asyncio.gather(*(_post(port, some) for some in deliveries))


async def _post(port: int, deliveries: list[tuple[bytes, str]]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for body, header in deliveries:
        head = [
            "POST /hook HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"{webhooks.SIGNATURE_HEADER}: {header}",
            f"Content-Length: {len(body)}",
        ]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer[9:10] == b"2", answer
    writer.close()


def _deliveries(count: int) -> list[tuple[bytes, str]]:
    """Deliveries that have not come before, signed now."""
    bodies = [
        json.dumps({**DELIVERY, "id": f"tsk_{next(_numbers)}"}).encode() for _ in range(count)
    ]
    return [(body, webhooks.sign(body, API_KEY)) for body in bodies]


def _has(http: str) -> bool:
    return peer(http) is not None


# --- waits that they end -------------------------------------------------------------------


async def _measure_runs() -> Table:
    """A thousand `run()` at once; their ends are spread over 20 seconds."""
    app = web.Application()
    runner = web.AppRunner(app)
    listener = _LoggingObserver()
    app.router.add_post("/hook", webhooks.aiohttp_handler(None, [API_KEY], client=listener))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = "http://{}:{}".format(*runner.addresses[0][:2])
    settings: Any = {"duration": 12.0, "spread": 10.0, "credits": 1e9, "deliver_to": origin}
    async with (
        Emulator(limits=Limits(None, None, None), **settings) as emulator,
        AsyncClient(API_KEY, base_url=emulator.base_url, budget=None) as client,
    ):
        client.expect_deliveries()
        listener.client = client
        delays = await asyncio.gather(*(listener.run() for _ in range(RUNS)))
        requests = len(emulator.requests) / RUNS
    await runner.cleanup()
    late = statistics.quantiles(delays, n=100)[-1]
    return Table(
        f"{RUNS:,} run() at once, ended by webhooks, in one process with the emulator",
        ("requests for a swap", "median wake-up, ms", "p99, ms"),
        [(requests, statistics.median(delays), late)],
        targets=[Target("requests for a swap", requests, 1.02), Target("p99, ms", late, 20.0)],
        notes=["wake-up: from the delivery, once it is verified, to the return of run()"],
    )


class _LoggingObserver:
    """Passes deliveries on to a client and notes when they came."""

    client: AsyncClient

    def __init__(self) -> None:
        self._came: dict[str, float] = {}

    def deliver(self, event: WebhookEvent) -> None:
        self._came[event.swap.id] = time.perf_counter()
        self.client.deliver(event)

    def expect_deliveries(self) -> None:
        """The client is told by hand: it does not exist yet."""

    async def run(self) -> float:
        """One swap from its creation to its end.

        Returns:
            Milliseconds from its delivery to here.
        """
        swap = await self.client.swaps.run(**SWAP, webhook_url="https://shop.example.com/hook")
        return (time.perf_counter() - self._came[swap.id]) * 1e3
