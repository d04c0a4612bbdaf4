"""Redis servers for tests, which are skipped where Redis is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

from support.redis_server import ADVICE, PROGRAM, RedisServer


@contextmanager
def serving_redis(*options: str) -> Iterator[RedisServer]:
    """Run a server; skip the test where Redis is not installed."""
    pytest.importorskip("redis", reason="needs redis: pip install redis")
    if PROGRAM is None:
        pytest.skip(ADVICE)
    with TemporaryDirectory() as folder:
        server = RedisServer(folder)
        try:
            server.start("--enable-debug-command", "yes", *options)
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def shared_redis_server() -> Iterator[RedisServer]:
    with serving_redis() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis_server: RedisServer) -> RedisServer:
    """A server with nothing in it, for tests that neither kill nor stop it."""
    shared_redis_server.command("FLUSHALL")
    return shared_redis_server


@pytest.fixture
def own_redis_server() -> Iterator[RedisServer]:
    """A server of this test alone, to kill or to stop."""
    with serving_redis() as server:
        yield server
