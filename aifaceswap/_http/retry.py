"""Whether to try again, and after how long: pure functions of what happened."""

from __future__ import annotations

import random
from collections.abc import Callable

from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ConflictError,
    DailyLimitError,
    RateLimitError,
)

_RETRIED_STATUSES = frozenset({408, 429})
_SERVER_ERRORS = range(500, 600)
# Not implemented, and HTTP version not supported: these will not change.
_FINAL_SERVER_ERRORS = frozenset({501, 505})
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
    """Seconds to wait before the next attempt; None if there must not be one."""
    if attempt > max_retries or not is_retryable(error):
        return None
    return retry_delay(attempt, error, time_left, jitter=jitter)


def retry_delay(
    attempt: int,
    error: AIFaceSwapError,
    time_left: float,
    *,
    jitter: Callable[[], float] = random.random,
) -> float | None:
    """Seconds to wait after an attempt, the first being 1; None if that exceeds the time left."""
    backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(attempt - 1, _DOUBLINGS))
    asked = getattr(error, "retry_after", None) or 0.0
    if attempt == 1 and _was_reset(error):
        backoff = 0.0
    elif asked >= _FIRST_BACKOFF:
        # Nor may the jitter exceed a deadline that Retry-After alone does not.
        backoff = min(backoff, asked, (time_left - asked) / 2)
    # Full jitter: callers that failed together do not come back together.
    wait = asked + jitter() * backoff
    return wait if asked < time_left and wait < time_left else None


def is_retryable(error: AIFaceSwapError) -> bool:
    """Whether the same bytes, sent again, may succeed."""
    if isinstance(error, APIStatusError):
        if isinstance(error, RateLimitError):
            return not isinstance(error, DailyLimitError)
        is_server_error = error.status in _SERVER_ERRORS
        return error.status in _RETRIED_STATUSES or (
            is_server_error and error.status not in _FINAL_SERVER_ERRORS
        )
    return isinstance(error, APIConnectionError | APIResponseError) and not error.permanent


def is_in_progress(error: AIFaceSwapError) -> bool:
    """Whether the service stated that an earlier request with the key is being carried out."""
    if not isinstance(error, ConflictError):
        return False
    return error.retry_after is not None or "in_progress" in (error.code or "")


def _was_reset(error: AIFaceSwapError) -> bool:
    """Most likely the server closed an idle connection just as it was used: do not back off."""
    lost = isinstance(error, APIConnectionError) and error.sent
    return lost and not isinstance(error, APITimeoutError)
