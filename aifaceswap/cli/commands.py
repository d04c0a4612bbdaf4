"""The commands and their options. What they do is in `swaps` and `serve`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import click

from aifaceswap._limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from aifaceswap._version import __version__
from aifaceswap.cli.bulk.commands import bulk
from aifaceswap.cli.context import PROGRAM, CommandContext
from aifaceswap.cli.mcp.commands import mcp
from aifaceswap.cli.options import (
    FiniteFloat,
    Function,
    HelpfulGroup,
    Integer,
    check_open,
    common_options,
    connection_options,
    date_option,
    examples,
    files_option,
    metadata_option,
    output_option,
    redis_option,
    suggest_real_service,
    timeout_option,
)
from aifaceswap.cli.webhook.commands import webhook

# The client, the emulator and rich take 0.3 s to load: `--help` and a shell's completion do
# without them.
# ruff: noqa: PLC0415

_EPILOG = (
    examples(
        "aifaceswap --emulator run face.jpg party.gif --output out.gif",
        "aifaceswap bulk rows.csv --output results/",
        "aifaceswap run --help",
    )
    + """

\b
Environment:
  AIFACESWAP_API_KEY   the API key, from your account on aifacesswap.com
  AIFACESWAP_BASE_URL  another base URL, ending in /api/v1
  AIFACESWAP_FILES     a bucket for local files, for --files
  AIFACESWAP_REDIS     a Redis server, for --redis
  HTTPS_PROXY          a proxy; NO_PROXY excludes hosts

