"""Waits that what another process sees ends: two clients with one key stand for two processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aifaceswap import AsyncClient, Swap, WebhookEvent
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.redis import RedisCoordinator
from support.redis_server import RedisServer
from support.samples import URLS

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)
HOOK = "https://shop.example.com/hooks/swap"
# How long a test waits for what takes milliseconds on a machine that is not busy.
LONG = 30.0


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    """Swaps that nobody sees end by a poll in the time of a test."""
    async with Emulator(duration=600, limits=NO_LIMITS, credits=100_000) as emulator:
        yield emulator


@asynccontextmanager
async def workers(
    server: RedisServer, emulator: Emulator, number: int = 2
) -> AsyncIterator[list[AsyncClient]]:
    """Clients that share nothing but Redis."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(number):
            shared = await stack.enter_async_context(
                RedisCoordinator(server.url, requests=100_000, timeout=5)
            )
            client = AsyncClient(emulator.api_key, base_url=emulator.base_url, coordinator=shared)
            clients.append(await stack.enter_async_context(client))
        yield clients


def done(swap: Swap) -> Swap:
    return Swap(id=swap.id, status="done", result_url="https://example.com/r.jpg")


def delivery(swap: Swap) -> WebhookEvent:
    return WebhookEvent(event="swap.completed", swap=done(swap))


async def test_a_delivery_ends_the_wait_of_another_process(
    redis_server: RedisServer, service: Emulator
) -> None:
    """The one that waits has seen nothing itself."""
    async with workers(redis_server, service) as (one, other):
        swap = await one.swaps.create(**URLS, webhook_url=HOOK)
        waiting = asyncio.create_task(other.swaps.wait(swap))
        one.deliver(delivery(swap))

        assert await asyncio.wait_for(waiting, LONG) == done(swap)
