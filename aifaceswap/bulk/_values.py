"""What a bulk run takes and gives: its settings, its progress and one outcome for each row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

import attrs

from aifaceswap._limits import MAX_UNFINISHED_SWAPS
from aifaceswap.bulk._journal import FINISHED, JournalEntry
from aifaceswap.errors import AIFaceSwapError
from aifaceswap.models import Swap, without_query


@attrs.frozen(kw_only=True)
class Outcome:
    """The result of one row.

    Attributes:
        row: The row's position in this run's input, from 0; None if only the journal has it.
        idempotency_key: The key that it was sent with; None if it was never sent.
        swap: The swap as it was last seen; None if there is none.
        error: Why the row has no result; None if it has one.
        is_open: Whether the next run with the journal continues the row: nothing proves that it
            has failed, or its result is only not downloaded yet.
        path: The file of its image, if it was downloaded.
        attempts: How many requests its creation took in this run.
        seconds: From its submission to its end.
    """

    row: int | None
    idempotency_key: str | None = None
    swap: Swap | None = None
    error: AIFaceSwapError | None = None
    is_open: bool = False
    path: Path | None = None
    attempts: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the row has its result."""
        return self.error is None

    def as_row(self) -> dict[str, str | float | bool | datetime | None]:
        """Return the outcome as a flat dict, so that a list of them makes a data frame.

        The names are the same for every outcome; what an outcome lacks is None. Values are
        text, numbers, booleans and times, and metadata are JSON text. The result's URL is
        without its query, which can be a signature: the complete URL is `swap.result_url`.

        Returns:
            The names and values, e.g. ``row``, ``ok``, ``path``, ``swap_id``, ``error_code``.
        """
        swap, error = self.swap, self.error
        metadata = None if swap is None else swap.metadata
        return {
            "row": self.row,
            "ok": self.ok,
            "is_open": self.is_open,
            "idempotency_key": self.idempotency_key,
            "path": None if self.path is None else str(self.path),
            "attempts": self.attempts,
            "seconds": round(self.seconds, 3),
            "swap_id": None if swap is None else swap.id,
            "swap_status": None if swap is None else str(swap.status),
            "swap_type": None if swap is None or swap.type is None else str(swap.type),
            "swap_credit_cost": None if swap is None else swap.credit_cost,
            "swap_created_at": None if swap is None else swap.created_at,
            "swap_result_url": None if swap is None else without_query(swap.result_url),
            "swap_metadata": None
            if metadata is None
            else json.dumps(dict(metadata), ensure_ascii=False, default=str),
            "error_type": None if error is None else type(error).__name__,
            "error_message": None if error is None else error.message,
            "error_code": getattr(error, "code", None),
            "error_request_id": getattr(error, "request_id", None),
        }

    def _repr_html_(self) -> str:
        """The outcome and its saved image, for notebooks."""
        from aifaceswap.bulk._notebook import html_of  # noqa: PLC0415 - for notebooks alone

        return html_of(self)


def outcome_of(
    entry: JournalEntry, swap: Swap | None = None, error: AIFaceSwapError | None = None
) -> Outcome:
    """The outcome of a row: as its entry has it, or with this swap and this error."""
    return Outcome(
        row=entry.row,
        idempotency_key=entry.key,
        swap=swap or entry.swap,
        error=error or entry.error,
        is_open=entry.state not in FINISHED,
        path=None if entry.path is None else Path(os.fsdecode(entry.path)),
        attempts=entry.attempts,
        seconds=entry.seconds,
    )


@attrs.frozen(kw_only=True)
class BulkProgress:
    """The progress of a run.

    Attributes:
        total: How many rows the input has; None if that is not known.
        read: How many of them were read.
        done: How many have their result.
        failed: How many have failed.
        in_flight: How many rows have a slot: their swaps are unfinished.
        oldest_id: The id of the unfinished swap that was begun first; None without one.
        oldest_seconds: How long ago that was.
        paused: Why nothing is sent at the moment; None: something is.
    """

    total: int | None
    read: int = 0
    done: int = 0
    failed: int = 0
    in_flight: int = 0
    oldest_id: str | None = None
    oldest_seconds: float = 0.0
    paused: AIFaceSwapError | None = None


@attrs.frozen(kw_only=True)
class BulkSettings:
    """The settings of a run; see `AsyncSwaps.bulk`."""

    journal: str | os.PathLike[str] | None = None
    download_to: Path | None = None
    concurrency: int = MAX_UNFINISHED_SWAPS
    on_progress: Callable[[BulkProgress], object] | None = None
    skip_finished: bool = False
    retry_failed: bool | Literal["all"] = False
    accept_new_key: bool = False
    max_wait: float = 300.0
    timeout: float | None = 900.0
    max_credits: float | None = None
    mark: bool = False
