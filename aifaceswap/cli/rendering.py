"""What is shown: data on stdout, for people or as JSON; everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aifaceswap._api import codec
from aifaceswap._limits import API_KEY_VARIABLE, FILES_VARIABLE
from aifaceswap.cli.context import SITE, CommandContext, current_context
from aifaceswap.models import Account, Swap, without_query

_STYLES = {"done": "green", "failed": "red"}
_KIB = 1024


def printable(text: object) -> str:
    """Text from elsewhere as a terminal may get it: control characters are written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def note(text: str | Text = "", *, style: str = "", console: Console | None = None) -> None:
    """Write a line to stderr, unless --quiet; never folded, so that commands can be copied."""
    if not is_quiet():
        write_error_line(text, style=style, console=console)


def is_quiet() -> bool:
    """Whether the running command writes data alone; when it has failed, errors follow."""
    context = current_context()
    return context is not None and context.quiet


def write_error_line(
    text: str | Text = "", *, style: str = "", console: Console | None = None
) -> None:
    """Write a line to stderr, also with --quiet."""
    console = console or _stderr()
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def note_real_service(context: CommandContext) -> None:
    """Explain that nothing was charged, and how to run the same command with a key."""
    note()
    note("This was a private emulator: nothing reached the service, and nothing was charged.")
    note(f"Next, with a key from your account on {SITE}:")
    note(f"  export {API_KEY_VARIABLE}=<your key>")
    if context.has_files:
        note(f"  export {FILES_VARIABLE}=s3://<your bucket>")
    note(f"  {context.retyped(emulated=False)}")


def write_json(value: object, **more: object) -> None:
    """Write a value to stdout as one line of JSON."""
    # Flushed line by line: the reader of a list gets each swap at once.
    click.echo(codec.dumps({**codec.unstructure(value), **more}).decode())


def show_swap(swap: Swap, *, output: Path | None = None, as_json: bool) -> None:
    """Write a swap to stdout."""
    if as_json:
        saved = {} if output is None else {"output": str(output)}
        write_json(swap, **saved)
    else:
        show_fields(_swap_fields(swap, output))


def show_account(account: Account, *, as_json: bool) -> None:
    """Write an account to stdout."""
    if as_json:
        write_json(account)
    else:
        show_fields(_account_fields(account))


def show_swaps(swaps: Iterable[Swap]) -> None:
    """Write swaps to stdout as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("ID", no_wrap=True)
    table.add_column("STATUS")
    table.add_column("TYPE")
    table.add_column("DONE", justify="right")
    table.add_column("CREDITS", justify="right")
    table.add_column("CREATED (UTC)", no_wrap=True)
    for swap in swaps:
        created = _moment(swap.created_at)[: len("2026-01-02 03:04")]
        cells = (_number(swap.progress, "%"), _number(swap.credit_cost), created)
        table.add_row(printable(swap.id), status_text(swap), printable(swap.type or ""), *cells)
    Console().print(table)


class Display:
    """Live progress on stderr; it shows on a terminal alone.

    Args:
        doing: The first step.
        silent: Whether to show nothing on a terminal, either.
    """

    def __init__(self, doing: str, *, silent: bool = False) -> None:
        console = _stderr()
        self._is_live = (
            not silent and not is_quiet() and sys.stderr.isatty() and console.is_interactive
        )
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[share]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self._is_live,
        )
        self._task = self._progress.add_task(doing, total=None, share="")

    def __enter__(self) -> Self:
        if self._is_live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Older releases of rich write an empty line here even where they are disabled.
        if self._is_live:
            self._progress.stop()

    def note(self, text: str) -> None:
        """Write a line to stderr that stays."""
        note(text, console=self._progress.console)

    def say(self, doing: str) -> None:
        """Name the step that has begun; how long it takes is not known."""
        self._progress.update(self._task, description=doing, total=None, share="")

    def count(self, done: int, total: int) -> None:
        """Show how many of something are done."""
        self._progress.update(
            self._task, total=total, completed=done, share=f"{done:,} of {total:,}"
        )

    def show(self, swap: Swap) -> None:
        """Show how far a swap is."""
        self._progress.update(
            self._task,
            description=f"{printable(swap.id)} {printable(swap.status)}",
            total=None if swap.progress is None else 100,
            completed=swap.progress or 0,
            share=_number(swap.progress, "%"),
        )


def size_of(path: Path) -> str:
    """The size of a file in words."""
    return describe_size(path.stat().st_size)


def describe_size(size: int) -> str:
    """A number of bytes in words."""
    if size < _KIB:
        return f"{size} bytes"
    return f"{size / _KIB:,.1f} KiB" if size < _KIB**2 else f"{size / _KIB**2:,.1f} MiB"


def _stderr() -> Console:
    return Console(stderr=True)


def show_fields(fields: Iterable[tuple[str, str | Text]]) -> None:
    """Write names and values to stdout."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, Text(printable(value)) if isinstance(value, str) else value)
    show_table(table)


def show_table(table: Table) -> None:
    """Write a table to stdout."""
    Console(highlight=False).print(table)


def show_line(*cells: Text, below: str | None = None) -> None:
    """Write a line to stdout, and below it one that is neither cut nor folded."""
    console = Console(highlight=False)
    console.print(Text("  ").join(cells))
    if below:
        console.print(f"  {printable(below)}", markup=False, soft_wrap=True)


def status_text(swap: Swap) -> Text:
    """The status of a swap in its colour."""
    return Text(printable(swap.status), style=_STYLES.get(swap.status, "yellow"))


def _swap_fields(swap: Swap, output: Path | None) -> Iterator[tuple[str, str | Text]]:
    yield "Swap", swap.id
    yield "Status", status_text(swap)
    optional: dict[str, Any] = {
        "Progress": None if swap.is_finished else _number(swap.progress, " %"),
        "Error": swap.error_message if swap.has_failed else None,
        "Type": swap.type,
        "Credits": _number(swap.credit_cost),
        "Created": _moment(swap.created_at),
        "Webhook": without_query(swap.webhook_url),
        "Metadata": None if swap.metadata is None else _json(swap.metadata),
        **{name: _json(value) for name, value in swap.extra.items()},
        "Result": without_query(swap.result_url),
        "Saved as": output,
    }
    yield from ((printable(name), str(value)) for name, value in optional.items() if value)


def _account_fields(account: Account) -> Iterator[tuple[str, str]]:
    credit, rate = account.credits, account.rate_limit
    parts = ("permanent", "monthly", "subscription")
    sources = ", ".join(f"{_number(getattr(credit, part))} {part}" for part in parts)
    window = "" if rate.window_seconds is None else f" in {_number(rate.window_seconds)} s"
    yield "User", account.user_id
    yield "Email", "verified" if account.email_verified else "not verified"
    yield "Plan", account.subscription_tier
    yield "Credits", f"{_number(credit.total)} ({sources})"
    yield "Requests", f"{_number(rate.remaining)} of {_number(rate.limit)} left{window}"
    yield from ((printable(name), _json(value)) for name, value in account.extra.items())


def _number(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:,.10g}{unit}"


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _json(value: Mapping[str, Any] | Any) -> str:
    return json.dumps(value, ensure_ascii=False)
