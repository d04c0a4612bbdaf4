"""The commands and their options. What they do is in `swaps` and `serve`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from aifaceswap._version import __version__
from aifaceswap.cli.bulk.commands import bulk
from aifaceswap.cli.context import PROGRAM, CommandContext
from aifaceswap.cli.options import (
    FiniteFloat,
    Function,
    json_option,
    metadata_option,
    suggest_real_service,
)
from aifaceswap.cli.webhook.commands import webhook

# The client, the emulator and rich take 0.3 s to load: `--help` and a shell's completion do
# without them.
# ruff: noqa: PLC0415

_EPILOG = """\b
The key is read from AIFACESWAP_API_KEY, another base URL from AIFACESWAP_BASE_URL.

\b
Without a key:
  aifaceswap --emulator run https://example.com/face.jpg \\
      https://example.com/target.jpg --output result.jpg

\b
Exit codes: 0 done, 1 error, 2 usage, 3 the swap failed, 4 authentication,
5 timeout, 130 interrupted (Ctrl-C), 143 terminated."""


def run_command(arguments: Sequence[str]) -> int:
    """Run the command and report what stops it.

    Args:
        arguments: What follows the program's name; nothing: help is shown.

    Returns:
        The exit code.
    """
    _prepare_streams()
    context = CommandContext(arguments)
    try:
        code = cli.main(
            list(arguments) or ["--help"], prog_name=PROGRAM, standalone_mode=False, obj=context
        )
    except SystemExit:
        raise
    except BaseException as error:
        from aifaceswap.cli.failures import report

        return report(error, context)
    finally:
        _drop_unwritable()
    return code or 0


def _prepare_streams() -> None:
    """See to it that whatever is written can be: the streams may be closed, or ASCII alone."""
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_unwritable() -> None:
    """Give up what stdout did not take, or the interpreter would complain at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _timeout_option(function: Function) -> Function:
    return click.option(
        "--timeout",
        type=FiniteFloat(min=0, min_open=True),
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="Wait for the swap's end so long at most.",
    )(function)


def _output_option(text: str) -> Callable[[Function], Function]:
    return click.option(
        "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help=text
    )


def _swap_options(function: Function) -> Function:
    """The arguments of a swap, under the names that the API has for them."""
    decorators = (
        click.argument("source_url", metavar="SOURCE"),
        click.argument("target_url", metavar="TARGET"),
        click.option(
            "--type",
            type=click.Choice(["image", "gif"]),
            default="image",
            show_default=True,
            help="What TARGET is.",
        ),
        click.option(
            "--face-index",
            "target_face_index",
            type=click.IntRange(min=0),
            metavar="N",
            help="Which face of TARGET, from 0.",
        ),
        click.option(
            "--enhance/--no-enhance",
            "enable_face_enhancer",
            default=None,
            help="Sharpen the face, or do not.",
        ),
        click.option("--webhook-url", metavar="URL", help="Called when the swap ends."),
        metadata_option,
        click.option(
            "--idempotency-key",
            metavar="KEY",
            help="Sent again with the same key, a swap is not paid twice. Default: a fresh one.",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG, no_args_is_help=False
)
@click.option(
    "--emulator",
    is_flag=True,
    help="Run the command against a private emulator: no key, no network, nothing paid.",
)
@json_option
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, emulator: bool) -> None:
    """Put the face of one picture into another: the AI Face Swap API.

    Data goes to stdout, as a table on a terminal and as JSON elsewhere; all else to stderr.
    """
    context = ctx.ensure_object(CommandContext)
    context.emulated = emulator
    context.command = ctx.invoked_subcommand or ""


@cli.command()
@_swap_options
@_output_option("Save the result here; a file that exists is replaced.")
@_timeout_option
@json_option
@click.pass_obj
def run(context: CommandContext, /, output: Path | None, timeout: float, **swap: Any) -> None:
    """Create a swap, wait for its end and save the result.

    The face in SOURCE is put into TARGET; both are public https URLs.
    """
    from aifaceswap.cli import runtime, swaps

    arguments = swaps.read_swap_arguments(swap, output=output, timeout=timeout)
    runtime.run_job(lambda: swaps.run(context, arguments))
    suggest_real_service(context)


