"""What every test stands on: asyncio as the loop, and no settings of the machine's own."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from support.browser import Browser, chromium

# Whoever starts tests in the background, as servers do, has Ctrl-C ignored, in all processes
# that these start, too: and some tests are about Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIFACESWAP_API_KEY", "AIFACESWAP_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests of a file."""
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
