"""The commands that create, show and save single swaps."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from aifaceswap._api.requests import local_files, with_urls
from aifaceswap._http.images import SwapImage, fits
from aifaceswap._http.saving import check_target
from aifaceswap._limits import MAX_PAGE_SIZE
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.context import CommandContext, command_line
from aifaceswap.cli.failures import ARGUMENTS, CommandError, describe
from aifaceswap.cli.output import STDOUT, binary_stdout
from aifaceswap.cli.rendering import Display, note
from aifaceswap.client import AsyncClient
from aifaceswap.errors import ConfigurationError, InvalidRequestError, WaitTimeoutError
from aifaceswap.files._local import check_file
from aifaceswap.models import Swap, SwapPage, SwapRequest

# Seconds to suggest after a wait that was too short.
_SHORTEST_SECOND_WAIT = 300.0


@attrs.frozen(kw_only=True)
class SwapArguments:
    """A swap to be created.

    Attributes:
        request: What is sent.
        idempotency_key: The user's own key.
        output: The file for its result.
        timeout: The maximum time to wait, in seconds.
    """

    request: SwapRequest
    idempotency_key: str | None = None
    output: Path | None = None
    timeout: float = 300.0


@attrs.frozen(kw_only=True)
class Filters:
    """Which swaps to list.

    Attributes:
        status: Their status.
        since: The first day (UTC) on which they were created.
        until: The last day (UTC) on which they were created.
    """

    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def are_set(self) -> bool:
        """Whether there is any filter."""
        return (self.status, self.since, self.until) != (None, None, None)

    def match(self, swap: Swap) -> bool:
        """Whether a swap passes all filters."""
        if self.status is not None and swap.status != self.status:
            return False
        if self.since is None and self.until is None:
            return True
        day = None if swap.created_at is None else swap.created_at.astimezone(UTC).date()
        if day is None:
            return False
        first = day if self.since is None else self.since.date()
        last = day if self.until is None else self.until.date()
        return first <= day <= last

    def end_before(self, page: SwapPage) -> bool:
        """Whether pages after this one are older than all that pass."""
        dates = [swap.created_at for swap in page if swap.created_at is not None]
        if self.since is None or not dates:
            return False
        return min(dates).astimezone(UTC).date() < self.since.date()


def read_swap_arguments(
    context: CommandContext,
    swap: Mapping[str, Any],
    *,
    output: Path | None = None,
    timeout: float = 300.0,
) -> SwapArguments:
    """Check what was typed, before anything is sent."""
    fields = {name: value for name, value in swap.items() if name != "idempotency_key"}
    return SwapArguments(
        request=SwapRequest(**fields),
        idempotency_key=swap["idempotency_key"],
        output=None if output is None else check_output(context, output),
        timeout=timeout,
    )


async def create(context: CommandContext, arguments: SwapArguments) -> None:
    """Create a swap and show it."""
    async with runtime.connect(context) as client:
        with Display("Creating the swap") as display:
            swap = await _create(context, client, arguments, display)
    rendering.show_swap(swap, as_json=not context.shows_table)
    _suggest_next(context, swap)


async def run(context: CommandContext, arguments: SwapArguments) -> Path | None:
    """Create a swap, wait for it, save its result and show it; return the file."""
    async with runtime.connect(context) as client:
        with Display("Creating the swap") as display:
            swap = await _create(context, client, arguments, display)
            output = arguments.output
            then = () if output is None else (_download_command(swap, output),)
            swap = await _wait(context, client, swap, arguments.timeout, display, *then)
            saved = None
            if output is not None:
                saved = await _save(context, client, swap, output, display)
    if output != STDOUT:
        rendering.show_swap(swap, output=saved, as_json=not context.shows_table)
    if output is None:
        _suggest_next(context, swap)
    return saved


async def get(context: CommandContext, swap_id: str) -> None:
    """Show a swap."""
    async with runtime.connect(context) as client:
        with Display("Fetching the swap"):
            swap = await client.swaps.get(swap_id)
    rendering.show_swap(swap, as_json=not context.shows_table)
    _suggest_next(context, swap)


async def wait(context: CommandContext, swap_id: str, timeout: float) -> None:
    """Wait for a swap and show it."""
    context.set_resume(context.retyped())
    async with runtime.connect(context) as client:
        with Display("Fetching the swap") as display:
            swap = await client.swaps.get(swap_id)
            swap = await _wait(context, client, swap, timeout, display)
    rendering.show_swap(swap, as_json=not context.shows_table)
    _suggest_next(context, swap)


async def list_swaps(
    context: CommandContext, limit: int, cursor: str | None, filters: Filters, *, every: bool
) -> None:
    """Show the newest swaps that pass the filters, or all of them."""
    shown: list[Swap] = []
    size = MAX_PAGE_SIZE if filters.are_set else limit
    async with runtime.connect(context) as client:
        # Lines of JSON are written as they come, and a display would run into them.
        with Display("Listing swaps", silent=not context.shows_table):
            async for page in _pages(client, size, cursor):
                left = len(page) if every else limit - len(shown)
                selected = [swap for swap in page if filters.match(swap)][:left]
                shown.extend(selected)
                if not context.shows_table:
                    _write_lines(selected)
                cursor = None if filters.end_before(page) else page.next_cursor
                if cursor is None or not (every or (filters.are_set and len(shown) < limit)):
                    break
    if shown and context.shows_table:
        rendering.show_swaps(shown)
    elif not shown:
        _explain_empty_list(context, filters)
    if cursor is not None and filters.are_set:
        note(f"There may be more. Next: {context.retyped()} --all")
    elif cursor is not None:
        note(f"There may be more. Next: {context.retyped('--cursor', cursor)}")


async def download(context: CommandContext, swap_id: str, output: Path | None) -> Path | None:
    """Save the result of a swap, and return the file."""
    context.set_resume(context.retyped())
    async with runtime.connect(context) as client:
        with Display("Fetching the swap") as display:
            swap = await client.swaps.get(swap_id)
            if not swap.is_finished:
                raise _not_finished_error(context, swap)
            saved = await _save(context, client, swap, output, display)
    if output != STDOUT:
        rendering.show_swap(swap, output=saved, as_json=not context.shows_table)
    return saved


async def me(context: CommandContext) -> None:
    """Show the account."""
    async with runtime.connect(context) as client:
        with Display("Fetching the account"):
            account = await client.me()
    rendering.show_account(account, as_json=not context.shows_table)


def check_output(context: CommandContext, path: Path) -> Path:
    """Check that a result can be saved there, before a swap is charged."""
    if path == STDOUT:
        binary_stdout(context)
        return path
    return check_target(path)


async def _create(
    context: CommandContext, client: AsyncClient, arguments: SwapArguments, display: Display
) -> Swap:
    key = arguments.idempotency_key or str(uuid.uuid4())
    options = [] if arguments.idempotency_key else ["--idempotency-key", key]
    request, files = arguments.request, local_files(arguments.request)
    if files:
        display.say("Uploading the files")
        request = await _publish(context, client, request)
        options += ["--type", str(request.type)]
        display.say("Creating the swap")
    # A key belongs to one body: the same swap has the same URLs.
    urls = {"source": request.source_url, "target": request.target_url}
    replaced = {str(file): urls[name] for name, file in files.items()}
    context.idempotency_key = key
    context.set_resume(context.retyped(*options, replaced=replaced))
    fields = attrs.asdict(request, recurse=False)
    swap = await client.swaps.create(**fields, idempotency_key=key)
    then = () if arguments.output is None else (_download_command(swap, arguments.output),)
    context.set_resume(command_line("wait", swap.id), *then)
    display.note(f"Created {rendering.printable(swap.id)}.")
    return swap


async def _publish(
    context: CommandContext, client: AsyncClient, request: SwapRequest
) -> SwapRequest:
    """Upload local files, all of which are checked before."""
    given = local_files(request)
    files = {name: check_file(name, file) for name, file in given.items()}
    context.has_files = True
    try:
        urls = {name: await client.swaps.publish(file) for name, file in given.items()}
    except InvalidRequestError:  # no store is set
        name, file = next(iter(given.items()))
        text = f"{ARGUMENTS[name]} is a local file, which the service cannot read: {file!s}"
        raise ConfigurationError(text, field="files") from None
    is_gif = "target" in files and files["target"].media_type == "image/gif"
    return with_urls(request, urls, is_gif=is_gif)


async def _wait(
    context: CommandContext,
    client: AsyncClient,
    swap: Swap,
    timeout: float,
    display: Display,
    *then: str,
) -> Swap:
    """Wait for a swap; after a timeout, resuming means to wait longer and do what follows."""
    display.show(swap)
    try:
        return await client.swaps.wait(swap, timeout=timeout, on_update=display.show)
    except WaitTimeoutError:
        longer = f"{max(_SHORTEST_SECOND_WAIT, 2 * timeout):g}"
        context.set_resume(command_line("wait", swap.id, "--timeout", longer), *then)
        context.longer_timeout = longer
        raise


def _download_command(swap: Swap, output: Path) -> str:
    return command_line("download", swap.id, "--output", output)


async def _save(
    context: CommandContext, client: AsyncClient, swap: Swap, output: Path | None, display: Display
) -> Path | None:
    option = () if output is None else ("--output", output)
    context.set_resume(command_line("download", swap.id, *option))
    display.say("Downloading the result")
    image = await client.swaps.fetch(swap)
    if output == STDOUT:
        _write_image(context, image, display)
        return None
    path = Path(f"{swap.id}{image.suffix}") if output is None else _named(output, image)
    try:
        image.save(path)
    except (InvalidRequestError, OSError) as error:
        message = f"{describe(error)}. Swap {swap.id} is finished and charged"
        again = command_line("download", swap.id, "--output", "FILE")
        raise CommandError(message, f"save its result to another file: {again}") from None
    context.set_resume(command_line("get", swap.id))
    display.note(f"Saved {rendering.printable(path)} ({rendering.size_of(path)}).")
    return path


def _write_image(context: CommandContext, image: SwapImage, display: Display) -> None:
    stdout = binary_stdout(context)
    try:
        stdout.write(image.data)
        stdout.flush()
    except BrokenPipeError:
        note(f"Output closed by the reader. To download again:\n  {context.resume}")
        raise
    display.note(f"Wrote {rendering.describe_size(len(image.data))} to stdout.")


def _named(output: Path, image: SwapImage) -> Path:
    """The file that was asked for, with the suffix that fits the bytes if it is a new file."""
    if fits(output, image.media_type):
        return output
    corrected = output.with_suffix(image.suffix)
    is_new = not output.exists() and not corrected.exists()
    path = corrected if is_new else output
    note(f"The result is {image.media_type}; it is saved as {rendering.printable(path)}.")
    return path


async def _pages(client: AsyncClient, size: int, cursor: str | None) -> AsyncIterator[SwapPage]:
    page = await client.swaps.list(limit=size, cursor=cursor)
    yield page
    while page.next_cursor is not None:
        page = await client.swaps.list(limit=size, cursor=page.next_cursor)
        yield page


def _explain_empty_list(context: CommandContext, filters: Filters) -> None:
    if filters.are_set:
        note("No swaps match.")
    elif context.emulated:
        note("A private emulator starts empty. Next, to serve one that stays: aifaceswap emulator")
    else:
        note("There are no swaps. Next: aifaceswap run SOURCE TARGET --output FILE")


def _write_lines(swaps: Iterable[Swap]) -> None:
    for swap in swaps:
        rendering.write_json(swap)


def _not_finished_error(context: CommandContext, swap: Swap) -> CommandError:
    message = f"{swap.id} has no result yet: it is {swap.status}"
    return CommandError(message, f"{command_line('wait', swap.id)} && {context.retyped()}")


def _suggest_next(context: CommandContext, swap: Swap) -> None:
    """Show the command that gets the result."""
    if context.shows_table and not context.emulated and not swap.has_failed:
        todo = "download" if swap.is_finished else "wait"
        note(f"Next: {command_line(todo, swap.id)}")
