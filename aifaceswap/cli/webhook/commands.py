"""The webhook commands and their options. What they do is in `listener` and `deliveries`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from aifaceswap._limits import SIGNATURE_TOLERANCE, SWAP_COMPLETED, SWAP_FAILED
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.options import (
    FiniteFloat,
    Function,
    HelpfulGroup,
    Integer,
    common_options,
    examples,
    metadata_option,
    read_local_url,
    redis_option,
)

# Loaded late, as in `commands`.
# ruff: noqa: PLC0415

# No option takes a key itself: other users of a machine can read command lines.
_key_file_option = click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File with the signing keys, one per line. [default: AIFACESWAP_API_KEY]",
)


def _tolerance_option(function: Function) -> Function:
    return click.option(
        "--tolerance",
        type=FiniteFloat(min=0, min_open=True),
        default=int(SIGNATURE_TOLERANCE),
        show_default=True,
        metavar="SECONDS",
        help="Maximum age of a signature.",
    )(function)


@click.group(cls=HelpfulGroup, short_help="Receive, verify and send webhook deliveries.")
@common_options
def webhook() -> None:
    """Receive, verify and send webhook deliveries on this machine.

    Deliveries are signed with the API key in AIFACESWAP_API_KEY. With
    `aifaceswap --emulator webhook ...`, the key is key_emulator.
    """


@webhook.command(
    epilog=examples(
        "aifaceswap webhook listen --port 8400",
        "aifaceswap webhook listen --port 8400 \\",
        "    --forward-to http://127.0.0.1:8000/hooks/swap",
    )
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
    help="Address to listen on; 0.0.0.0 makes it reachable from other machines.",
)
@click.option(
    "--forward-to",
    callback=read_local_url,
    metavar="URL",
    help="Forward each delivery unchanged to an app on this machine.",
)
@_key_file_option
@redis_option("Notify waits in other processes, too.")
@common_options
@click.pass_obj
def listen(context: CommandContext, /, **settings: Any) -> None:
    """Receive webhook deliveries until Ctrl-C, verify and show each.

    All paths are served. A repeated delivery is shown and forwarded again; the app must process
    it only once.
    """
    from aifaceswap.cli.webhook import listener

    listener.listen(context, **settings)


@webhook.command(
    epilog=examples(
        "aifaceswap webhook verify body.json --header 't=1760000000,v1=cee5...'",
    )
)
@click.argument(
    "body", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--header",
    required=True,
    metavar="VALUE",
    help="Value of the x-aifaceswap-signature header: t=...,v1=...",
)
@_key_file_option
@_tolerance_option
@click.option(
    "--now",
    type=FiniteFloat(min=0),
    metavar="SECONDS",
    help="Unix time to verify at. Default: now.",
)
@common_options
@click.pass_obj
def verify(context: CommandContext, /, body: Path, **given: Any) -> int:
    """Verify a webhook delivery and explain why it fails.

    BODY is a file with the raw body, byte for byte, or - for stdin. Exit code 0: the signature
    is valid; 1: it is not.
    """
    from aifaceswap.cli.webhook import deliveries

    raw = sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    return deliveries.verify(context, raw, **given)


@webhook.command(
    epilog=examples(
        "aifaceswap webhook trigger --to http://127.0.0.1:8000/hooks/swap",
        "aifaceswap webhook trigger --to http://127.0.0.1:8000/hooks/swap \\",
        "    --event swap.failed --metadata '{\"order\": 7}'",
    )
)
@click.option(
    "--to",
    "url",
    required=True,
    callback=read_local_url,
    metavar="URL",
    help="Webhook URL of your app, on this machine.",
)
@click.option(
    "--event",
    type=click.Choice([SWAP_COMPLETED, SWAP_FAILED]),
    default=SWAP_COMPLETED,
    show_default=True,
    metavar="EVENT",
    help="swap.completed or swap.failed.",
)
@metadata_option
@common_options
@click.pass_obj
def trigger(
    context: CommandContext, url: str, event: str, metadata: Mapping[str, object] | None
) -> int:
    """Send one signed delivery to your app and show its response.

    The delivery describes a swap that does not exist. It is signed with AIFACESWAP_API_KEY;
    your app must verify it with the same key.
    Nothing reaches the service and nothing is charged. Exit code 0: the app responded with 2xx.
    """
    from aifaceswap.cli.webhook import deliveries

    return deliveries.trigger(context, url, event, metadata)
