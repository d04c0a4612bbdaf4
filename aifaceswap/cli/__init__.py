"""The command ``aifaceswap``; it needs the extra ``cli`` (click and rich).

Nothing but the standard library is loaded before ``main()`` runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows the command's name; None: those of this process.

    Returns:
        The exit code: 0 done, 1 error, 2 usage, 3 the swap failed, 4 authentication,
        5 timeout, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _load_and_run(given)
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        print(  # noqa: T201 - click.echo() is what is missing
            "The aifaceswap command needs click and rich: pip install click rich",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:  # while modules are loaded: nothing has been sent
        return _INTERRUPTED


def _load_and_run(arguments: list[str]) -> int:
    # rich is used late, maybe after a swap has been charged: its absence must show at once.
    import_module("rich")
    from aifaceswap.cli.commands import run_command  # noqa: PLC0415

    return run_command(arguments)
