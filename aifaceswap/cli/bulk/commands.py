"""The commands of bulk runs and their options. What they do is in `run`, `plan` and `records`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aifaceswap._limits import MAX_UNFINISHED_SWAPS
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.options import (
    FiniteFloat,
    HelpfulGroup,
    Integer,
    check_open,
    common_options,
    connection_options,
    examples,
    files_option,
    open_option,
    redis_option,
    suggest_real_service,
)

# Loaded late, as in `commands`.
# ruff: noqa: PLC0415

_JOURNAL = click.Path(exists=True, dir_okay=False, path_type=Path)


class _DefaultToRun(HelpfulGroup):
    """A group in which `bulk rows.csv` is `bulk run rows.csv`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((word for word in args if not _is_output_option(word)), "")
        if args and first not in {*self.commands, *ctx.help_option_names}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


def _is_output_option(word: str) -> bool:
    return word in {"--json", "-q", "--quiet", "-v", "--verbose"}


@click.group(
    cls=_DefaultToRun,
    short_help="Create a swap for each row of a file.",
    epilog=examples(
        "aifaceswap bulk rows.csv --output results/",
        "# the options of a run",
        "aifaceswap bulk run --help",
    ),
)
@common_options
def bulk() -> None:
    """Create exactly one swap for each row of a file.

    `aifaceswap bulk ROWS` is short for `aifaceswap bulk run ROWS`. ROWS is a CSV file with a
    header, a file of JSON lines, or - for stdin. A journal records what was sent: run the same
    command again to resume an interrupted run.
    """


@bulk.command(
    epilog=examples(
        "aifaceswap bulk run rows.csv --dry-run",
        "aifaceswap bulk rows.csv --output results/",
        "aifaceswap bulk rows.csv --output results/ --retry-failed",
    )
)
@click.argument(
    "rows", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Record of the run, required for stdin. Default: ROWS with the suffix .sqlite.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Save the results in this folder.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Retry rows that failed in an earlier run (creates new swaps).",
)
@click.option(
    "--accept-new-key",
    is_flag=True,
    help="Resume a journal of another API key; rows in progress are listed, not sent again.",
)
@click.option(
    "--retry-rejected",
    is_flag=True,
    help="Retry rows that the service rejected for their content, too.",
)
@click.option(
    "--concurrency",
    type=Integer(1, 100),
    default=MAX_UNFINISHED_SWAPS,
    show_default=True,
    metavar="N",
    help=f"Maximum number of unfinished swaps; the service allows {MAX_UNFINISHED_SWAPS}.",
)
@click.option(
    "--timeout",
    type=FiniteFloat(min=0, min_open=True),
    default=900,
    show_default=True,
    metavar="SECONDS",
    help="Maximum time to wait for one swap; the next run waits for it again.",
)
@click.option(
    "--max-credits",
    type=FiniteFloat(min=0),
    metavar="CREDITS",
    help="Stop before the swaps of the journal cost more than this.",
)
@click.option(
    "--mark",
    is_flag=True,
    help="Store the idempotency keys in the metadata, so that swaps can be found days later.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check all rows and estimate time and cost; create nothing."
)
@click.option(
    "--assume-seconds",
    type=FiniteFloat(min=0),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="Time a swap takes, for the estimate of --dry-run.",
)
@files_option
@redis_option("Share the key's limits with other processes.")
@connection_options
@click.pass_obj
def run(
    context: CommandContext, /, *, rows: Path, dry_run: bool, assume_seconds: float, **how: Any
) -> int:
    """Create a swap for each row, wait for it and save the result.

    \b
    Columns of a CSV file, or fields of JSON objects, one object per line:
      source, target (required): a public https URL, or the path of a local
      file, relative to ROWS; source_url and target_url take only URLs
      type, target_face_index, enable_face_enhancer, webhook_url,
      metadata (a JSON object), row_id (your own name of the row)
    Empty cells are ignored.

    Ctrl-C finishes the swaps in progress; a second Ctrl-C stops at once. Run the same command
    again to resume.
    """  # noqa: D301 - click reads the backspace
    from aifaceswap.cli.bulk import plan, run

    arguments = run.BulkArguments(rows=None if str(rows) == "-" else rows, **how)
    if dry_run:
        plan.dry_run(context, arguments, assume_seconds)
        return 0
    code = run.run(context, arguments)
    suggest_real_service(context)
    return code


@bulk.command(
    epilog=examples(
        "aifaceswap bulk status rows.sqlite",
    )
)
@click.argument("journal", type=_JOURNAL)
@common_options
@click.pass_obj
def status(context: CommandContext, journal: Path) -> None:
    """Show the progress of a bulk run."""
    from aifaceswap.cli.bulk import records

    records.status(context, journal)


@bulk.command(
    epilog=examples(
        "aifaceswap bulk export rows.sqlite --format csv > outcomes.csv",
    )
)
@click.argument("journal", type=_JOURNAL)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    default="jsonl",
    show_default=True,
    help="Output format: JSON lines or CSV with a header.",
)
@common_options
@click.pass_obj
def export(_: CommandContext, journal: Path, form: str) -> None:
    """Write the outcomes in a journal to stdout."""
    from aifaceswap.cli.bulk import records

    records.export(journal, form)


@bulk.command(
    epilog=examples(
        "aifaceswap bulk report rows.sqlite --open",
        "aifaceswap bulk report rows.sqlite -o report.html --embed",
    )
)
@click.argument("journal", type=_JOURNAL)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File of the page, or - for stdout. Default: JOURNAL with the suffix .html.",
)
@click.option("--embed", is_flag=True, help="Store the images in the page; for 2,000 rows at most.")
@click.option(
    "--remote-images",
    is_flag=True,
    help="Link images that were not saved by their URLs, which the page then contains.",
)
@open_option("page")
@common_options
@click.pass_obj
def report(
    context: CommandContext, /, *, journal: Path, output: Path | None, show: bool, **options: bool
) -> None:
    """Make a web page of a journal.

    It shows counts, errors and every row with its images.
    The page is one file that needs no network. It links the saved images, so keep it where they
    are, or use --embed.
    """
    from aifaceswap.cli.bulk import report
    from aifaceswap.cli.output import open_file

    output = output or journal.with_suffix(".html")
    check_open(output, show=show)
    report.report(context, report.ReportArguments(journal=journal, output=output, **options))
    if show:
        open_file(output)
