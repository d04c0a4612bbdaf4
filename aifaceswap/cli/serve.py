"""The command `emulator`: the API served on this machine."""

from __future__ import annotations

import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from aifaceswap._limits import API_KEY_VARIABLE, BASE_URL_VARIABLE
from aifaceswap._validation import is_loopback
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.context import command_line
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.rendering import note
from aifaceswap.emulator import Emulator, RealClock, VirtualClock, load_settings


def serve(*, speed: float, faults: Path | None, **settings: Any) -> None:
    """Serve an emulator until Ctrl-C or SIGTERM."""
    try:
        # From now: receivers of webhooks compare signatures with their own clock.
        clock = RealClock(speed) if speed else VirtualClock(start=float(int(time.time())))
        if faults is not None:
            settings |= load_settings(faults)
        emulator = Emulator(clock=clock, **settings)
    except ValueError as error:
        raise CommandError(str(error), command_line("emulator", "--help")) from None
    runtime.run_server(lambda: _serve(emulator))


async def _serve(emulator: Emulator) -> None:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(emulator)
        except OSError as error:
            raise runtime.address_error(_describe_address(emulator), error) from None
        rendering.write_json({"base_url": emulator.base_url, "api_key": emulator.api_key})
        if not is_loopback(emulator.host):
            where = f"Anyone who can reach {emulator.host}"
            note(f"{where} can control the emulator and see its requests.")
        if sys.stdout.isatty():
            note(f"Serving until Ctrl-C. Page: {emulator.origin}/")
            note("In another terminal:")
            note(f"  export {BASE_URL_VARIABLE}={emulator.base_url}")
            note(f"  export {API_KEY_VARIABLE}={emulator.api_key}")
            note(f"  {command_line('me')}")
        await anyio.sleep_forever()


def _describe_address(emulator: Emulator) -> str:
    if emulator.host == "127.0.0.1":
        return f"port {emulator.port}"
    return f"{emulator.host}, port {emulator.port}"