\b
Exit codes: 0 success, 1 error, 2 usage, 3 the swap failed,
4 authentication, 5 timeout, 130 interrupted, 143 terminated"""
)


def run_command(arguments: Sequence[str]) -> int:
    """Run the command, report what stops it, and return the exit code."""
    _prepare_streams()
    context = CommandContext(arguments)
    try:
        code = cli.main(list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=context)
    except SystemExit:
        raise
    except BaseException as error:
        from aifaceswap.cli.failures import report

        return report(error, context)
    finally:
        _drop_unwritable()
    return code or 0


def _prepare_streams() -> None:
    """Make stdout and stderr writable: they may be closed, or ASCII alone."""
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_unwritable() -> None:
    """Drop what stdout did not accept, or the interpreter would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _swap_options(function: Function) -> Function:
    """The arguments of a swap, under the names that the API has for them."""
    decorators = (
        click.argument("source", metavar="SOURCE"),
        click.argument("target", metavar="TARGET"),
        click.option(
            "--type",
            type=click.Choice(["image", "gif"]),
            help="Type of TARGET. Default: gif for a local GIF, else image.",
        ),
        click.option(
            "--face-index",
            "target_face_index",
            type=Integer(min=0),
            metavar="N",
            help="Face of TARGET to replace; 0 is the first.",
        ),
        click.option(
            "--enhance/--no-enhance",
            "enable_face_enhancer",
            default=None,
            help="Turn face enhancement on or off (default: the service decides).",
        ),
        files_option,
        click.option("--webhook-url", metavar="URL", help="URL to notify when the swap finishes."),
        metadata_option,
        click.option(
            "--idempotency-key",
            metavar="KEY",
            help="Reuse a key to retry without being charged twice. Default: a new random key.",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


class _Root(HelpfulGroup):
    sections: ClassVar[Mapping[str, Sequence[str]]] = {
        "Swaps": ("run", "create", "get", "wait", "list", "download", "bulk"),
        "Account and setup": ("me", "doctor", "completion"),
        "AI agents": ("mcp",),
        "Development": ("emulator", "webhook"),
    }


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.option(
    "--emulator",
    is_flag=True,
    help="Run against a private emulator: no key, no network, no charges.",
)
@connection_options
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, emulator: bool) -> None:
    """Swap faces in images and GIFs with the AI Face Swap API.

    Data goes to stdout: a table on a terminal, JSON elsewhere. Messages go to stderr.
    """
    context = ctx.ensure_object(CommandContext)
    context.emulated = emulator
    context.command = ctx.invoked_subcommand or ""


@cli.command(
    epilog=examples(
        "aifaceswap run https://example.com/face.jpg \\",
        "    https://example.com/target.jpg --output result.jpg",
        "# local files, through a bucket of yours",
        "aifaceswap run face.jpg party.gif --output out.gif --files s3://bucket",
        "# without a key, on this machine",
        "aifaceswap --emulator run face.jpg party.gif --output out.gif",
    ),
)
@_swap_options
@output_option("Save the result to this file; an existing file is replaced. - writes to stdout.")
@timeout_option
@redis_option("Share the key's limits with other processes.")
@connection_options
@click.pass_obj
def run(
    context: CommandContext, /, output: Path | None, show: bool, timeout: float, **swap: Any
) -> None:
    """Create a swap, wait for it and save the result.

    SOURCE is the face, TARGET the image or GIF to put it into. Each is a local file or a public
    https URL. Local files are uploaded to the bucket of --files, or to the emulator.
    """
    from aifaceswap.cli import runtime, swaps
    from aifaceswap.cli.output import open_file

    check_open(output, show=show)
    arguments = swaps.read_swap_arguments(context, swap, output=output, timeout=timeout)
    saved = runtime.run_job(lambda: swaps.run(context, arguments))
    if show and saved is not None:
        open_file(saved)
    suggest_real_service(context)


@cli.command(
    epilog=examples(
        "aifaceswap create https://example.com/face.jpg \\",
        "    https://example.com/target.jpg --metadata '{\"order\": 7}'",
        "aifaceswap create SOURCE TARGET | jq -r .id",
    ),
)
@_swap_options
@connection_options
@click.pass_obj
def create(context: CommandContext, /, **swap: Any) -> None:
    """Create a swap and return without waiting.

    SOURCE is the face, TARGET the image or GIF to put it into. Each is a local file or a public
    https URL. Local files are uploaded to the bucket of --files, or to the emulator.
    """
    from aifaceswap.cli import runtime, swaps

    arguments = swaps.read_swap_arguments(context, swap)
    runtime.run_job(lambda: swaps.create(context, arguments))
    suggest_real_service(context)


@cli.command(epilog=examples("aifaceswap get tsk_2a2a1158", "aifaceswap get ID | jq -r .status"))
@click.argument("swap_id", metavar="ID")
@connection_options
@click.pass_obj
def get(context: CommandContext, swap_id: str) -> None:
    """Show the current state of a swap."""
    from aifaceswap.cli import runtime, swaps

    runtime.run_job(lambda: swaps.get(context, swap_id))


@cli.command(epilog=examples("aifaceswap wait tsk_2a2a1158 --timeout 600"))
@click.argument("swap_id", metavar="ID")
@timeout_option
@connection_options
@click.pass_obj
def wait(context: CommandContext, swap_id: str, timeout: float) -> None:
    """Wait until a swap finishes."""
    from aifaceswap.cli import runtime, swaps

    runtime.run_job(lambda: swaps.wait(context, swap_id, timeout))


@cli.command(
    "list",
    epilog=examples(
        "aifaceswap list --limit 5",
        "aifaceswap list --status failed --since 2026-11-01",
        "aifaceswap list --all | jq -r .id",
    ),
)
@click.option(
    "--limit",
    type=Integer(1, MAX_PAGE_SIZE),
    default=DEFAULT_PAGE_SIZE,
    show_default=True,
    metavar="N",
    help=f"Number of swaps to show, 1 to {MAX_PAGE_SIZE}.",
)
@click.option("--all", "every", is_flag=True, help="Show all swaps.")
@click.option("--status", metavar="STATUS", help="Only this status, for example done or failed.")
@date_option("--since", "Only swaps created on this day (UTC) or later.")
@date_option("--until", "Only swaps created on this day (UTC) or earlier.")
@click.option("--cursor", metavar="CURSOR", help="Start where an earlier page ended.")
@connection_options
@click.pass_obj
def list_swaps(
    context: CommandContext,
    /,
    *,
    limit: int,
    every: bool,
    cursor: str | None,
    status: str | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """List your key's swaps, newest first.

    As JSON, each line is one swap. Filters read as many pages as they need.
    """
    from aifaceswap.cli import runtime, swaps

    filters = swaps.Filters(status=status, since=since, until=until)
    runtime.run_job(lambda: swaps.list_swaps(context, limit, cursor, filters, every=every))


@cli.command(
    epilog=examples("aifaceswap download tsk_2a2a1158", "aifaceswap download ID -o result.jpg")
)
@click.argument("swap_id", metavar="ID")
@output_option(
    "Save to this file; an existing file is replaced. - writes to stdout. Default: the ID as file "
    "name."
)
@connection_options
@click.pass_obj
def download(context: CommandContext, /, swap_id: str, output: Path | None, *, show: bool) -> None:
    """Save the result of a finished swap."""
    from aifaceswap.cli import runtime, swaps
    from aifaceswap.cli.output import open_file

    check_open(output or Path(swap_id), show=show)
    target = None if output is None else swaps.check_output(context, output)
    saved = runtime.run_job(lambda: swaps.download(context, swap_id, target))
    if show and saved is not None:
        open_file(saved)


@cli.command(epilog=examples("aifaceswap me", "aifaceswap me | jq .credits.total"))
@connection_options
@click.pass_obj
def me(context: CommandContext) -> None:
    """Show your account, credits and remaining requests."""
    from aifaceswap.cli import runtime, swaps

    runtime.run_job(lambda: swaps.me(context))
    suggest_real_service(context)


@cli.command(
    epilog=examples("aifaceswap doctor", "aifaceswap doctor --json | jq .ok"),
    short_help="Check key, network, clock, limits and versions.",
)
@redis_option("Check this Redis server, too.")
@connection_options
@click.pass_obj
def doctor(context: CommandContext) -> int:
    """Check key, base URL, TLS, clock, limits and versions.

    Each check says what to do when it fails. The command sends one request, which costs no
    credits. Exit code 0: no problems.
    """
    from aifaceswap.cli.doctor.run import run_checks

    code = run_checks(context)
    suggest_real_service(context)
    return code


@cli.command(
    epilog=examples(
        "# bash: add to ~/.bashrc",
        'eval "$(aifaceswap completion bash)"',
        "# zsh: add to ~/.zshrc",
        'eval "$(aifaceswap completion zsh)"',
        "# fish",
        "aifaceswap completion fish > ~/.config/fish/completions/aifaceswap.fish",
    ),
    short_help="Print a completion script for your shell.",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in your shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is not None:  # click knows all three
        variable = f"_{PROGRAM.upper()}_COMPLETE"
        click.echo(kind(cli, {}, PROGRAM, variable).source())


@cli.command(
    epilog=examples(
        "aifaceswap emulator --port 8000",
        "export AIFACESWAP_BASE_URL=http://127.0.0.1:8000/api/v1",
        "export AIFACESWAP_API_KEY=key_emulator",
    ),
    short_help="Serve an emulator of the API on this machine.",
)
@click.option(
    "--port",
    type=Integer(0, 65_535),
    default=0,
    show_default=True,
    metavar="N",
    help="Port to listen on; 0 chooses a free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. Anyone who can reach it can control the emulator.",
)
@click.option(
    "--duration",
    type=FiniteFloat(min=0),
    default=3,
    show_default=True,
    metavar="SECONDS",
    help="Time a swap takes.",
)
@click.option(
    "--credits",
    type=FiniteFloat(min=0),
    default=1000,
    show_default=True,
    metavar="N",
    help="Credits at the start.",
)
@click.option(
    "--seed",
    type=Integer(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of ids, durations and images.",
)
@click.option(
    "--speed",
    type=FiniteFloat(min=0, max=1e6),
    default=1,
    show_default=True,
    metavar="N",
    help="Clock speed relative to real time; 0 stops the clock (advance it with POST "
    "/_emulator/advance).",
)
@click.option(
    "--deliver-to",
    metavar="ORIGIN",
    help="Send webhooks to this origin, for example http://127.0.0.1:8000.",
)
@click.option(
    "--faults",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="TOML file with [[fault]] tables: failures to inject.",
)
@common_options
def emulator(**settings: Any) -> None:
    """Serve an emulator of the API on this machine until Ctrl-C.

    When it is ready, it prints one line of JSON with its base_url and api_key.
    """
    from aifaceswap.cli import serve

    serve.serve(**settings)


cli.add_command(bulk)
cli.add_command(mcp)
cli.add_command(webhook)
