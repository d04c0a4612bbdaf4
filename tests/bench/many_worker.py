"""One process of the benchmark `many`: `python -m bench.many_worker '{"name": "limits", ...}'`.

It says when it is ready, begins with a line on stdin, and says when all its swaps are created.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
import time
from typing import Any

ORDER: dict[str, Any] = json.loads(sys.argv[1])


def _shift_clocks(seconds: float) -> None:
    """Give this process a wall clock of its own, before others take its functions."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)


_shift_clocks(ORDER["skew"])

import aiohttp  # noqa: E402
from redis.asyncio import Redis  # noqa: E402

from aifaceswap import AsyncClient  # noqa: E402
from aifaceswap.redis import RedisCoordinator  # noqa: E402
from bench.budgets import OURS, REQUESTS, Acquire, create, network  # noqa: E402
from bench.harness import API_KEY, SWAP  # noqa: E402


async def main() -> None:
    """Create the swaps of this process."""
    async with aiohttp.ClientSession(trace_configs=[network()]) as session:
        job = await _job(session)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await job()
    print("done", flush=True)


async def _job(session: aiohttp.ClientSession) -> Any:
    creations, window = ORDER["creations"], ORDER["window"]
    if ORDER["name"] == OURS:
        shared = RedisCoordinator(ORDER["redis_url"], requests=REQUESTS, per=window, per_day=None)
        # Connected before the start, as the others are.
        (await shared.budget("connect").acquire()).cancel()
        client = AsyncClient(
            API_KEY,
            base_url=ORDER["base_url"],
            coordinator=shared,
            session=session,
            deadline=3600,
        )
        return lambda: asyncio.gather(*(client.swaps.create(**SWAP) for _ in range(creations)))
    acquire = await (_limits(window) if ORDER["name"] == "limits" else _pyrate(window))
    url = f"{ORDER['base_url']}/swaps"
    return lambda: asyncio.gather(*(create(acquire, url, session) for _ in range(creations)))


async def _limits(window: int) -> Acquire:
    limits = importlib.import_module("limits")
    aio = importlib.import_module("limits.aio")
    url = f"async+redis+{ORDER['redis_url']}"
    storage = aio.storage.RedisStorage(url, implementation="redispy")
    await storage.check()
    limiter = aio.strategies.MovingWindowRateLimiter(storage)
    item = limits.RateLimitItemPerSecond(REQUESTS, window)

    async def acquire() -> None:
        while not await limiter.hit(item):
            stats = await limiter.get_window_stats(item)
            # As many processes wait, all at one moment would only be refused again.
            pause = max(0.001, stats.reset_time - time.time())
            await asyncio.sleep(pause + random.uniform(0, 0.02))

    return acquire


async def _pyrate(window: int) -> Acquire:
    pyrate: Any = importlib.import_module("pyrate_limiter")
    rates = [pyrate.Rate(REQUESTS, window * 1000)]
    bucket = await pyrate.RedisBucket.init(rates, Redis.from_url(ORDER["redis_url"]), "bench")
    limiter = pyrate.Limiter(bucket)

    async def acquire() -> None:
        await limiter.try_acquire_async("bench")

    return acquire


if __name__ == "__main__":
    asyncio.run(main())
