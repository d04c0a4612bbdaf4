"""The commands of bulk runs and their options. What they do is in `run`, `plan` and `records`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.options import FiniteFloat, json_option, suggest_real_service

# Loaded late, as in `commands`.
# ruff: noqa: PLC0415

_JOURNAL = click.Path(exists=True, dir_okay=False, path_type=Path)


class _DefaultToRun(click.Group):
    """`bulk rows.csv` is `bulk run rows.csv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((word for word in args if word != "--json"), "")
        if first not in {*self.commands, *ctx.help_option_names}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DefaultToRun, short_help="Create a swap for each row of a file.")
@json_option
def bulk() -> None:
    """Create a swap for each row of a file, each exactly once.

    \b
    aifaceswap bulk ROWS ...         `run` may be left out
    aifaceswap bulk run --help       shows the options

    ROWS is CSV with a header, JSON lines, or - for either on stdin. What was sent is kept in a
    journal: the same command goes on where the last one stopped, whatever stopped it.
    """  # noqa: D301 - click reads the backspace


@bulk.command()
@click.argument(
    "rows", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The record of the run. Default: ROWS with the extension .sqlite; needed for stdin.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Save the results here.",
)
@click.option(
    "--retry-failed", is_flag=True, help="Do rows that failed earlier again, as new swaps."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    metavar="N",
    help="Unfinished swaps at once; the service allows 10.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check every row and tell what it will take; create nothing."
)
@click.option(
    "--assume-seconds",
    type=FiniteFloat(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a swap takes, for the sums of --dry-run.",
)
@json_option
@click.pass_obj
def run(
    context: CommandContext, /, *, rows: Path, dry_run: bool, assume_seconds: float, **how: Any
) -> int:
    """Create a swap for each row, see each to its end, save the results.

    \b
    The columns of a CSV file, or the fields of a JSON object, one a line:
      source_url, target_url, type, webhook_url, target_face_index,
      enable_face_enhancer, metadata (a JSON object)
    The first two are needed; an empty cell is one that is not given.

    Ctrl-C finishes what is under way; a second one stops at once. The same command goes on.
    """  # noqa: D301 - click reads the backspace
    from aifaceswap.cli.bulk import plan, run

    arguments = run.BulkArguments(rows=None if str(rows) == "-" else rows, **how)
    if dry_run:
        plan.dry_run(context, arguments, assume_seconds)
        return 0
    code = run.run(context, arguments)
    suggest_real_service(context)
    return code


@bulk.command()
@click.argument("journal", type=_JOURNAL)
@json_option
@click.pass_obj
def status(context: CommandContext, journal: Path) -> None:
    """Show how many rows of a journal have come how far."""
    from aifaceswap.cli.bulk import records

    records.status(context, journal)


@bulk.command()
@click.argument("journal", type=_JOURNAL)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    default="jsonl",
    show_default=True,
    help="CSV with a header, or one JSON object a line.",
)
@json_option
@click.pass_obj
def export(_: CommandContext, journal: Path, form: str) -> None:
    """Write the outcomes that a journal holds to stdout."""
    from aifaceswap.cli.bulk import records

    records.export(journal, form)
