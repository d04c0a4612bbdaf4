"""Ctrl-C, SIGTERM and closed pipes, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest

from aifaceswap.emulator import Emulator
from support.command_fixtures import Command, Serve
from support.commands import FOREVER, environment, on_terminal, running
from support.samples import FACE, TARGET
from support.scripted import SWAP, Received, answer, stall

TIMEOUT = 90.0


@attrs.define(eq=False)
class Stalling:
    """A step that never answers, and says when it has begun not to."""

    begun: threading.Event = attrs.field(factory=threading.Event)

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        self.begun.set()
        await stall(request, writer)


def settings(base_url: str) -> dict[str, str]:
    return {"AIFACESWAP_BASE_URL": base_url, "AIFACESWAP_API_KEY": "key_emulator"}


def is_quiet(text: str) -> bool:
    noise = ("Traceback", "destroyed", "never awaited", "Warning", "Exception")
    return not any(word in text for word in noise)


def test_ctrl_c_while_the_swap_is_sent(serve: Serve) -> None:
    """Interrupted before the answer: the command that goes on carries the key that was sent."""
    stalling = Stalling()
    server = serve(stalling)
    with running("run", FACE, TARGET, "-o", "x.jpg", env=settings(server.base_url)) as command:
        assert stalling.begun.wait(TIMEOUT)
        assert command.stop() == 130
    assert is_quiet(command.text)
    (key,) = server.keys
    assert f"Idempotency key: {key}\n" in command.text
    wanted = f"aifaceswap run --idempotency-key {key} {FACE} {TARGET} -o x.jpg"
    assert command.text.endswith(f"(nothing is charged twice):\n  {wanted}\n")


def test_the_printed_command_goes_on_with_the_same_swap(
    serve: Serve, command: Command, service: Emulator
) -> None:
    """What is printed at Ctrl-C can be pasted: the swap is paid once."""
    stalling = Stalling()
    with running("create", FACE, TARGET, env=settings(serve(stalling).base_url)) as first:
        assert stalling.begun.wait(TIMEOUT)
        first.stop()
    pasted = shlex.split(first.text.splitlines()[-1])[1:]
    assert command(*pasted).data["id"] == command(*pasted).data["id"]
    assert service.balance == 999


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")],
)
def test_stopped_while_waiting(
    service: Emulator, number: signal.Signals, code: int, word: str
) -> None:
    """Stopped after the swap was created: the advice is to wait for it, and to download."""
    env = settings(service.base_url)
    with running("run", FACE, FOREVER, "--output", "x.jpg", env=env) as command:
        command.read_until("Created tsk_")
        assert command.stop(number) == code
    assert is_quiet(command.text)
    (swap,) = service.swaps
    assert word in command.text.splitlines()
    wanted = f"aifaceswap wait {swap.id} && aifaceswap download {swap.id} --output x.jpg"
    assert command.text.endswith(f"  {wanted}\n")


def test_ctrl_c_while_the_result_comes(serve: Serve, tmp_path: Path) -> None:
    """Interrupted in a download: no half file stays, and the advice is to download."""
    stalling = Stalling()

    async def done(request: Received, writer: asyncio.StreamWriter) -> None:
        result = f"http://{request.headers['host']}/result.jpg"
        await answer(body={**SWAP, "status": "done", "result_url": result})(request, writer)

    output = tmp_path / "x.jpg"
    env = settings(serve(done, stalling).base_url)
    with running("run", FACE, TARGET, "--output", str(output), env=env) as command:
        assert stalling.begun.wait(TIMEOUT)
        assert command.stop() == 130
    assert is_quiet(command.text)
    assert command.text.endswith(f"  aifaceswap download tsk_1 --output {output}\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_with_a_private_emulator() -> None:
    """A private emulator is gone with the command: there is nothing to go on with."""
    with running("--emulator", "run", FACE, FOREVER) as command:
        command.read_until("Created tsk_")
        assert command.stop() == 130
    assert is_quiet(command.text)
    assert command.text.endswith("The private emulator is gone; nothing was charged.\n")


def test_ctrl_c_restores_the_terminal(command: Command, service: Emulator) -> None:
    """The progress display gives the cursor back."""
    swap_id = command("create", FACE, FOREVER).data["id"]
    with on_terminal("wait", swap_id, env=settings(service.base_url)) as waiting:
        waiting.read_until(f"{swap_id} processing")
        assert waiting.stop() == 130
    assert is_quiet(waiting.text)
    assert waiting.text.count("\x1b[?25l") == waiting.text.count("\x1b[?25h") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_emulator_serves_until_it_is_stopped(number: signal.Signals) -> None:
    """`emulator` says where it is in one line, answers, and ends in 0."""
    with running("emulator", "--port", "0", "--credits", "7") as command:
        ready = json.loads(command.read_until("\n"))
        assert ready.keys() == {"base_url", "api_key"}
        port = int(ready["base_url"].rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)):
            assert command.stop(number) == 0
    assert command.text.splitlines()[1:] == ["Stopped."]


def test_the_emulator_finds_its_port_in_use(command: Command, service: Emulator) -> None:
    """A port in use is an error that says what to do."""
    port = service.origin.rpartition(":")[2]
    outcome = command("emulator", "--port", port)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"Error: cannot listen on port {port}: Address already in use")
    assert "--port 0" in outcome.next


def run_into(stdout: int, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aifaceswap", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(**env),
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def test_a_closed_pipe_ends_quietly(command: Command, service: Emulator) -> None:
    """When the reader has gone, `list` ends without a word."""
    command("create", FACE, TARGET)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_into(writer, "list", "--all", env=settings(service.base_url))
    finally:
        os.close(writer)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_does_not_hide_the_swap(service: Emulator) -> None:
    """Where stdout cannot be written, the paid swap can still be got."""
    with open("/dev/full", "w") as full:
        done = run_into(full.fileno(), "create", FACE, TARGET, env=settings(service.base_url))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.endswith(f"  aifaceswap wait {service.swaps[0].id}\n")
