"""Every tutorial, carried out by a reader who does all of it, and then all of it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.doc_pages import DOCS, Command, Terminal, blocks, commands

TUTORIALS = sorted(page.stem for page in (DOCS / "tutorials").glob("*.md"))
# What differs when a tutorial is repeated, by the beginnings of commands. The page says why.
REPEATED = {
    "script": {"aifaceswap --json list": "5"},
    "bulk": {"python count.py": "29", "aifaceswap bulk rows.csv --dry-run": "…\nNew       8\n…"},
    "web-app": {
        "curl -s -X PUT http://127.0.0.1:8080/orders/7": (
            '{"id":7,"status":"done","progress":100,"message":null}'
        )
    },
}

# The web app needs them; where they are missing, `nox -s frameworks` runs all tutorials.
for package in ("fastapi", "uvicorn", "httpx"):
    pytest.importorskip(package)

# Real programs, one after the other: a busy machine takes its time.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_can_be_repeated(name: str, tmp_path: Path) -> None:
    """In a new folder everything prints what the page shows, and so it does the second time."""
    terminal = Terminal(tmp_path)
    try:
        carry_out(terminal, name)
        carry_out(terminal, name, differs=REPEATED[name])
    finally:
        terminal.close()


def carry_out(terminal: Terminal, name: str, differs: dict[str, str] | None = None) -> None:
    """Save the files of a page and run its commands; the second time, its servers still run."""
    for block in blocks(DOCS / "tutorials" / f"{name}.md"):
        if block.file:
            terminal.save(block.file, block.text)
        elif block.language == "console":
            for command in commands(block):
                if differs is None:
                    terminal.carry_out(command)
                elif not command.is_server:
                    terminal.carry_out(changed(command, differs))


def changed(command: Command, differs: dict[str, str]) -> Command:
    outputs = [output for start, output in differs.items() if command.line.startswith(start)]
    return Command(command.line, *outputs) if outputs else command
