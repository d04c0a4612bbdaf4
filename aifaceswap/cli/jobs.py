"""What the commands do: each job is one coroutine, and tells the session how far it is."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

import anyio
import attrs

from aifaceswap._http.download import check_target
from aifaceswap._limits import API_KEY_VARIABLE, BASE_URL_VARIABLE
from aifaceswap._validation import is_loopback
from aifaceswap.budget import RequestBudget
from aifaceswap.cli import rendering
from aifaceswap.cli.context import Session, command_line
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.rendering import Display, note
from aifaceswap.client import AsyncClient
from aifaceswap.emulator import Emulator, RealClock, VirtualClock
from aifaceswap.emulator.faults import load as load_faults
from aifaceswap.errors import ConfigurationError, InvalidRequestError
from aifaceswap.models import Swap, SwapPage, SwapRequest, SwapType

T = TypeVar("T")

_SUFFIX = re.compile(r"\.[a-z0-9]{2,5}")


@attrs.frozen(kw_only=True)
class Order:
    """A swap to be created.

    Attributes:
        request: What is sent.
        idempotency_key: The user's own key.
        output: The file for its result.
        timeout: Seconds to wait for its end.
    """

    request: SwapRequest
    idempotency_key: str | None = None
    output: Path | None = None
    timeout: float = 300.0


def make_order(
    swap: Mapping[str, Any], *, output: Path | None = None, timeout: float = 300.0
) -> Order:
    """Check what was typed, before anything is sent.

    Args:
        swap: The fields of the swap, and the idempotency key.
        output: The file for its result.
        timeout: Seconds to wait for its end.

    Returns:
        The order.

    Raises:
        InvalidRequestError: An argument is wrong.
        OSError: `output` cannot be written.
    """
    fields = {name: value for name, value in swap.items() if name != "idempotency_key"}
    return Order(
        request=SwapRequest(**fields),
        idempotency_key=swap["idempotency_key"],
        output=None if output is None else check_output(output),
        timeout=timeout,
    )


def start(job: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run a job; SIGTERM cancels it as Ctrl-C does.

    Args:
        job: The coroutine function.

    Returns:
        What it returns.

    Raises:
        CancelledError: SIGTERM came.
        KeyboardInterrupt: Ctrl-C came.
    """
    return anyio.run(_until_terminated, job)


async def _until_terminated(job: Callable[[], Coroutine[None, None, T]]) -> T:
    task = cast("asyncio.Task[object]", asyncio.current_task())
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await job()


def find_key() -> str:
    """The key in the environment.

    Raises:
        ConfigurationError: There is none.
    """
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigurationError("api_key: this variable is not set", field="api_key")
    return key


@asynccontextmanager
async def connect(
    session: Session, budget: RequestBudget | Literal["shared"] = "shared"
) -> AsyncGenerator[AsyncClient]:
    """A client of the service, or of an emulator that lives as long as the client."""
    if not session.emulated:
        async with AsyncClient(find_key(), budget=budget) as client:
            yield client
        return
    async with (
        Emulator() as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=budget) as client,
    ):
        yield client


async def create(session: Session, order: Order) -> None:
    """Create a swap and show it."""
    async with connect(session) as client:
        with Display("Creating the swap") as display:
            swap = await _create(session, client, order, display)
    rendering.show_swap(swap, as_json=not session.is_for_people)
    _offer(session, swap)


async def run(session: Session, order: Order) -> None:
    """Create a swap, wait for its end, save its result, show it."""
    async with connect(session) as client:
        with Display("Creating the swap") as display:
            swap = await _create(session, client, order, display)
            display.show(swap)
            swap = await client.swaps.wait(swap, timeout=order.timeout, on_update=display.show)
            if order.output is not None:
                await _save(session, client, swap, order.output, display)
    rendering.show_swap(swap, output=order.output, as_json=not session.is_for_people)
    if order.output is None:
        _offer(session, swap)


async def get(session: Session, swap_id: str) -> None:
    """Show a swap."""
    async with connect(session) as client:
        with Display("Asking the service"):
            swap = await client.swaps.get(swap_id)
    rendering.show_swap(swap, as_json=not session.is_for_people)
    _offer(session, swap)


async def wait(session: Session, swap_id: str, timeout: float) -> None:
    """Wait for the end of a swap and show it."""
    session.may_resume(session.typed())
    async with connect(session) as client:
        with Display("Asking the service") as display:
            swap = await client.swaps.get(swap_id)
            display.show(swap)
            swap = await client.swaps.wait(swap, timeout=timeout, on_update=display.show)
    rendering.show_swap(swap, as_json=not session.is_for_people)
    _offer(session, swap)


async def list_swaps(session: Session, limit: int, cursor: str | None, *, every: bool) -> None:
    """Show one page of swaps, or all pages from there on."""
    shown: list[Swap] = []
    async with connect(session) as client:
        # Lines of JSON are written as they come, and a display would run into them.
        with Display("Asking the service", silent=not session.is_for_people):
            async for page in _pages(client, limit, cursor, every=every):
                shown.extend(page)
                cursor = page.next_cursor
                if not session.is_for_people:
                    _write_lines(page)
    if shown and session.is_for_people:
        rendering.show_swaps(shown)
    elif not shown:
        _explain_emptiness(session)
    if cursor is not None:
        more = command_line("list", f"--limit={limit}", f"--cursor={cursor}")
        note(f"There may be more. Next: {more}")


async def download(session: Session, swap_id: str, output: Path | None) -> None:
    """Save the result of a swap."""
    session.may_resume(session.typed())
    async with connect(session) as client:
        with Display("Asking the service") as display:
            swap = await client.swaps.get(swap_id)
            if not swap.is_finished:
                raise _unfinished(session, swap)
            target = output or check_output(Path(f"{swap_id}{_suffix(swap)}"))
            await _save(session, client, swap, target, display)
    rendering.show_swap(swap, output=target, as_json=not session.is_for_people)


