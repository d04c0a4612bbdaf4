"""Options and help that several commands share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from aifaceswap._limits import FILES_VARIABLE, REDIS_VARIABLE
from aifaceswap.cli.context import CommandContext

Function = TypeVar("Function", bound=Callable[..., Any])


class HelpfulGroup(click.Group):
    """A group that shows its help when nothing is typed, and its commands under headings.

    Attributes:
        sections: Headings, and the names of the commands below each.
    """

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; see `click.Command.parse_args`."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; see `click.Group.format_commands`."""
        width = max(map(len, self.commands))
        for heading, names in (self.sections or {"Commands": list(self.commands)}).items():
            limit = formatter.width - width - 6
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)


class FiniteFloat(click.FloatRange):
    """A finite number in a range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number; see `click.ParamType.convert`."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} must be a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:  # for `--help`, where the text says what matters
        return ""


class Integer(click.IntRange):
    """An integer in a range, which `--help` does not repeat."""

    def _describe_range(self) -> str:
        return ""


def examples(*lines: str) -> str:
    """Examples for the end of a command's help; a `#` line explains those below it."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def json_option(function: Function) -> Function:
    """Add the option ``--json`` to a command."""
    option = click.option(
        "--json", "as_json", is_flag=True, expose_value=False, callback=_store, help="Output JSON."
    )
    return option(function)


def common_options(function: Function) -> Function:
    """Add the options that control output: ``--json``, ``--quiet`` and ``--verbose``."""
    decorators = (
        json_option,
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_store,
            help="Show only data and errors.",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_store,
            help="Log every request to stderr.",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def connection_options(function: Function) -> Function:
    """Add ``--proxy`` and the options that control output."""
    option = click.option(
        "--proxy",
        expose_value=False,
        callback=_store,
        metavar="URL",
        help="HTTP proxy. [default: HTTPS_PROXY]",
    )
    return option(common_options(function))


def redis_option(text: str) -> Callable[[Function], Function]:
    """Add the option ``--redis`` to a command."""
    return click.option(
        "--redis",
        expose_value=False,
        callback=_store_redis,
        envvar=REDIS_VARIABLE,
        metavar="URL",
        help=f"{text} [default: {REDIS_VARIABLE}]",
    )


def timeout_option(function: Function) -> Function:
    """Add the option ``--timeout`` to a command that waits for a swap."""
    return click.option(
        "--timeout",
        type=FiniteFloat(min=0, min_open=True),
        default=300,
        show_default=True,
        metavar="SECONDS",
        help="Maximum time to wait for the swap.",
    )(function)


def output_option(text: str) -> Callable[[Function], Function]:
    """Add the option ``--output``, and ``--open`` for what was saved there."""

    def decorate(function: Function) -> Function:
        option = click.option(
            "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help=text
        )
        return option(open_option("result")(function))

    return decorate


def open_option(what: str) -> Callable[[Function], Function]:
    """Add the option ``--open``; `check_open` checks it."""
    return click.option("--open", "show", is_flag=True, help=f"Open the {what} in the browser.")


def check_open(output: Path | None, *, show: bool) -> None:
    """Check that there is a file to open."""
    if show and (output is None or str(output) == "-"):
        raise click.UsageError("--open needs --output FILE: it opens the file.")


def date_option(name: str, text: str) -> Callable[[Function], Function]:
    """Add an option for a day."""
    return click.option(name, type=click.DateTime(["%Y-%m-%d"]), metavar="YYYY-MM-DD", help=text)


def files_option(function: Function) -> Function:
    """Add the option ``--files`` to a command."""
    return click.option(
        "--files",
        expose_value=False,
        callback=_store,
        metavar="BUCKET",
        help="Bucket to upload local files to: s3://…, gs://… or az://… "
        f"[default: {FILES_VARIABLE}]",
    )(function)


def metadata_option(function: Function) -> Function:
    """Add the option ``--metadata`` to a command."""
    return click.option(
        "--metadata",
        callback=_read_object,
        metavar="JSON",
        help="JSON object to store with the swap.",
    )(function)


def read_local_url(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Check that a URL belongs to this machine: deliveries are not forwarded to others."""
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
        message = f"must be a URL on this machine, for example {example}; got {value!r}"
        raise click.BadParameter(message)
    return value


def suggest_real_service(context: CommandContext) -> None:
    """After a command against a private emulator, show how to do the same with a key."""
    if context.emulated:
        from aifaceswap.cli.rendering import note_real_service  # noqa: PLC0415 - loads rich

        note_real_service(context)


def _store(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value:
        setattr(ctx.ensure_object(CommandContext), param.name, value)


def _store_redis(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    context = ctx.ensure_object(CommandContext)
    is_typed = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    # A private emulator needs nothing else unless it is asked for.
    if value and (is_typed or not context.emulated):
        context.redis = value


def _read_object(_: click.Context, __: click.Parameter, value: str | None) -> object:
    if value is None:
        return None
    try:
        read: object = json.loads(value)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        message = f"must be a JSON object, for example '{{\"order\": 7}}'; got {value[:80]!r}"
        raise click.BadParameter(message)
    return cast("object", read)
