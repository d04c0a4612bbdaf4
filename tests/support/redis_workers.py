"""Clients that stand for processes with one key: they share nothing but Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aifaceswap import AsyncClient
from aifaceswap.emulator import Emulator
from aifaceswap.redis import RedisCoordinator
from support.redis_server import RedisServer

#: How long a test waits for what takes milliseconds on a machine that is not busy.
LONG = 30.0


@asynccontextmanager
async def workers(
    server: RedisServer, emulator: Emulator, number: int = 2, **settings: Any
) -> AsyncIterator[list[AsyncClient]]:
    """So many clients, each with a coordinator of its own."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(number):
            shared = coordinator(server, **settings)
            await stack.enter_async_context(shared)
            client = AsyncClient(emulator.api_key, base_url=emulator.base_url, coordinator=shared)
            clients.append(await stack.enter_async_context(client))
        yield clients


def coordinator(server: RedisServer, **settings: Any) -> RedisCoordinator:
    """One that does not limit requests, and is patient with a busy machine."""
    return RedisCoordinator(server.url, **{"requests": 100_000, "timeout": 5.0, **settings})
