"""Options that several commands have."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import click

from aifaceswap.cli.context import CommandContext

Function = TypeVar("Function", bound=Callable[..., Any])


class FiniteFloat(click.FloatRange):
    """A number in a range; `inf` and `nan` are none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number; see `click.ParamType.convert`."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def json_option(function: Function) -> Function:
    """Give a command the option ``--json``."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_set_json,
        help="Write JSON on a terminal, too.",
    )(function)


def metadata_option(function: Function) -> Function:
    """Give a command the option ``--metadata``."""
    return click.option(
        "--metadata", callback=_read_object, metavar="JSON", help="Comes back with the swap."
    )(function)


def read_local_url(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """See that a URL is one of this machine: nothing is handed to others."""
    from aifaceswap._validation import is_loopback  # noqa: PLC0415 - `--help` does without it

    if value is None:
        return None
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in {"http", "https"} and parts.port != 0
        is_local = is_loopback(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_usable = is_local = False
    # urlsplit() alone would take a backslash for a part of the path.
    is_written = value.isascii() and value.isprintable() and not set(value) & {" ", "\\"}
    if not (is_usable and is_local and is_written):
        example = "http://127.0.0.1:8000/hooks/swap"
        raise click.BadParameter(f"{value!r} is no URL of this machine, e.g. {example}")
    return value


def suggest_real_service(context: CommandContext) -> None:
    """After a command against a private emulator, say how to do the same with a key."""
    if context.emulated:
        from aifaceswap.cli.rendering import note_real_service  # noqa: PLC0415 - loads rich

        note_real_service(context)


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(CommandContext).as_json = True


def _read_object(_: click.Context, __: click.Parameter, value: str | None) -> object:
    if value is None:
        return None
    try:
        read: object = json.loads(value)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise click.BadParameter(f"{value!r} is no JSON object, e.g. '{{\"order\": 7}}'.")
    return cast("object", read)
