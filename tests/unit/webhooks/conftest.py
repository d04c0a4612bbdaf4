"""Tests of webhooks run in virtual time: a body that trickles is given up in milliseconds."""

from __future__ import annotations

import pytest

from support.virtual_time import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}
