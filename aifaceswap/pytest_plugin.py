"""Fixtures for tests of code that uses this package: a server to test against.

pytest finds them by itself once the package is installed; they cost nothing until used::

    def test_my_shop(aifaceswap_sync_client):
        swap = aifaceswap_sync_client.swaps.run(source_url=FACE, target_url=PHOTO)
        assert swap.result_url

    @pytest.mark.aifaceswap(faults=[Fault("POST /swaps", Status(503))], credits=5)
    async def test_a_bad_day(aifaceswap_emulator, aifaceswap_client): ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

# The rest is loaded by those who use a fixture: every test run of every user loads this file.
if TYPE_CHECKING:
    from aifaceswap.client import AsyncClient
    from aifaceswap.emulator import Emulator
    from aifaceswap.emulator.settings import Settings
    from aifaceswap.sync import Client

_MARKER = "aifaceswap"
_ARGUMENTS = (
    "faults",
    "credits",
    "limits",
    "duration",
    "spread",
    "deliver_to",
    "idempotency",
    "lag",
    "prices",
    "result_ttl",
    "result_links",
)
_EMULATOR = "aifaceswap_emulator"
# Seconds between polls. A second, as with the real service, would be most of a test.
_INTERVAL = 0.02
_SHOWN = 30


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}({'=..., '.join(_ARGUMENTS)}=...): how the emulator of this test behaves",
    )


@pytest.fixture(scope="session")
def _aifaceswap_server() -> Iterator[Emulator]:
    from aifaceswap.emulator import Emulator  # noqa: PLC0415 - see above

    with Emulator(duration=0) as emulator:
        yield emulator


@pytest.fixture
def aifaceswap_emulator(
    _aifaceswap_server: Emulator, request: pytest.FixtureRequest
) -> Iterator[Emulator]:
    """The API on a loopback port, reset for each test.

    Clients that the tested code creates find it: ``AIFACESWAP_API_KEY`` and
    ``AIFACESWAP_BASE_URL`` are set during the test. Swaps are done at the first poll, unless
    ``@pytest.mark.aifaceswap(duration=...)`` says otherwise; the marker's other arguments are
    those of `Emulator.reset`, which returns to them. With ``limits=None`` neither the emulator
    nor the clients limit requests.
    """
    from aifaceswap.testing import prepared  # noqa: PLC0415 - see above

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(prepared(_aifaceswap_server, _settings(request.node)))
        except (TypeError, ValueError) as error:
            raise pytest.UsageError(f"@pytest.mark.{_MARKER}: {error}") from None
        yield _aifaceswap_server


@pytest.fixture
def aifaceswap_client(aifaceswap_emulator: Emulator) -> AsyncClient:
    """An `AsyncClient` of the emulator, for async tests under pytest-asyncio or anyio.

    Its connections close with the test's event loop.
    """
    from aifaceswap.client import AsyncClient  # noqa: PLC0415 - see above

    return AsyncClient(aifaceswap_emulator.api_key, base_url=aifaceswap_emulator.base_url)


@pytest.fixture
def aifaceswap_sync_client(aifaceswap_emulator: Emulator) -> Iterator[Client]:
    """A `Client` of the emulator."""
    from aifaceswap.sync import Client  # noqa: PLC0415 - see above

    with Client(aifaceswap_emulator.api_key, base_url=aifaceswap_emulator.base_url) as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a failed test has asked of the emulator."""
    emulator: Emulator | None = getattr(item, "funcargs", {}).get(_EMULATOR)
    if emulator is not None and call.when == "call" and call.excinfo is not None:
        item.add_report_section("call", "aifaceswap emulator", _describe(emulator))
    return (yield)


def _settings(node: pytest.Item) -> Settings:
    """What the markers say: the test's own before those of its class and module."""
    given: dict[str, Any] = {}
    for marker in node.iter_markers(_MARKER):
        if marker.args:
            raise TypeError(f"{marker.args[0]!r} has no name; write {_ARGUMENTS[0]}=... or so")
        given = {**marker.kwargs, **given}
    if unknown := given.keys() - {*_ARGUMENTS}:
        names = ", ".join(sorted(unknown))
        raise TypeError(f"{names}: no such argument; there are {', '.join(_ARGUMENTS)}")
    return cast("Settings", given)


def _describe(emulator: Emulator) -> str:
    """The last requests, a line each."""
    requests = emulator.requests[-_SHOWN:]
    lines = [f"{request.method} {request.path} -> {request.status}" for request in requests]
    return "\n".join(lines) or "no request came"