@cli.command()
@_swap_options
@json_option
@click.pass_obj
def create(context: CommandContext, /, **swap: Any) -> None:
    """Create a swap and return at once.

    The face in SOURCE is put into TARGET; both are public https URLs.
    """
    from aifaceswap.cli import runtime, swaps

    arguments = swaps.read_swap_arguments(swap)
    runtime.run_job(lambda: swaps.create(context, arguments))
    suggest_real_service(context)


@cli.command()
@click.argument("swap_id", metavar="ID")
@json_option
@click.pass_obj
def get(context: CommandContext, swap_id: str) -> None:
    """Show how a swap is now."""
    from aifaceswap.cli import runtime, swaps

    runtime.run_job(lambda: swaps.get(context, swap_id))


@cli.command()
@click.argument("swap_id", metavar="ID")
@_timeout_option
@json_option
@click.pass_obj
def wait(context: CommandContext, swap_id: str, timeout: float) -> None:
    """Wait for the end of a swap."""
    from aifaceswap.cli import runtime, swaps

    runtime.run_job(lambda: swaps.wait(context, swap_id, timeout))


@cli.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1, 100),
    default=25,
    show_default=True,
    metavar="N",
    help="How many swaps a page has, 1 to 100.",
)
@click.option("--cursor", metavar="CURSOR", help="Begin where an earlier page ended.")
@click.option("--all", "every", is_flag=True, help="Show every page from there on.")
@json_option
@click.pass_obj
def list_swaps(context: CommandContext, limit: int, cursor: str | None, every: bool) -> None:
    """List the key's swaps, newest first; as JSON, one swap a line."""
    from aifaceswap.cli import runtime, swaps

    runtime.run_job(lambda: swaps.list_swaps(context, limit, cursor, every=every))


@cli.command()
@click.argument("swap_id", metavar="ID")
@_output_option("Save it here; a file that exists is replaced. Default: ID and its extension.")
@json_option
@click.pass_obj
def download(context: CommandContext, swap_id: str, output: Path | None) -> None:
    """Save the result of a swap that is done."""
    from aifaceswap.cli import runtime, swaps

    target = None if output is None else swaps.check_output(output)
    runtime.run_job(lambda: swaps.download(context, swap_id, target))


@cli.command()
@json_option
@click.pass_obj
def me(context: CommandContext) -> None:
    """Show whose key it is, its credits and its requests left."""
    from aifaceswap.cli import runtime, swaps

    runtime.run_job(lambda: swaps.me(context))
    suggest_real_service(context)


@cli.command()
@json_option
@click.pass_obj
def doctor(context: CommandContext) -> int:
    """Examine key, base URL, TLS, clock, limits and versions.

    Says of each whether it is in order, and what to do if it is not. One request is made; it
    costs no credits. Exit code 0: there is no problem.
    """
    from aifaceswap.cli.doctor.run import run_checks

    code = run_checks(context)
    suggest_real_service(context)
    return code


@cli.command(short_help="Serve the API on this machine, without the network.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="0: a free one.",
)
@click.option(
    "--duration",
    type=FiniteFloat(min=0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a swap takes.",
)
@click.option(
    "--credits",
    type=FiniteFloat(min=0),
    default=1000.0,
    show_default=True,
    help="The balance at the start.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="The seed of ids, durations and images.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen; elsewhere than on loopback, others can steer it.",
)
@click.option(
    "--speed",
    type=FiniteFloat(min=0, max=1e6),
    default=1.0,
    show_default=True,
    help="Its seconds in one of ours; 0: only POST /_emulator/advance moves its time.",
)
@click.option(
    "--deliver-to", metavar="ORIGIN", help="Post webhooks there, such as http://127.0.0.1:8000."
)
@click.option(
    "--faults",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What goes wrong: a TOML file with [[fault]] tables.",
)
def emulator(**settings: Any) -> None:
    """Serve the API on this machine, without the network, until Ctrl-C.

    When it is ready, one line of JSON on stdout says its base_url and api_key.
    """
    from aifaceswap.cli import serve

    serve.serve(**settings)


cli.add_command(bulk)
cli.add_command(webhook)
