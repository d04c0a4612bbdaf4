"""The command in this process, for all that a process of its own adds nothing to."""

from __future__ import annotations

import pytest

from support.command_fixtures import command, serve, service

__all__ = ["command", "serve", "service"]


@pytest.fixture
def anyio_backend() -> str:
    """Real time: these tests talk to sockets of threads and processes."""
    return "asyncio"
