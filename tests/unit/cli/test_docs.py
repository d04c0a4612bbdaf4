"""The page about the command line names all there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aifaceswap.cli.commands import cli

PAGE = Path(__file__).parents[3] / "docs" / "command-line.md"


def commands(group: click.Group = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name, those of groups included."""
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


def options() -> Iterator[str]:
    for command in (cli, *dict(commands()).values()):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield from (*parameter.opts, *parameter.secondary_opts)


@pytest.mark.parametrize("name", sorted({*options(), *dict(commands())}))
def test_the_page_names_every_command_and_option(name: str) -> None:
    """Whatever can be typed is documented."""
    text = PAGE.read_text(encoding="utf-8")
    assert re.search(rf"[` ]{re.escape(name)}\b", text)


def test_there_is_no_option_for_the_key() -> None:
    """Command lines can be read by others: key and base URL come from the environment."""
    assert not {name for name in options() if "key" in name or "url" in name} - {
        "--accept-new-key",
        "--idempotency-key",
        "--key-file",
        "--webhook-url",
    }
