"""The event loop of a command, its signals, and its connection to the service."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Literal, TypeVar, cast

import anyio

from aifaceswap._limits import API_KEY_VARIABLE
from aifaceswap.budget import Budget, RequestBudget
from aifaceswap.cli.context import CommandContext, current_context
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.rendering import note
from aifaceswap.cli.shared import open_coordinator
from aifaceswap.client import AsyncClient
from aifaceswap.emulator import Emulator
from aifaceswap.errors import ConfigurationError
from aifaceswap.files import EmulatorStore, FileStore

T = TypeVar("T")

_QUOTES = "'\"`"


def run_job(job: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run a job on an event loop; SIGTERM cancels it as Ctrl-C does."""
    context = current_context()
    with _logging() if context is not None and context.verbose else nullcontext():
        return anyio.run(_until_terminated, job)


async def _until_terminated(job: Callable[[], Coroutine[None, None, T]]) -> T:
    task = cast("asyncio.Task[object]", asyncio.current_task())
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await job()


@contextmanager
def _logging() -> Generator[None]:
    """Log each request to stderr; other libraries stay silent."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("aifaceswap")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def run_server(job: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a job that stops on Ctrl-C or SIGTERM; neither is an error."""
    try:
        run_job(job)
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("Stopped.")


def read_key() -> str:
    """Read the key from the environment."""
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigurationError("api_key is not set", field="api_key")
    if key[0] in _QUOTES:
        message = "api_key starts with a quote (position 0); use only the key itself, without "
        raise ConfigurationError(f"{message}'Bearer ', quotes or line breaks", field="api_key")
    return key


@asynccontextmanager
async def connect(
    context: CommandContext, limit: Callable[[RequestBudget], RequestBudget] | None = None
) -> AsyncGenerator[AsyncClient]:
    """Connect to the service, or to an emulator that stops with the client.

    `limit` wraps the rate limiter in another one.
    """
    async with AsyncExitStack() as stack:
        if context.emulated:
            emulator = await stack.enter_async_context(Emulator())
            key, base_url, proxy = emulator.api_key, emulator.base_url, None
            files: FileStore | str | None = context.files or EmulatorStore(emulator.origin)
        else:
            key, base_url, proxy = read_key(), None, context.proxy or "environment"
            files = context.files
        shared = await stack.enter_async_context(open_coordinator(context, limit))
        budget: RequestBudget | Literal["shared"] = "shared"
        if shared is None and limit is not None:
            budget = limit(Budget())
        yield await stack.enter_async_context(
            AsyncClient(
                key,
                base_url=base_url,
                budget=budget,
                coordinator=shared,
                files=files,
                proxy=proxy,
            )
        )


def address_error(given: str, error: OSError) -> CommandError:
    """Build the error of a server that cannot listen on an address."""
    # asyncio's words repeat the address; those of a name that does not resolve are its own.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror or error
    message = f"cannot listen on {given}: {reason}"
    return CommandError(message, "Use another port, or --port 0 for a free one.")
