"""Tests inside web frameworks run in virtual time, on real sockets."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from aifaceswap.emulator import Emulator, Limits
from support.virtual_time import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Litestar sets up logging for the whole process."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
async def emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    """The service, and an environment that points to it as that of an app would."""
    limits = Limits(per_minute=None, per_day=None, concurrent=None)
    async with Emulator(duration=3, limits=limits) as emulator:
        monkeypatch.setenv("AIFACESWAP_API_KEY", emulator.api_key)
        monkeypatch.setenv("AIFACESWAP_BASE_URL", emulator.base_url)
        yield emulator
