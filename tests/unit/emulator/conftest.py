from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from aifaceswap.emulator import Emulator, VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(clock=VirtualClock()) as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as session:
        yield session


@pytest.fixture
def anyio_backend() -> str:
    """Real time: these tests talk to sockets of threads and processes."""
    return "asyncio"
