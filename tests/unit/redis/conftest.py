"""Tests on a real Redis server, in real time."""

from __future__ import annotations

import pytest

from support.redis_fixtures import own_redis_server, redis_server, shared_redis_server

__all__ = ["own_redis_server", "redis_server", "shared_redis_server"]


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the server has a clock of its own."""
    return "asyncio"
