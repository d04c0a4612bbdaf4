"""What is rarely typed, rarely shown and rarely broken."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aifaceswap.emulator import Emulator
from support.command_fixtures import Command
from support.commands import on_terminal
from support.samples import FACE, TARGET


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_account_is_shown_to_people() -> None:
    """As a table: who, which plan, which credits, what may still be sent."""
    with on_terminal("--emulator", "me") as terminal:
        assert terminal.end() == 0
    for word in ("User", "Email", "Plan", "Credits", "permanent", "Requests", "left in 60 s"):
        assert word in terminal.text


def test_an_empty_list_says_what_to_do(service: Emulator) -> None:
    """How the first swap is made."""
    env = {"AIFACESWAP_API_KEY": service.api_key, "AIFACESWAP_BASE_URL": service.base_url}
    with on_terminal("list", env=env, columns=200) as terminal:
        assert terminal.end() == 0
    assert "aifaceswap run SOURCE TARGET" in terminal.text


@pytest.mark.parametrize("metadata", ["{", "[1]", "7", "[" * 100_000])
def test_metadata_that_is_no_object_is_refused(metadata: str, command: Command) -> None:
    """Before anything is sent."""
    outcome = command("create", FACE, TARGET, "--metadata", metadata)
    assert outcome.code == 2
    assert "must be a JSON object" in outcome.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 200_000 + "\n", "field larger than field limit"),
        (f"source_url,target_url,enable_face_enhancer\n{FACE},{TARGET},maybe\n", "must be true"),
        (
            f"source_url,target_url,metadata\n{FACE},{TARGET},{'[' * 100_000}\n",
            "must be valid",
        ),
        (f"source_url,target_url,metadata\n{FACE},{TARGET},{'9' * 5000}\n", "must be valid"),
    ],
)
def test_rows_that_cannot_be_read_are_told_by_their_line(
    text: str, words: str, command: Command
) -> None:
    """With what would be right."""
    Path("rows.csv").write_text(text)
    outcome = command("bulk", "rows.csv", "--dry-run")
    assert words in outcome.err + outcome.out


@pytest.mark.usefixtures("service")
def test_a_journal_of_states_that_are_none(command: Command) -> None:
    """It is damaged, whether it is counted or exported."""
    Path("rows.csv").write_text(f"source_url,target_url\n{FACE},{TARGET}\n")
    command("bulk", "rows.csv")
    with closing(sqlite3.connect("rows.sqlite")) as connection, connection:
        connection.execute("UPDATE rows SET state = 77")
    for name in ("status", "export"):
        outcome = command("bulk", name, "rows.sqlite")
        assert outcome.code == 1
        assert "is damaged: " in outcome.err


@pytest.mark.usefixtures("service")
def test_a_journal_of_a_run_that_has_not_ended(command: Command) -> None:
    """It says how many rows have no outcome, and what to do."""
    Path("rows.csv").write_text(f"source_url,target_url\n{FACE},{TARGET}\n")
    command("bulk", "rows.csv")
    with closing(sqlite3.connect("rows.sqlite")) as connection, connection:
        connection.execute("UPDATE rows SET state = 1")
    assert (
        "1 rows of the journal have no outcome yet" in command("bulk", "export", "rows.sqlite").err
    )
    assert "The run has not finished" in command("bulk", "status", "rows.sqlite").err
