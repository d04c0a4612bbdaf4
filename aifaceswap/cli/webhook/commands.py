"""The commands about webhooks and their options. What they do is in `listener` and `deliveries`."""

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
    json_option,
    metadata_option,
    read_local_url,
)

# Loaded late, as in `commands`.
# ruff: noqa: PLC0415

# No option takes a key itself: other users of a machine can read command lines.
_key_file_option = click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The keys that may sign, one a line. Default: the one in AIFACESWAP_API_KEY.",
)


def _tolerance_option(function: Function) -> Function:
    return click.option(
        "--tolerance",
        type=FiniteFloat(min=0, min_open=True),
        default=SIGNATURE_TOLERANCE,
        show_default=True,
        metavar="SECONDS",
        help="How old, or how far ahead, a signature may be.",
    )(function)


@click.group(short_help="Receive, check and send webhook deliveries.")
@json_option
def webhook() -> None:
    """Receive, check and send webhook deliveries, on this machine.

    The key that signs deliveries is the API key: AIFACESWAP_API_KEY, or with
    `aifaceswap --emulator webhook ...` that of an emulator, key_emulator.
    """


@webhook.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="0: a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; 0.0.0.0: every one, for others to reach, too.",
)
@click.option(
    "--forward-to",
    callback=read_local_url,
    metavar="URL",
    help="Hand each delivery on to an app on this machine, as it came.",
)
@_key_file_option
@json_option
@click.pass_obj
def listen(context: CommandContext, /, **settings: Any) -> None:
    """Receive deliveries until Ctrl-C, check each and show it.

    Every path is listened on. A delivery that comes twice is shown, and handed on, twice: the
    app behind has to see to it that it is handled once.
    """
    from aifaceswap.cli.webhook import listener

    listener.listen(context, **settings)


@webhook.command()
@click.argument(
    "body", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--header",
    required=True,
    metavar="VALUE",
    help="The x-aifaceswap-signature header: t=...,v1=...",
)
@_key_file_option
@_tolerance_option
@click.option(
    "--now",
    type=FiniteFloat(min=0),
    metavar="SECONDS",
    help="The Unix time to check it at. Default: this machine's clock.",
)
@json_option
@click.pass_obj
def verify(context: CommandContext, /, body: Path, **given: Any) -> int:
    """Tell whether a delivery is to be believed, and if not, why.

    BODY is a file with the raw body, byte for byte, or - for stdin. Exit code 0: it is to be
    believed; 1: it is not.
    """
    from aifaceswap.cli.webhook import deliveries

    raw = sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    return deliveries.verify(context, raw, **given)


@webhook.command()
@click.option(
    "--to",
    "url",
    required=True,
    callback=read_local_url,
    metavar="URL",
    help="Where your app receives webhooks, on this machine.",
)
@click.option(
    "--event",
    type=click.Choice([SWAP_COMPLETED, SWAP_FAILED]),
    default=SWAP_COMPLETED,
    show_default=True,
    help="What happened to the swap.",
)
@metadata_option
@json_option
@click.pass_obj
def trigger(
    context: CommandContext, url: str, event: str, metadata: Mapping[str, object] | None
) -> int:
    """Send one signed delivery to an app, and show its answer.

    A private emulator creates a swap, sees it to its end and sends the delivery, signed with
    AIFACESWAP_API_KEY, which the app has to check with. Nothing reaches the service, and nothing
    is paid. Exit code 0: the app answered 2xx.
    """
    from aifaceswap.cli.webhook import deliveries

    return deliveries.trigger(context, url, event, metadata)
