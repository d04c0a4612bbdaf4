"""Results on stdout, and in a browser."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from aifaceswap.cli import main
from aifaceswap.emulator import Emulator
from support.command_fixtures import Command
from support.commands import environment, on_terminal, run_process
from support.journals import write_entries
from support.samples import FACE, TARGET

JPEG = b"\xff\xd8\xff"


def settings(service: Emulator) -> dict[str, str]:
    return {"AIFACESWAP_BASE_URL": service.base_url, "AIFACESWAP_API_KEY": service.api_key}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a folder of its own to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("service")
def test_a_result_on_stdout(capsysbinary: pytest.CaptureFixture[bytes], folder: Path) -> None:
    """The bytes of the image and nothing else; messages go to stderr, and no file is made."""
    assert main(["run", FACE, TARGET, "-o", "-"]) == 0
    out, err = capsysbinary.readouterr()
    assert out.startswith(JPEG)
    assert err.splitlines()[-1] == b"Wrote %d bytes to stdout." % len(out)
    swap_id = err.split()[1].rstrip(b".").decode()
    assert main(["--quiet", "download", swap_id, "--output", "-"]) == 0
    assert capsysbinary.readouterr() == (out, b"")
    assert list(folder.iterdir()) == []


def test_a_result_is_not_written_to_a_terminal(service: Emulator) -> None:
    """That is said before anything is sent."""
    with on_terminal("run", FACE, TARGET, "-o", "-", env=settings(service)) as command:
        assert command.end() == 2
    assert "--output - writes bytes to stdout, which is a terminal." in " ".join(
        command.text.split()
    )
    assert service.requests == ()


def test_a_result_needs_a_stdout(
    command: Command, service: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that is said before anything is sent."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    outcome = command("run", FACE, TARGET, "-o", "-")
    assert (outcome.code, service.requests) == (2, ())
    assert "stdout, which is closed" in outcome.err


def test_a_reader_that_closes_stdout(service: Emulator) -> None:
    """The swap is paid: the last line downloads its result again."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "aifaceswap", "run", FACE, TARGET, "-o", "-"],
        env=environment(**settings(service)),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(writer)
    (swap,) = service.swaps
    assert done.returncode == 1
    assert f"  aifaceswap download {swap.id} --output -\n" in done.stderr


def test_a_result_is_opened(service: Emulator, folder: Path) -> None:
    """In the browser that BROWSER names, after the result has been written."""
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder}/opened\n')
    browser.chmod(0o700)
    env = {**settings(service), "BROWSER": f"{browser} %s"}
    outcome = run_process("run", FACE, TARGET, "-o", "a b.jpg", "--open", env=env)
    assert outcome.data["output"] == "a b.jpg"
    assert (folder / "opened").read_text() == f"{(folder / 'a b.jpg').as_uri()}\n"
    assert "Opened a b.jpg." in outcome.err.splitlines()


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("display", "said"),
    [("", "because there is no display"), (":0", "because no browser was found")],
)
def test_nothing_can_be_opened(
    command: Command, monkeypatch: pytest.MonkeyPatch, display: str, said: str
) -> None:
    """Without a display or a browser the file is named, and that is no failure."""
    for name in ("WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    swap_id = command("create", FACE, TARGET).data["id"]
    outcome = command("download", swap_id, "--open")
    assert outcome.code == 0
    assert f"Not opened, {said}: {swap_id}.jpg" in outcome.err


def test_a_report_is_opened(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a result is."""
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("BROWSER", raising=False)
    write_entries("run.sqlite")
    outcome = command("bulk", "report", "run.sqlite", "--open")
    assert outcome.err.splitlines()[-1] == ("Not opened, because there is no display: run.html")
