"""Whether and when to retry: pure functions of what happened."""

from __future__ import annotations

import random
from collections.abc import Callable

from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    DailyLimitError,
)

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 8.0
_DOUBLINGS = 10  # more than it takes to the longest


def next_wait(
    attempt: int,
    error: AIFaceSwapError,
    time_left: float,
    *,
    max_retries: int,
    jitter: Callable[[], float] = random.random,
) -> float | None:
    """How long to wait before the next attempt.

    Args:
        attempt: How many attempts were made.
        error: How the last one ended.
        time_left: Seconds until the call's deadline.
        max_retries: How many attempts may follow the first.
        jitter: Gives a number from 0 to 1.

    Returns:
        Seconds to wait, or None: give up and raise the error. A ``Retry-After`` is obeyed and
        never undercut; where it would pass the deadline, waiting is of no use.
    """
    if attempt > max_retries or not is_retryable(error):
        return None
    wait = _wanted_wait(attempt, error, jitter)
    return wait if wait < time_left else None


def is_retryable(error: AIFaceSwapError) -> bool:
    """Whether the same bytes may well succeed when they are sent again.

    Args:
        error: How an attempt ended.

    Returns:
        True for lost connections, timeouts, responses that are not JSON, and the statuses 408,
        429 (but not the daily limit), 500, 502, 503, 504.
    """
    if isinstance(error, APIStatusError):
        return error.status in RETRIED_STATUSES and not isinstance(error, DailyLimitError)
    if isinstance(error, APIResponseError):
        return not error.permanent
    return isinstance(error, APIConnectionError)


def _wanted_wait(attempt: int, error: AIFaceSwapError, jitter: Callable[[], float]) -> float:
    if isinstance(error, APIStatusError) and error.retry_after is not None:
        return error.retry_after
    if attempt == 1 and _was_reset(error):
        return 0.0
    # Full jitter: callers that failed together do not come back together.
    doublings = min(attempt - 1, _DOUBLINGS)
    return jitter() * min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0**doublings)


def _was_reset(error: AIFaceSwapError) -> bool:
    """Most likely an idle connection, closed as it was used again: no reason to back off."""
    lost = isinstance(error, APIConnectionError) and error.sent
    return lost and not isinstance(error, APITimeoutError)
