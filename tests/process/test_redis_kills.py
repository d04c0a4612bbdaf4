"""A process that is killed while it holds permits of the shared rate limiter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aifaceswap import RateLimitError
from aifaceswap.redis import RedisCoordinator
from support.redis_fixtures import own_redis_server
from support.redis_server import RedisServer

__all__ = ["own_redis_server"]

WORKER = """
import asyncio, sys
from aifaceswap.redis import RedisCoordinator

async def main():
    budget = RedisCoordinator(sys.argv[1], requests=3, per=300, timeout=30).budget("scope")
    (await budget.acquire()).settle()
    await budget.acquire()
    print("holding", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def start_and_kill(url: str) -> None:
    """Run the worker until it holds its permits."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, url], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "holding\n"
        worker.kill()


async def test_a_killed_process_keeps_its_permits_for_a_while(
    own_redis_server: RedisServer,
) -> None:
    """The service may have counted its requests; what is left is for the others."""
    url = own_redis_server.url
    start_and_kill(url)

    async with RedisCoordinator(url, requests=3, per=300, timeout=30) as shared:
        await shared.budget("scope").acquire(max_wait=0)
        with pytest.raises(RateLimitError):
            await shared.budget("scope").acquire(max_wait=0)
    assert 0 < int(own_redis_server.command("TTL aifaceswap:{scope}:permits")[1:]) <= 330
