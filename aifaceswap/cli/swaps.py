"""The commands that create, show and save single swaps."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from aifaceswap._http.images import SwapImage, fits
from aifaceswap._http.saving import check_target
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.context import CommandContext, command_line
from aifaceswap.cli.failures import CommandError, describe
from aifaceswap.cli.rendering import Display, note
from aifaceswap.client import AsyncClient
from aifaceswap.errors import InvalidRequestError
from aifaceswap.models import Swap, SwapPage, SwapRequest


@attrs.frozen(kw_only=True)
class SwapArguments:
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


def read_swap_arguments(
    swap: Mapping[str, Any], *, output: Path | None = None, timeout: float = 300.0
) -> SwapArguments:
    """Check what was typed, before anything is sent."""
    fields = {name: value for name, value in swap.items() if name != "idempotency_key"}
    return SwapArguments(
        request=SwapRequest(**fields),
        idempotency_key=swap["idempotency_key"],
        output=None if output is None else check_output(output),
        timeout=timeout,
    )


async def create(context: CommandContext, arguments: SwapArguments) -> None:
    """Create a swap and show it."""
    async with runtime.connect(context) as client:
        with Display("Creating the swap") as display:
            swap = await _create(context, client, arguments, display)
    rendering.show_swap(swap, as_json=not context.shows_table)
    _suggest_next(context, swap)


async def run(context: CommandContext, arguments: SwapArguments) -> None:
    """Create a swap, wait for its end, save its result, show it."""
    async with runtime.connect(context) as client:
        with Display("Creating the swap") as display:
            swap = await _create(context, client, arguments, display)
            display.show(swap)
            swap = await client.swaps.wait(swap, timeout=arguments.timeout, on_update=display.show)
            output = arguments.output
            if output is not None:
                output = await _save(context, client, swap, output, display)
    rendering.show_swap(swap, output=output, as_json=not context.shows_table)
    if output is None:
        _suggest_next(context, swap)


async def get(context: CommandContext, swap_id: str) -> None:
    """Show a swap."""
    async with runtime.connect(context) as client:
        with Display("Asking the service"):
            swap = await client.swaps.get(swap_id)
    rendering.show_swap(swap, as_json=not context.shows_table)
    _suggest_next(context, swap)


async def wait(context: CommandContext, swap_id: str, timeout: float) -> None:
    """Wait for the end of a swap and show it."""
    context.set_resume(context.retyped())
    async with runtime.connect(context) as client:
        with Display("Asking the service") as display:
            swap = await client.swaps.get(swap_id)
            display.show(swap)
            swap = await client.swaps.wait(swap, timeout=timeout, on_update=display.show)
    rendering.show_swap(swap, as_json=not context.shows_table)
    _suggest_next(context, swap)


async def list_swaps(
    context: CommandContext, limit: int, cursor: str | None, *, every: bool
) -> None:
    """Show one page of swaps, or all pages from there on."""
    shown: list[Swap] = []
    async with runtime.connect(context) as client:
        # Lines of JSON are written as they come, and a display would run into them.
        with Display("Asking the service", silent=not context.shows_table):
            async for page in _pages(client, limit, cursor, every=every):
                shown.extend(page)
                cursor = page.next_cursor
                if not context.shows_table:
                    _write_lines(page)
    if shown and context.shows_table:
        rendering.show_swaps(shown)
    elif not shown:
        _explain_empty_list(context)
    if cursor is not None:
        more = command_line("list", f"--limit={limit}", f"--cursor={cursor}")
        note(f"There may be more. Next: {more}")


async def download(context: CommandContext, swap_id: str, output: Path | None) -> None:
    """Save the result of a swap."""
    context.set_resume(context.retyped())
    async with runtime.connect(context) as client:
        with Display("Asking the service") as display:
            swap = await client.swaps.get(swap_id)
            if not swap.is_finished:
                raise _not_finished_error(context, swap)
            target = await _save(context, client, swap, output, display)
    rendering.show_swap(swap, output=target, as_json=not context.shows_table)


async def me(context: CommandContext) -> None:
    """Show the account."""
    async with runtime.connect(context) as client:
        with Display("Asking the service"):
            account = await client.me()
    rendering.show_account(account, as_json=not context.shows_table)


def check_output(path: Path) -> Path:
    """Check that a result can be saved there, before a swap is paid."""
    if str(path) == "-":
        raise InvalidRequestError.for_field(
            "path", "-", "must name a file: stdout carries the swap's JSON"
        )
    return check_target(path)


async def _create(
    context: CommandContext, client: AsyncClient, arguments: SwapArguments, display: Display
) -> Swap:
    key = arguments.idempotency_key or str(uuid.uuid4())
    context.idempotency_key = key
    options = () if arguments.idempotency_key else ("--idempotency-key", key)
    context.set_resume(context.retyped(*options))
    request = attrs.asdict(arguments.request, recurse=False)
    swap = await client.swaps.create(**request, idempotency_key=key)
    commands = [command_line("wait", swap.id)]
    if arguments.output is not None:
        commands.append(command_line("download", swap.id, "--output", arguments.output))
    context.set_resume(*commands)
    display.note(f"Created {rendering.printable(swap.id)}.")
    return swap


async def _save(
    context: CommandContext, client: AsyncClient, swap: Swap, output: Path | None, display: Display
) -> Path:
    option = () if output is None else ("--output", output)
    context.set_resume(command_line("download", swap.id, *option))
    display.say("Downloading the result")
    image = await client.swaps.fetch(swap)
    path = Path(f"{swap.id}{image.suffix}") if output is None else _named(output, image)
    try:
        image.save(path)
    except (InvalidRequestError, OSError) as error:
        message = f"{describe(error)}. Swap {swap.id} is finished and paid"
        again = command_line("download", swap.id, "--output", "FILE")
        raise CommandError(message, f"save its result to another file: {again}") from None
    context.set_resume(command_line("get", swap.id))
    display.note(f"Saved {rendering.printable(path)} ({rendering.size_of(path)}).")
    return path


def _named(output: Path, image: SwapImage) -> Path:
    """The file that was asked for, with the suffix that fits the bytes if it is a new file."""
    if fits(output, image.media_type):
        return output
    corrected = output.with_suffix(image.suffix)
    is_new = not output.exists() and not corrected.exists()
    path = corrected if is_new else output
    note(f"The result is {image.media_type}; it is saved as {rendering.printable(path)}.")
    return path


async def _pages(
    client: AsyncClient, limit: int, cursor: str | None, *, every: bool
) -> AsyncIterator[SwapPage]:
    while True:
        page = await client.swaps.list(limit=limit, cursor=cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None or not every:
            return


def _explain_empty_list(context: CommandContext) -> None:
    if context.emulated:
        note("A private emulator begins empty. Next, to serve one that stays: aifaceswap emulator")
    else:
        note("There are no swaps. Next: aifaceswap run SOURCE TARGET --output FILE")


def _write_lines(page: SwapPage) -> None:
    for swap in page:
        rendering.write_json(swap)


def _not_finished_error(context: CommandContext, swap: Swap) -> CommandError:
    message = f"{swap.id} has no result yet: it is {swap.status}"
    return CommandError(message, f"{command_line('wait', swap.id)} && {context.retyped()}")


def _suggest_next(context: CommandContext, swap: Swap) -> None:
    """Say to people how to come by the picture."""
    if context.shows_table and not context.emulated and not swap.has_failed:
        todo = "download" if swap.is_finished else "wait"
        note(f"Next: {command_line(todo, swap.id)}")