async def me(session: Session) -> None:
    """Show the account."""
    async with connect(session) as client:
        with Display("Asking the service"):
            account = await client.me()
    rendering.show_account(account, as_json=not session.is_for_people)


def serve(*, speed: float, faults: Path | None, **settings: Any) -> None:
    """Serve an emulator until Ctrl-C or SIGTERM.

    Args:
        speed: Of its clock; 0: it is moved over HTTP.
        faults: A script of faults.
        settings: Others of `Emulator`.

    Raises:
        CommandError: A setting or a file is wrong.
        OSError: A file cannot be read or written.
    """
    try:
        # From now: receivers of webhooks compare signatures with their own clock.
        clock = RealClock(speed) if speed else VirtualClock(start=float(int(time.time())))
        script = load_faults(faults) if faults is not None else ()
        emulator = Emulator(clock=clock, faults=script, **settings)
    except ValueError as error:
        raise CommandError(str(error), command_line("emulator", "--help")) from None
    start_server(lambda: _serve(emulator))


def start_server(job: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a job that only Ctrl-C and SIGTERM end: they are its proper end.

    Args:
        job: The coroutine function.
    """
    try:
        start(job)
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("Stopped.")


def refuse_address(given: str, error: OSError) -> CommandError:
    """The error of a server that cannot listen.

    Args:
        given: Where it was to listen, as the user said it.
        error: Why it cannot.

    Returns:
        The error, to be raised.
    """
    # asyncio's words repeat the address; those of a name that does not resolve are its own.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror or error
    message = f"{given} cannot be used: {reason}"
    return CommandError(message, "give another one, or --port 0 for a free one")


async def _serve(emulator: Emulator) -> None:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(emulator)
        except OSError as error:
            raise refuse_address(_place_of(emulator), error) from None
        rendering.write_json({"base_url": emulator.base_url, "api_key": emulator.api_key})
        if not is_loopback(emulator.host):
            note(f"Whoever reaches {emulator.host} can steer the emulator, and sees what it got.")
        if sys.stdout.isatty():
            note(f"Serving until Ctrl-C. To look at: {emulator.origin}/")
            note("In another terminal:")
            note(f"  export {BASE_URL_VARIABLE}={emulator.base_url}")
            note(f"  export {API_KEY_VARIABLE}={emulator.api_key}")
            note(f"  {command_line('me')}")
        await anyio.sleep_forever()


def _place_of(emulator: Emulator) -> str:
    if emulator.host == "127.0.0.1":
        return f"--port: {emulator.port}"
    return f"--host {emulator.host} --port {emulator.port}"


def check_output(path: Path) -> Path:
    """Check that a result can be saved there, before a swap is paid.

    Args:
        path: The file; one that exists will be replaced.

    Returns:
        The path.

    Raises:
        InvalidRequestError: It is no file in a folder that can be written to.
    """
    if str(path) == "-":
        raise InvalidRequestError.for_field(
            "path", "-", "must name a file: stdout carries the swap's JSON"
        )
    return check_target(path)


async def _create(session: Session, client: AsyncClient, order: Order, display: Display) -> Swap:
    key = order.idempotency_key or str(uuid.uuid4())
    session.idempotency_key = key
    options = () if order.idempotency_key else ("--idempotency-key", key)
    session.may_resume(session.typed(*options))
    request = attrs.asdict(order.request, recurse=False)
    swap = await client.swaps.create(**request, idempotency_key=key)
    commands = [command_line("wait", swap.id)]
    if order.output is not None:
        commands.append(command_line("download", swap.id, "--output", order.output))
    session.may_resume(*commands)
    display.note(f"Created {rendering.printable(swap.id)}.")
    return swap


async def _save(
    session: Session, client: AsyncClient, swap: Swap, output: Path, display: Display
) -> None:
    session.may_resume(command_line("download", swap.id, "--output", output))
    display.say("Downloading the result")
    await client.swaps.download(swap, output)
    session.may_resume(command_line("get", swap.id))
    display.note(f"Saved {rendering.printable(output)} ({rendering.size_of(output)}).")


async def _pages(
    client: AsyncClient, limit: int, cursor: str | None, *, every: bool
) -> AsyncIterator[SwapPage]:
    while True:
        page = await client.swaps.list(limit=limit, cursor=cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None or not every:
            return


def _explain_emptiness(session: Session) -> None:
    if session.emulated:
        note("A private emulator begins empty. Next, to serve one that stays: aifaceswap emulator")
    else:
        note("There are no swaps. Next: aifaceswap run SOURCE TARGET --output FILE")


def _write_lines(page: SwapPage) -> None:
    for swap in page:
        rendering.write_json(swap)


def _unfinished(session: Session, swap: Swap) -> CommandError:
    message = f"{swap.id} has no result yet: it is {swap.status}"
    return CommandError(message, f"{command_line('wait', swap.id)} && {session.typed()}")


def _suffix(swap: Swap) -> str:
    """The extension of the result, as its URL says, or as its type lets expect."""
    suffix = PurePosixPath(urlsplit(swap.result_url or "").path).suffix.lower()
    if _SUFFIX.fullmatch(suffix):
        return suffix
    return ".gif" if swap.type == SwapType.GIF else ".jpg"


def _offer(session: Session, swap: Swap) -> None:
    """Say to people how to come by the picture."""
    if session.is_for_people and not session.emulated and not swap.has_failed:
        todo = "download" if swap.is_finished else "wait"
        note(f"Next: {command_line(todo, swap.id)}")
