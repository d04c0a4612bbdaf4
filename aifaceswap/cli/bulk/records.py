"""The contents of a journal, for people and for programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from aifaceswap._api import codec
from aifaceswap.bulk import Outcome
from aifaceswap.bulk._journal import JournalView, State
from aifaceswap.bulk._values import outcome_of
from aifaceswap.cli import rendering
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.rendering import note
from aifaceswap.errors import AIFaceSwapError

STATES = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.NO_CREDITS: "waiting for credits",
    State.AWAITING_DOWNLOAD: "not downloaded",
    State.CREATED: "in progress",
    State.INTENDED: "no response yet",
}
_FINISHED = {State.DONE, State.FAILED, State.NO_CREDITS}


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON; its swap has the API's own form."""
    return {
        "row": outcome.row,
        "idempotency_key": outcome.idempotency_key,
        "swap": None if outcome.swap is None else codec.unstructure(outcome.swap),
        "error": None if outcome.error is None else _error_fields(outcome.error),
        "path": None if outcome.path is None else str(outcome.path),
        "attempts": outcome.attempts,
        "seconds": round(outcome.seconds, 3),
    }


def status(context: CommandContext, path: Path) -> None:
    """Show how many rows are in which state."""
    with JournalView.open(path) as journal:
        counts = journal.counts()
    named = {name: counts.get(state, 0) for state, name in STATES.items()}
    if context.shows_table:
        shown = {"Rows": sum(named.values()), **named}
        counts_shown = ((name.capitalize(), f"{n:,}") for name, n in shown.items() if n)
        rendering.show_fields([("Journal", str(path)), *counts_shown])
    else:
        fields = {name.replace(" ", "_"): value for name, value in named.items()}
        rendering.write_json({"journal": str(path), "rows": sum(named.values()), **fields})
    if sum(named.values()) > named["done"] + named["failed"]:
        note("The run has not finished. Next: run the same command again, with this journal")
    elif named["failed"]:
        note("Next, to retry the failed rows: run the same command with --retry-failed")


def export(path: Path, form: str) -> None:
    """Write the outcomes to stdout."""
    write = _write_cells() if form == "csv" else rendering.write_json
    left = 0
    with JournalView.open(path) as journal:
        for entry in journal.entries():
            if entry.state in _FINISHED:
                write(outcome_fields(outcome_of(attrs.evolve(entry, row=entry.number))))
            else:
                left += 1
    if left:
        note(f"{left:,} rows of the journal have no outcome yet.")


def _error_fields(error: AIFaceSwapError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": error.message,
        "code": getattr(error, "code", None),
        "request_id": getattr(error, "request_id", None),
    }


def _write_cells() -> Callable[[dict[str, Any]], object]:
    """Write the header of a CSV file, and return what writes one line."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    swap_fields = ("id", "status", "type", "credit_cost", "created_at", "result_url")
    error_fields = ("type", "message", "code", "request_id")
    own_fields = ("row", "idempotency_key", "path", "attempts", "seconds")
    swap_names = (f"swap_{name}" for name in (*swap_fields, "metadata"))
    writer.writerow([*own_fields, *swap_names, *(f"error_{name}" for name in error_fields)])

    def write(fields: dict[str, Any]) -> None:
        swap: dict[str, Any] = fields["swap"] or {}
        error: dict[str, Any] = fields["error"] or {}
        metadata = swap.get("metadata")
        cells: list[Any] = [
            *(fields[name] for name in own_fields),
            *(swap.get(name) for name in swap_fields),
            metadata and codec.dumps(metadata).decode(),
            *(error.get(name) for name in error_fields),
        ]
        writer.writerow(cells)

    return write
