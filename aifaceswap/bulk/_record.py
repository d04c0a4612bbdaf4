"""Writes into a journal how swaps have finished that no run waits for."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from aifaceswap.bulk import _journal_file
from aifaceswap.bulk._journal import State, error_json, swap_json
from aifaceswap.errors import SwapFailedError
from aifaceswap.models import Swap

_RECORD_END = (
    "UPDATE rows SET state = ?, swap_json = ?, error_json = ?, path = coalesce(?, path) "
    "WHERE swap_id = ?"
)


def record_end(journal: Path, swap: Swap, saved_as: Path | None = None) -> None:
    """Write down that a swap has finished, if a row of the journal has created it. Blocks.

    Raises:
        JournalError: The journal is in use, or cannot be written.
    """
    error = SwapFailedError.of(swap) if swap.has_failed else None
    values = (
        State.DONE if error is None else State.FAILED,
        swap_json(swap),
        None if error is None else error_json(error),
        None if saved_as is None else os.fsencode(saved_as),
        swap.id,
    )
    path = str(journal)
    with (
        _journal_file.named(path),
        closing(_journal_file.open_file(path)) as file,
        file.connection as connection,
    ):
        connection.execute(_RECORD_END, values)
