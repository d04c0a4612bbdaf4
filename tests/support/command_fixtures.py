"""Fixtures for tests of the command, in this process and beside processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from anyio.from_thread import start_blocking_portal

from aifaceswap.cli import main
from aifaceswap.emulator import Emulator, Limits
from support.commands import Outcome
from support.scripted import ScriptedServer, Step

Command = Callable[..., Outcome]
Serve = Callable[..., ScriptedServer]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process and return how it ended."""

    def run(*arguments: str) -> Outcome:
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A service whose swaps finish at once, found through the environment."""
    limits = Limits(per_minute=None, concurrent=None)
    with Emulator(duration=0.0, limits=limits) as emulator:
        monkeypatch.setenv("AIFACESWAP_BASE_URL", emulator.base_url)
        monkeypatch.setenv("AIFACESWAP_API_KEY", emulator.api_key)
        yield emulator


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a scripted server in its own thread."""
    with start_blocking_portal() as portal, ExitStack() as stack:

        def start(*script: Step) -> ScriptedServer:
            server = ScriptedServer(*script)
            return stack.enter_context(portal.wrap_async_context_manager(server))

        yield start
