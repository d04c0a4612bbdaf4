"""What every test stands on: asyncio as the loop, and no settings of the machine's own."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIFACESWAP_API_KEY", "AIFACESWAP_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
