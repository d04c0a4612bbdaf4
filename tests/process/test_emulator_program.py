"""`aifaceswap emulator` as a process of its own, controlled over HTTP."""

from __future__ import annotations

import json
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from aifaceswap import Client, InsufficientCreditsError
from support.commands import Running, run_process, running
from support.emulator_world import SWAP

if TYPE_CHECKING:
    from pathlib import Path


def ready(command: Running) -> dict[str, str]:
    """What the command says when it serves."""
    line: dict[str, str] = json.loads(command.read_until("\n").splitlines()[0])
    return line


def steer(base_url: str, path: str, value: object = None) -> Any:
    data = None if value is None else json.dumps(value).encode()
    url = base_url.replace("/api/v1", f"/_emulator/{path}")
    with urllib.request.urlopen(url, data) as answer:
        return json.load(answer)


def test_faults_come_from_a_file(tmp_path: Path) -> None:
    """A script in TOML strikes the first request."""
    script = tmp_path / "faults.toml"
    script.write_text(
        '[[fault]]\nmatch = "POST /swaps"\ndo = { action = "status", status = 402 }\n'
    )
    with running("emulator", "--faults", str(script)) as command:
        client = Client(ready(command)["api_key"], base_url=ready(command)["base_url"])
        with client, pytest.raises(InsufficientCreditsError):
            client.swaps.create(source_url=SWAP["source_url"], target_url=SWAP["target_url"])
        assert command.stop(signal.SIGTERM) == 0


def test_time_runs_as_fast_as_told() -> None:
    """An hour of the emulator in a few milliseconds."""
    with running("emulator", "--speed", "1e6", "--duration", "3600") as command:
        with Client("key_emulator", base_url=ready(command)["base_url"]) as client:
            swap = client.swaps.run(
                source_url=SWAP["source_url"], target_url=SWAP["target_url"], timeout=30
            )
        assert swap.status == "done"


def test_it_listens_to_others_only_when_told(tmp_path: Path) -> None:
    """On loopback by default; on every address with a word of warning, and with links that work."""
    with running("emulator", "--host", "0.0.0.0", "--duration", "0") as command:
        base_url = ready(command)["base_url"]
        assert base_url.startswith("http://127.0.0.1:")
        assert "can control the emulator" in command.read_until("requests.\n")
        body, headers = json.dumps(SWAP).encode(), {"Authorization": "Bearer key_emulator"}
        headers |= {"Content-Type": "application/json", "Host": "emulator:8700"}
        for request in (
            urllib.request.Request(f"{base_url}/swaps", body, headers),
            urllib.request.Request(f"{base_url}/swaps", None, headers),
        ):
            with urllib.request.urlopen(request) as answer:
                value = json.load(answer)
        assert value["data"][0]["result_url"].startswith("http://emulator:8700/results/tsk_")
        assert command.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--deliver-to", "http://example.com"),
            "deliver_to must be an http(s) origin on",
        ),
        (("--host", "a b"), "host must be an address such as '127.0.0.1' or a name; got 'a b'"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1, port 0: "),
        (("--faults", "/nothing.toml"), "'/nothing.toml' does not exist"),
        (("--faults", "bad.toml"), "bad.toml: fault[0].nht: is not known here"),
        (("--speed", "-1"), "'--speed': "),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    """One line that names the option, or the file and the field; no ready line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text('[[fault]]\nmatch = "*"\nnht = 1\ndo = "close"\n')
    outcome = run_process("emulator", *arguments)

    assert (outcome.code in {1, 2}, outcome.out) == (True, "")
    assert message in outcome.err.replace("\n", " ")
    assert "Traceback" not in outcome.err
