"""Threads that are not asyncio's carry uploads: these tests run in real time."""

from __future__ import annotations

from pathlib import Path

import pytest

from aifaceswap._limits import FILES_VARIABLE
from support.buckets import ENVIRONMENT, GIF, JPEG


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store but that of the test, and no credentials of this machine."""
    for name in (FILES_VARIABLE, "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def face(tmp_path: Path) -> Path:
    path = tmp_path / "face.jpg"
    path.write_bytes(JPEG)
    return path


@pytest.fixture
def party(tmp_path: Path) -> Path:
    path = tmp_path / "party.gif"
    path.write_bytes(GIF)
    return path
