"""What the command loads, and when."""

from __future__ import annotations

import pytest

from support.commands import run_process

LOADED = """
import sys
def heavy():
    return {"aiohttp", "anyio", "cattrs", "click", "rich"} & sys.modules.keys()
import aifaceswap.cli
assert not heavy(), heavy()
for words in ("--help", "--version", "run --help", "webhook listen --help", "doctor --help"):
    assert aifaceswap.cli.main(words.split()) == 0
assert heavy() == {"click", "rich"}, heavy()
assert "rich.console" not in sys.modules
"""

WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import aifaceswap.cli
sys.exit(aifaceswap.cli.main(sys.argv[2:]))
"""


def test_help_is_light() -> None:
    """Importing the command loads the standard library alone; help does without aiohttp."""
    outcome = run_process(code=LOADED)
    assert outcome.code == 0, outcome.err
    assert "Usage: aifaceswap run [OPTIONS] SOURCE TARGET" in outcome.out


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    """Without click or rich the command says in one line how to get them."""
    outcome = run_process(missing, "me", code=WITHOUT)
    assert (outcome.code, outcome.out) == (1, "")
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.endswith("pip install click rich\n")


def test_agents_need_another_package() -> None:
    """Without it `mcp` says what to install, and its help works."""
    outcome = run_process("mcp", "mcp", code=WITHOUT)
    assert (outcome.code, outcome.out) == (1, "")
    assert "needs the package mcp" in outcome.err
    assert outcome.next == "pip install 'mcp>=2,<3'"


def test_without_anything_else() -> None:
    """That is a broken installation, and shows as one."""
    outcome = run_process("aiohttp", "me", code=WITHOUT)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.endswith("ModuleNotFoundError: No module named 'aiohttp'\n")


INTERRUPTED = """
import os, signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupter())
import aifaceswap.cli
sys.exit(aifaceswap.cli.main(["me"]))
"""


def test_ctrl_c_while_it_loads() -> None:
    """Nothing has been sent, and nothing is said."""
    outcome = run_process(code=INTERRUPTED)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "")


def test_no_arguments() -> None:
    """The bare command shows its help."""
    outcome = run_process()
    assert (outcome.code, outcome.err) == (0, "")
    assert "Exit codes: 0 success" in outcome.out


CLOSED = """
import os, sys
os.close(int(sys.argv[1]))
os.execve(sys.executable, [sys.executable, "-m", "aifaceswap", "run"], {})
"""


@pytest.mark.parametrize("number", ["1", "2"])
def test_closed_streams(number: str) -> None:
    """Without stdout or stderr the exit code still tells."""
    assert run_process(number, code=CLOSED).code == 2
