"""What people see on a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aifaceswap.emulator import Emulator
from support.command_fixtures import Command
from support.commands import on_terminal
from support.samples import FACE, TARGET


def on_screen(service: Emulator, *arguments: str) -> str:
    """The command's output on a terminal of eighty columns, without colours and movements."""
    env = {"AIFACESWAP_BASE_URL": service.base_url, "AIFACESWAP_API_KEY": service.api_key}
    with on_terminal(*arguments, env=env) as command:
        assert command.end() == 0, command.text
    return plain(command.text)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")


def test_the_first_command(tmp_path: Path) -> None:
    """Without key and network: a swap, its picture, and how to do the same for real."""
    output = tmp_path / "x.jpg"
    with on_terminal("--emulator", "run", FACE, TARGET, "--output", str(output)) as command:
        assert command.end() == 0, command.text
    assert output.read_bytes().startswith(b"\xff\xd8\xff")
    text = plain(command.text)
    assert re.search(r"tsk_[0-9a-f]+ processing .*[0-9]+%", text)
    assert command.text.count("\x1b[?25l") == command.text.count("\x1b[?25h") == 1
    assert re.search(r"Saved as +/", text)
    assert "export AIFACESWAP_API_KEY=<your key>\n" in text
    assert text.endswith(f"  aifaceswap run {FACE} {TARGET} --output {output}\n")


def test_a_swap_is_shown_as_fields(command: Command, service: Emulator) -> None:
    """People get names and values; the result's signature stays out of sight."""
    swap_id = command("create", FACE, TARGET).data["id"]
    text = on_screen(service, "wait", swap_id)
    assert re.search(rf"Swap +{swap_id} *\n", text)
    assert re.search(rf"Result +{service.origin}/results/{swap_id}.jpg\?…", text)
    assert "signature" not in text
    assert text.endswith(f"Next: aifaceswap download {swap_id}\n")


def test_metadata_is_shown_as_json(command: Command, service: Emulator) -> None:
    """As it was given, for people, too."""
    swap_id = command("create", FACE, TARGET, "--metadata", '{"name": "Zoë"}').data["id"]
    assert re.search(r'Metadata +{"name": "Zoë"}', on_screen(service, "get", swap_id))


def test_a_list_fits_eighty_columns(command: Command, service: Emulator) -> None:
    """One line a swap, with ids that can be copied."""
    ids = [command("create", FACE, TARGET).data["id"] for _ in range(2)]
    lines = on_screen(service, "list").rpartition("ID ")[2].splitlines()
    assert ids[::-1] == [line.split()[0] for line in lines[1:]]
    assert all(len(line.rstrip()) <= 80 for line in lines)


def test_json_on_a_terminal(service: Emulator) -> None:
    """With --json people get JSON, too."""
    assert '{"user_id":' in on_screen(service, "me", "--json")


@pytest.mark.parametrize(("setting", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_can_be_switched_off(setting: dict[str, str], coloured: bool) -> None:
    """NO_COLOR is respected."""
    with on_terminal("dance", env=setting) as command:
        assert command.end() == 2
    assert coloured == ("\x1b[1;31mError:" in command.text)
