"""The command `mcp` and its options. What it does is in `server` and `tools`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.options import FiniteFloat, connection_options, examples, files_option

# Loaded late, as in `aifaceswap.cli.commands`.
# ruff: noqa: PLC0415


@click.command(
    epilog=examples(
        "aifaceswap mcp --max-credits 20",
        "# without a key, on this machine",
        "aifaceswap --emulator mcp",
    ),
    short_help="Serve swaps to AI agents (MCP, over stdio).",
)
@click.option(
    "--max-credits",
    type=FiniteFloat(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Maximum credits for all swaps of the ledger.",
)
@click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Record of what was spent. Default: ledger.sqlite in the folder of --output.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: Path.home() / "aifaceswap",
    metavar="FOLDER",
    help="Save the results in this folder. Default: aifaceswap in your home folder.",
)
@click.option(
    "--allow",
    "allowed",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    metavar="FOLDER",
    help="Let agents use the images in this folder; can be repeated. Default: URLs only.",
)
@files_option
@connection_options
@click.pass_obj
def mcp(context: CommandContext, /, **how: Any) -> None:
    """Serve swaps to AI agents by the Model Context Protocol, over stdin and stdout.

    The host of the agent starts this command, e.g. Claude Desktop or an editor. The key is read
    from AIFACESWAP_API_KEY.
    """
    from aifaceswap.cli import runtime
    from aifaceswap.cli.failures import CommandError

    try:
        from aifaceswap.cli.mcp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "pydantic"}:
            raise
        message = "the command mcp needs the package mcp, version 2"
        raise CommandError(message, "pip install 'mcp>=2,<3'") from None
    if context.emulated and how["ledger"] is not None:
        text = "--ledger cannot be used with --emulator: a private emulator starts empty"
        raise click.UsageError(text)
    how["output"].mkdir(parents=True, exist_ok=True)
    runtime.run_job(partial(serve, context, **how))
