"""Unit tests run in virtual time: what waits for minutes ends in milliseconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aifaceswap import AsyncClient
from aifaceswap.emulator import Emulator, Limits
from support.virtual_time import VirtualTimeLoop

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(duration=30.0, limits=NO_LIMITS, credits=100_000) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=None) as client:
        yield client
