"""Three hundred creations as fast as sixty in a window allow, ours and other limiters.

Each contender sends through an aiohttp session that adds what a network adds: 5 to 25 ms before
a request arrives and again before its answer does. The emulator's window slides as the
service's does; what it refuses is counted, waited for and sent again.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp

from aifaceswap import AsyncClient, Budget
from aifaceswap.emulator import Emulator, Limits
from bench.harness import API_KEY, SWAP, Table, Target, peer, serving
from support.virtual_time import run_virtual

CREATIONS = 300
REQUESTS = 60
WINDOW = 60.0
# The first sixty go at once, and sixty more after each window.
WINDOWS = CREATIONS // REQUESTS - 1
OURS = "aifaceswap"

# Returns when a request may be sent.
Acquire = Callable[[], Awaitable[object]]
# Makes all creations and returns when the last has been answered.
Job = Callable[[str, aiohttp.ClientSession], Awaitable[None]]


def measure(*, quick: bool) -> list[Table]:
    """The tables of budgets."""
    window = 2 if quick else 6
    results = {name: _run(job, window) for name, job in _jobs(window).items()}
    return [
        _table(f"{CREATIONS} creations at {REQUESTS} in {window} s", results, window),
        _table(
            f"{CREATIONS} creations at {REQUESTS} in {WINDOW:g} s, virtual time",
            {OURS: run_virtual(_run_virtually)},
            WINDOW,
        ),
    ]


def _table(title: str, results: dict[str, tuple[int, float]], window: float) -> Table:
    ideal = WINDOWS * window
    refused, seconds = results[OURS]
    return Table(
        title,
        ("", "answers 429", f"seconds (ideal {ideal:g})", "over the ideal"),
        [
            (name, refused, round(seconds, 2), f"{(seconds / ideal - 1) * 100:.1f} %")
            for name, (refused, seconds) in results.items()
        ],
        targets=[
            Target("answers 429", refused, 0),
            Target("time over the ideal", seconds / ideal, 1.03),
        ],
    )


# --- the contenders ------------------------------------------------------------------------


def _jobs(window: int) -> dict[str, Job]:
    """Ours, and what is installed besides."""
    found: dict[str, Job] = {OURS: partial(_ours, window)}
    if aiolimiter := peer("aiolimiter"):
        found["aiolimiter, all at once"] = _limited(
            lambda: aiolimiter.AsyncLimiter(REQUESTS, window).acquire
        )
        found["aiolimiter, one by one"] = _limited(
            lambda: aiolimiter.AsyncLimiter(1, window / REQUESTS).acquire
        )
    if pyrate := peer("pyrate_limiter"):
        rate = pyrate.Rate(REQUESTS, window * 1000)
        found["pyrate-limiter"] = _limited(lambda: pyrate.Limiter(rate).try_acquire_async)
    if limits := peer("limits.aio"):
        found["limits, moving window"] = _limited(lambda: _moving_window(limits, window))
    return found


async def _ours(window: float, base_url: str, session: aiohttp.ClientSession) -> None:
    client = AsyncClient(
        API_KEY,
        base_url=base_url,
        budget=Budget(requests=REQUESTS, per=window),
        session=session,
        deadline=3600,
    )
    await asyncio.gather(*(client.swaps.create(**SWAP) for _ in range(CREATIONS)))


def _limited(make: Callable[[], Acquire]) -> Job:
    """The same by hand: raw aiohttp behind a limiter, which is made in the running loop."""

    async def job(base_url: str, session: aiohttp.ClientSession) -> None:
        acquire = make()
        creations = (create(acquire, f"{base_url}/swaps", session) for _ in range(CREATIONS))
        await asyncio.gather(*creations)

    return job


async def create(acquire: Acquire, url: str, session: aiohttp.ClientSession) -> None:
    """Create a swap by raw aiohttp; what the service refuses is sent again after its pause."""
    headers = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": str(uuid.uuid4())}
    while True:
        await acquire()
        async with session.post(url, json=SWAP, headers=headers) as response:
            await response.read()
        if response.status != HTTPStatus.TOO_MANY_REQUESTS:
            return
        await asyncio.sleep(float(response.headers["Retry-After"]))


def _moving_window(limits: Any, window: int) -> Acquire:
    limiter = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())
    item = importlib.import_module("limits").RateLimitItemPerSecond(REQUESTS, window)

    async def acquire() -> None:
        while not await limiter.hit(item):
            stats = await limiter.get_window_stats(item)
            await asyncio.sleep(max(0.001, stats.reset_time - time.time()))

    return acquire


# --- measuring -----------------------------------------------------------------------------


def _run(job: Job, window: float) -> tuple[int, float]:
    """Refused requests and seconds, against the emulator in another process."""
    limits = {"per_minute": REQUESTS, "window": window, "per_day": None, "concurrent": None}
    with serving(**limits) as server:
        seconds = asyncio.run(_timed(job, server.base_url))
        return server.statuses().get("429", 0), seconds


async def _run_virtually() -> tuple[int, float]:
    """The same in one loop with the emulator, whose window has its real length."""
    limits = Limits(per_minute=REQUESTS, window=WINDOW, per_day=None, concurrent=None)
    async with Emulator(limits=limits, credits=1e9) as emulator:
        seconds = await _timed(partial(_ours, WINDOW), emulator.base_url)
        return sum(
            request.status == HTTPStatus.TOO_MANY_REQUESTS for request in emulator.requests
        ), seconds


async def _timed(job: Job, base_url: str) -> float:
    clock = asyncio.get_running_loop().time
    async with aiohttp.ClientSession(trace_configs=[network()]) as session:
        began = clock()
        await job(base_url, session)
        return clock() - began


def network() -> aiohttp.TraceConfig:
    """A network's latency on the way there and on the way back; the same for everyone."""
    latency = random.Random(0)

    async def travel(*_: object) -> None:
        await asyncio.sleep(latency.uniform(0.005, 0.025))

    config = aiohttp.TraceConfig()
    config.on_request_start.append(travel)
    config.on_request_end.append(travel)
    return config
