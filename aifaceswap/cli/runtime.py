"""The event loop of a command, its signals, and its connection to the service."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Literal, TypeVar, cast

import anyio

from aifaceswap._limits import API_KEY_VARIABLE
from aifaceswap.budget import RequestBudget
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.rendering import note
from aifaceswap.client import AsyncClient
from aifaceswap.emulator import Emulator
from aifaceswap.errors import ConfigurationError

T = TypeVar("T")


def run_job(job: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run a job; SIGTERM cancels it as Ctrl-C does."""
    return anyio.run(_until_terminated, job)


async def _until_terminated(job: Callable[[], Coroutine[None, None, T]]) -> T:
    task = cast("asyncio.Task[object]", asyncio.current_task())
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await job()


def run_server(job: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a job that only Ctrl-C and SIGTERM end: they are its proper end."""
    try:
        run_job(job)
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("Stopped.")


def read_key() -> str:
    """The key in the environment."""
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigurationError("api_key: this variable is not set", field="api_key")
    return key


@asynccontextmanager
async def connect(
    context: CommandContext, budget: RequestBudget | Literal["shared"] = "shared"
) -> AsyncGenerator[AsyncClient]:
    """A client of the service, or of an emulator that lives as long as the client."""
    if not context.emulated:
        async with AsyncClient(read_key(), budget=budget) as client:
            yield client
        return
    async with (
        Emulator() as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=budget) as client,
    ):
        yield client


def address_error(given: str, error: OSError) -> CommandError:
    """The error of a server that cannot listen."""
    # asyncio's words repeat the address; those of a name that does not resolve are its own.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror or error
    message = f"{given} cannot be used: {reason}"
    return CommandError(message, "give another one, or --port 0 for a free one")
