"""Fixtures for tests of code that uses this package: a server to test against.

pytest finds them by itself once the package is installed; they cost nothing until used::

    def test_my_shop(aifaceswap_sync_client):
        swap = aifaceswap_sync_client.swaps.run(source_url=FACE, target_url=PHOTO)
        assert swap.result_url

    @pytest.mark.aifaceswap(faults=[Fault("POST /swaps", Status(503))], credits=5)
    async def test_a_bad_day(aifaceswap_emulator, aifaceswap_client): ...
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from aifaceswap._limits import API_KEY_VARIABLE, BASE_URL_VARIABLE

# The rest is loaded by those who use a fixture: every test run of every user loads this file.
if TYPE_CHECKING:
    from aifaceswap.client import AsyncClient
    from aifaceswap.emulator import Emulator
    from aifaceswap.sync import Client

_MARKER = "aifaceswap"
_ARGUMENTS = ("faults", "credits", "limits", "duration", "deliver_to")
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
    _aifaceswap_server: Emulator,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Emulator:
    """The API on a loopback port, as freshly started for each test.

    Clients that the tested code makes for itself find it: ``AIFACESWAP_API_KEY`` and
    ``AIFACESWAP_BASE_URL`` are set during the test. Swaps have finished at the first poll, unless
    ``@pytest.mark.aifaceswap(duration=...)`` says otherwise; the marker's other arguments are
    ``faults``, ``credits``, ``limits`` and ``deliver_to``, as in `Emulator.reset`.
    """
    from aifaceswap import budget  # noqa: PLC0415 - see above
    from aifaceswap._polling import watcher  # noqa: PLC0415 - see above

    _reset(_aifaceswap_server, request.node)
    monkeypatch.setattr(watcher, "SHORTEST_INTERVAL", _INTERVAL)
    monkeypatch.setenv(API_KEY_VARIABLE, _aifaceswap_server.api_key)
    monkeypatch.setenv(BASE_URL_VARIABLE, _aifaceswap_server.base_url)
    # The service's minute starts again with each test, and so must ours.
    budget.forget_shared()
    return _aifaceswap_server


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


def _reset(emulator: Emulator, node: pytest.Item) -> None:
    try:
        emulator.reset(**_settings(node))
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"@pytest.mark.{_MARKER}: {error}") from None


def _settings(node: pytest.Item) -> dict[str, Any]:
    """What the markers say: the test's own before those of its class and module."""
    given: dict[str, Any] = {}
    for marker in node.iter_markers(_MARKER):
        if marker.args:
            raise TypeError(f"{marker.args[0]!r} has no name; write {_ARGUMENTS[0]}=... or so")
        given = {**marker.kwargs, **given}
    if unknown := given.keys() - {*_ARGUMENTS}:
        names = ", ".join(sorted(unknown))
        raise TypeError(f"{names}: no such argument; there are {', '.join(_ARGUMENTS)}")
    return given


def _describe(emulator: Emulator) -> str:
    """The last requests, a line each."""
    requests = emulator.requests[-_SHOWN:]
    lines = [f"{request.method} {request.path} -> {request.status}" for request in requests]
    return "\n".join(lines) or "no request came"
