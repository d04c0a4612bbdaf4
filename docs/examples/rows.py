"""Shared by the examples for Celery and taskiq: the key of a row, and which errors are final."""

from __future__ import annotations

import uuid
from typing import TypeAlias

import aifaceswap as afs

#: The arguments of the task: job, number of the row, source_url, target_url.
Row: TypeAlias = tuple[str, int, str, str]

#: The row has its answer: the swap failed, or the service rejected it and created nothing.
FINAL = (
    afs.SwapFailedError,
    afs.BadRequestError,
    afs.InsufficientCreditsError,
    afs.PayloadTooLargeError,
    afs.UnsupportedMediaTypeError,
    afs.ContentRejectedError,
)


def key_of(job: str, row: int) -> str:
    """The idempotency key of a row: whichever worker runs it, however often, it is one swap."""
    return str(uuid.uuid5(uuid.UUID(job), str(row)))


def is_final(error: afs.AIFaceSwapError) -> bool:
    """Whether to record the error; all others are retried with the same key."""
    return isinstance(error, FINAL) and not error.may_have_succeeded
