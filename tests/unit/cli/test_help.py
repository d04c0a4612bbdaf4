"""Help, completion, and the options that control output."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from aifaceswap.cli.commands import cli
from aifaceswap.cli.context import CommandContext
from aifaceswap.emulator import Emulator
from support.command_fixtures import Command
from support.commands import INSTANT, run_process
from support.samples import FACE


def leaves(group: click.Group = cli, *path: str) -> Iterator[tuple[str, ...]]:
    for name, child in group.commands.items():
        if isinstance(child, click.Group):
            yield from leaves(child, *path, name)
        else:
            yield (*path, name)


GROUPS = ((), ("webhook",), ("bulk",))


@pytest.mark.parametrize("name", [*GROUPS, *leaves()], ids=" ".join)
def test_help_fits_a_terminal_and_has_examples(name: tuple[str, ...], command: Command) -> None:
    """No line is longer than 80 columns, and commands show how they are typed."""
    outcome = command(*name, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert max(map(len, outcome.out.splitlines())) <= 80
    if name != ("webhook",):
        assert f"aifaceswap {' '.join(name)}".strip() in outcome.out.partition("Examples:")[2]


@pytest.mark.parametrize("name", GROUPS, ids=" ".join)
def test_a_group_alone_shows_its_help(name: tuple[str, ...], command: Command) -> None:
    """`aifaceswap webhook` is not an error."""
    assert command(*name) == command(*name, "--help")


def test_commands_stand_under_headings(command: Command) -> None:
    """Every command is listed once, in the group that it belongs to."""
    out = command("--help").out
    for heading in ("Swaps:", "Account and setup:", "Development:"):
        assert heading in out
    for name in cli.commands:
        assert out.count(f"\n  {name} ") == 1


def test_the_version(command: Command) -> None:
    """`-V` is short for `--version`."""
    assert command("-V") == command("--version")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, command: Command) -> None:
    """The script defines a completion for the command."""
    outcome = command("completion", shell)
    assert outcome.code == 0
    assert "_AIFACESWAP_COMPLETE" in outcome.out


def test_what_is_completed() -> None:
    """The shell learns the names of commands."""
    env = {
        "_AIFACESWAP_COMPLETE": "bash_complete",
        "COMP_WORDS": "aifaceswap do",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv[0] = 'aifaceswap'; from aifaceswap.cli import main; main()"
    assert run_process(env=env, code=code).out.split() == ["plain,doctor", "plain,download"]


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("arguments", [("-q", "run"), ("run", "--quiet")])
def test_quiet(arguments: tuple[str, ...], command: Command) -> None:
    """Only data is written."""
    outcome = command(*arguments, FACE, INSTANT)
    assert outcome.err == ""
    assert outcome.data["status"] == "done"


def test_quiet_shows_errors(command: Command) -> None:
    """With the next step."""
    outcome = command("-q", "me")
    assert outcome.err.startswith("Error: AIFACESWAP_API_KEY is not set\nNext: ")


@pytest.mark.parametrize("arguments", [("-v", "me"), ("me", "--verbose")])
def test_verbose(arguments: tuple[str, ...], command: Command, service: Emulator) -> None:
    """Every request is a line on stderr, without the key; the next command logs nothing."""
    outcome = command(*arguments)
    assert "GET /me: 200" in outcome.err
    assert service.api_key not in outcome.err
    assert command("me").err == ""


def test_a_password_is_not_repeated() -> None:
    """The command that is shown for resuming has none."""
    context = CommandContext(
        ["--proxy", "http://user:secret@proxy:1", "wait", "tsk_1"], command="wait"
    )
    assert context.retyped() == "aifaceswap --proxy 'http://…@proxy:1' wait tsk_1"


@pytest.mark.parametrize("typed", [("--timeout", "2"), ("--timeout=2",)])
def test_an_option_that_is_given_again_replaces_the_first(typed: tuple[str, ...]) -> None:
    """The command that is shown has it once."""
    context = CommandContext(["wait", *typed, "tsk_1"], command="wait")
    assert context.retyped("--timeout", "300") == "aifaceswap wait --timeout 300 tsk_1"
