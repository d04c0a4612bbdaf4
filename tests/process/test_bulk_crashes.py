"""Killed at any moment, with a network and a service that fail: every row exactly one swap."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from aifaceswap.bulk._journal import State
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import Body, CloudflarePage, Fault, Status, Truncate
from support.journals import entries
from support.kills import kill_after_lines

KILLS = int(os.environ.get("AIFACESWAP_KILLS", "8"))
ROWS = 40
PROGRAM = """
import asyncio, sys, aifaceswap

async def main():
    client = aifaceswap.AsyncClient(sys.argv[1], base_url=sys.argv[2], budget=None)
    rows = [
        {"source_url": "https://example.com/face.jpg", "target_url": f"https://example.com/{n}/t.jpg"}
        for n in range(ROWS)
    ]
    done = 0
    async with client, client.swaps.bulk(rows, journal="run.sqlite", download_to="out") as outcomes:
        async for outcome in outcomes:
            print(outcome.row, outcome.error or "ok", flush=True)
            done += outcome.ok
    return done

sys.exit(asyncio.run(main()) != ROWS)
"""

# Each of a few requests in a hundred; the swap is created or not, and nobody says so.
FAULTS = [
    Fault("POST /swaps", CloudflarePage(524), rate=0.03),
    Fault("POST /swaps", CloudflarePage(403, commit=False), rate=0.02),
    Fault("POST /swaps", Status(500, commit=True), rate=0.03),
    Fault("POST /swaps", Status(409, code="idempotency_in_progress", commit=True), rate=0.03),
    Fault("POST /swaps", Truncate(), rate=0.03),
    Fault("GET /swaps", Body(status=403), rate=0.05),
    Fault("GET /swaps/*", CloudflarePage(520), rate=0.05),
    Fault("GET /swaps/*", Status(404), rate=0.05),
    Fault("GET /results/*", Status(403), rate=0.05),
]


class LossyProxy:
    """Passes bytes on to a server, and drops the connection instead of some of the answers.

    The server has carried the request out by then: to the client it is as if it had not.
    """

    def __init__(self, port: int, losses: float, seed: int) -> None:
        self._target = port
        self._losses = losses
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connected, "127.0.0.1", 0), self._loop
        )
        self._server = started.result()
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        there = asyncio.ensure_future(self._pass_on(reader, there_writer, 0.0))
        back = asyncio.ensure_future(self._pass_on(there_reader, writer, self._losses))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (there, back):
                end.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            writer.close()
            there_writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losses: float
    ) -> None:
        while data := await reader.read(65536):
            if self._random.random() < losses:
                return
            writer.write(data)
            await writer.drain()


def test_no_crash_loses_or_doubles_a_swap(tmp_path: Path) -> None:
    """Every row one swap and one outcome, every image complete, whatever fails or is killed."""
    moments = random.Random(7)
    limits = Limits(per_minute=None, per_day=None, concurrent=None)
    program = textwrap.dedent(PROGRAM).replace("ROWS", str(ROWS))
    with Emulator(duration=0.1, limits=limits, credits=100_000, faults=FAULTS) as emulator:
        port = int(emulator.base_url.split(":")[2].split("/")[0])
        with LossyProxy(port, losses=0.15, seed=7) as proxy:
            base_url = emulator.base_url.replace(str(port), str(proxy))
            command = [sys.executable, "-c", program, emulator.api_key, base_url]
            finished = False
            runs = 0
            rounds = 0
            while runs < KILLS:
                rounds += 1
                folder = tmp_path / str(rounds)
                folder.mkdir()
                before = len(emulator.swaps)
                finished = False
                while not finished:
                    process = subprocess.Popen(
                        command, cwd=folder, stdout=subprocess.PIPE, text=True
                    )
                    if runs < KILLS:
                        runs += 1
                        kill_after_lines(process, moments.randrange(6), moments.random())
                    else:
                        process.communicate(timeout=150)
                    finished = process.returncode == 0
                assert len(emulator.swaps) - before == ROWS
                check(folder)


def check(folder: Path) -> None:
    """Every row is done in the journal, and its picture is whole."""
    records = entries(folder / "run.sqlite")
    assert [record.number for record in records] == list(range(ROWS))
    assert {record.state for record in records} == {State.DONE}
    assert len({record.swap_id for record in records}) == ROWS
    for record in records:
        assert record.path is not None
        picture = (folder / os.fsdecode(os.fsdecode(record.path))).read_bytes()
        assert (picture[:2], picture[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    names = [name for name in os.listdir(folder / "out") if not name.startswith(".")]
    assert len(names) == ROWS
