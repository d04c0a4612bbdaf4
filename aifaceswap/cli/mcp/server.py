"""The server: its connection to the service, its files, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from aifaceswap.cli import runtime
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.mcp.folders import Folders
from aifaceswap.cli.mcp.ledger import Ledger
from aifaceswap.cli.mcp.tools import Server, Tools
from aifaceswap.cli.rendering import note

_CHUNK = 65_536


async def serve(
    context: CommandContext,
    *,
    max_credits: float,
    ledger: Path | None,
    output: Path,
    allowed: Sequence[Path],
) -> None:
    """Serve until stdin ends, Ctrl-C or SIGTERM."""
    if sys.stdin.isatty():
        note("This is a server for AI agents: it reads JSON from stdin. Press Ctrl-C to stop it.")
    with tempfile.TemporaryDirectory() as folder, _ending_on_signals():
        # The swaps of a private emulator end with it, and so does what is written of them.
        default = Path(folder) if context.emulated else output
        path = ledger or default / "ledger.sqlite"
        async with runtime.connect(context) as client:
            spending = Ledger(client, path, max_credits)
            tools = Tools(client, spending, Folders(allowed), output)
            try:
                await Server(tools).run_stdio_async()
            except* BrokenPipeError:
                note("The host has closed the connection.")


@contextmanager
def _ending_on_signals() -> Generator[None]:
    """Let stdin end on a signal: nothing else interrupts the thread that reads it."""
    stdin = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    pipe = os.fdopen(writer, "wb", buffering=0)
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, pipe.close)
    threading.Thread(target=_copy, args=(stdin, pipe), daemon=True).start()
    try:
        yield
    finally:
        os.dup2(stdin, 0)


def _copy(source: int, pipe: BinaryIO) -> None:
    with suppress(OSError, ValueError), pipe:  # a signal has closed it
        while data := os.read(source, _CHUNK):
            pipe.write(data)
