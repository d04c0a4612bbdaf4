"""The command in this process, for all that a process of its own adds nothing to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from aifaceswap.cli import main
from aifaceswap.emulator import Emulator, Limits
from cli.cli_world import Outcome

Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command; how it ended."""

    def run(*arguments: str) -> Outcome:
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A service with swaps that end at once, found through the environment."""
    limits = Limits(per_minute=None, concurrent=None)
    with Emulator(duration=0.0, limits=limits) as emulator:
        monkeypatch.setenv("AIFACESWAP_BASE_URL", emulator.base_url)
        monkeypatch.setenv("AIFACESWAP_API_KEY", emulator.api_key)
        yield emulator
