"""`aifaceswap mcp` as hosts run it: a process of its own, spoken to over stdio."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aifaceswap.emulator import Emulator
from aifaceswap.emulator.faults import Fault, Stall
from support.commands import environment
from support.samples import FACE, TARGET

pytest.importorskip("mcp.server.mcpserver")

from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.types import TextContent

TIMEOUT = 30.0
# Writes down the server's process id, and how it ended. What a shell runs in the background reads
# /dev/null, unless it is given another descriptor.
SERVER = 'exec 3<&0; "$@" <&3 & echo $! > pid; wait $!; echo $? > code'
RUN = {"source": FACE, "target": TARGET}


@asynccontextmanager
async def agent(folder: Path, service: Emulator) -> AsyncIterator[Client]:
    """The SDK's client, connected to a server that may spend 2 credits."""
    settings = {"AIFACESWAP_API_KEY": service.api_key, "AIFACESWAP_BASE_URL": service.base_url}
    server = [sys.executable, "-m", "aifaceswap", "mcp", "--max-credits", "2", "-o", "out"]
    parameters = StdioServerParameters(
        command="sh",
        args=["-c", SERVER, "sh", *server],
        env=environment(**settings),
        cwd=folder,
    )
    # Of the two handshakes the one that waits for a slow start.
    async with Client(stdio_client(parameters), mode="legacy") as client:
        yield client


async def call(client: Client, tool: str, **arguments: object) -> str:
    """The text of a tool's result."""
    part = (await client.call_tool(tool, arguments)).content[-1]
    assert isinstance(part, TextContent)
    return part.text


async def until_written(file: anyio.Path) -> int:
    """The number in a file, once it is there."""
    with anyio.fail_after(TIMEOUT):
        while not (await file.exists() and (await file.read_text()).endswith("\n")):
            await anyio.sleep(0.01)
    return int(await file.read_text())


async def kill_when_charged(service: Emulator, folder: anyio.Path) -> None:
    """SIGKILL the server when its POST has created a swap."""
    with anyio.fail_after(TIMEOUT):
        while not service.swaps:
            await anyio.sleep(0.01)
    os.kill(await until_written(folder / "pid"), signal.SIGKILL)


# Two servers, one after the other: a busy machine takes its time.
@pytest.mark.timeout(180)
async def test_killed_in_mid_call(service: Emulator, tmp_path: Path) -> None:
    """SIGKILL between POST and response, and a new server: one swap, one price, one limit."""
    folder = anyio.Path(tmp_path)
    service.add_fault(Fault("POST /swaps", Stall(commit=True)))
    async with agent(tmp_path, service) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(kill_when_charged, service, folder)
        with pytest.raises(MCPError):
            await client.call_tool("run", RUN)
    assert await until_written(folder / "code") == 128 + signal.SIGKILL
    await (folder / "code").unlink()
    await (folder / "pid").unlink()

    async with agent(tmp_path, service) as client:
        done = json.loads(await call(client, "run", **RUN))
        await call(client, "create", **RUN, variation=2)
        refused = await call(client, "create", **RUN, variation=3)
        os.kill(await until_written(folder / "pid"), signal.SIGTERM)
        assert await until_written(folder / "code") == 0
    first, _ = service.swaps
    assert done["id"] == first.id
    assert (await (folder / done["file"]).read_bytes())[:3] == b"\xff\xd8\xff"
    assert refused.startswith("2 of 2 credits are spent.")
    assert service.balance == 998
    assert [path.name async for path in folder.glob("out/ledger*")] == ["ledger.sqlite"]


def request(number: int, method: str, **parameters: object) -> bytes:
    """A message of the protocol, as hosts write it."""
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
    return json.dumps(message).encode() + b"\n"


def test_ctrl_c_and_stray_output(service: Emulator, tmp_path: Path) -> None:
    """Stdout has the protocol alone, and Ctrl-C in mid-call ends the server with exit code 0."""
    service.add_fault(Fault("GET /me", Stall()))
    settings = {"AIFACESWAP_API_KEY": service.api_key, "AIFACESWAP_BASE_URL": service.base_url}
    client = {"name": "test", "version": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "aifaceswap", "mcp", "-o", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**settings),
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        first = request(
            *(1, "initialize"), protocolVersion="2025-06-18", capabilities={}, clientInfo=client
        )
        server.stdin.write(first + b"not JSON\n" + request(2, "tools/call", name="account"))
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "aifaceswap"
        ends = time.monotonic() + TIMEOUT
        while not service.faults[0].applied and time.monotonic() < ends:
            time.sleep(0.01)
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=TIMEOUT)
    assert server.returncode == 0
    assert all(json.loads(line) for line in out.splitlines())
    assert b"Traceback" not in err
