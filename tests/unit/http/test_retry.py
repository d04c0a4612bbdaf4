"""Whether an attempt is followed by another, and after how long."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifaceswap import errors
from aifaceswap._http.retry import is_retryable, next_wait
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ConcurrencyLimitError,
    DailyLimitError,
    InvalidRequestError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
)

BROKEN = ServerError("broken", status=500)

# The error, whether it is retried. Rows for every class; statuses where they decide.
TABLE: list[tuple[AIFaceSwapError, bool]] = [
    (errors.AIFaceSwapError("x"), False),
    (errors.ConfigurationError("x"), False),
    (errors.InvalidRequestError("x"), False),
    (errors.APIConnectionError("x", sent=True), True),
    (errors.APIConnectionError("x", sent=False), True),
    (errors.APITimeoutError("x", sent=True), True),
    (errors.APITimeoutError("x", sent=False), True),
    (errors.APIConnectionError("x", permanent=True), False),
    (errors.APIResponseError("x", permanent=False), True),
    (errors.APIResponseError("x", permanent=True), False),
    (errors.APIStatusError("x", status=302), False),
    (errors.APIStatusError("x", status=403), False),
    (errors.APIStatusError("x", status=405), False),
    (errors.APIStatusError("x", status=408), True),
    (errors.APIStatusError("x", status=425), False),
    (errors.BadRequestError("x", status=400), False),
    (errors.SourceUnreachableError("x", status=400), False),
    (errors.AuthenticationError("x", status=401), False),
    (errors.InsufficientCreditsError("x", status=402), False),
    (errors.NotFoundError("x", status=404), False),
    (errors.ConflictError("x", status=409), False),
    (errors.PayloadTooLargeError("x", status=413), False),
    (errors.UnsupportedMediaTypeError("x", status=415), False),
    (errors.UnprocessableContentError("x", status=422), False),
    (errors.ContentRejectedError("x", status=422), False),
    (errors.RateLimitError("x", status=429), True),
    (errors.DailyLimitError("x", status=429), False),
    (errors.ConcurrencyLimitError("x", status=429), True),
    (errors.ServerError("x", status=500), True),
    (errors.ServerError("x", status=501), False),
    (errors.ServerError("x", status=502), True),
    (errors.ServiceUnavailableError("x", status=503), True),
    (errors.ServerError("x", status=504), True),
    (errors.ServerError("x", status=505), False),
    (errors.ServerError("x", status=507), True),
    (errors.ServerError("x", status=520), True),
    (errors.ServerError("x", status=524), True),
    (errors.ServerError("x", status=530), True),
    (errors.ServerError("x", status=599), True),
    (errors.APIStatusError("x", status=600), False),
    (errors.SwapFailedError("x"), False),
    (errors.WaitTimeoutError("x"), False),
    (errors.BulkStoppedError("x"), False),
    (errors.UnresolvedRowError("x"), False),
    (errors.JournalError("x"), False),
    (errors.FileStoreError("x"), False),
    (errors.WebhookVerificationError("x"), False),
]


def name_of(error: object) -> str:
    if isinstance(error, APIStatusError):
        return f"{type(error).__name__}-{error.status}"
    return type(error).__name__ if isinstance(error, AIFaceSwapError) else str(error)


def highest() -> float:
    return 1.0


def lowest() -> float:
    return 0.0


@pytest.mark.parametrize(("error", "retried"), TABLE, ids=name_of)
def test_what_is_retried(error: AIFaceSwapError, retried: bool) -> None:
    """What may pass is tried again; what the same bytes cannot change is not."""
    assert retried is is_retryable(error)
    assert retried is (next_wait(1, error, 60.0, max_retries=1) is not None)


def test_the_table_has_every_class() -> None:
    """No class of errors is left out of the table above."""
    every = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, AIFaceSwapError)
    }

    assert every == {type(error) for error, _ in TABLE}


@pytest.mark.parametrize(
    ("attempt", "longest"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (50, 8.0), (1000, 8.0)],
)
def test_backoff_grows_to_its_bound(attempt: int, longest: float) -> None:
    """The wait is drawn from 0 to a bound that doubles with each attempt, up to 8 s."""
    bound = next_wait(attempt, BROKEN, math.inf, max_retries=2000, jitter=highest)
    half = next_wait(attempt, BROKEN, math.inf, max_retries=2000, jitter=lambda: 0.5)
    least = next_wait(attempt, BROKEN, math.inf, max_retries=2000, jitter=lowest)

    assert (longest, longest / 2, 0.0) == (bound, half, least)


def test_the_jitter_is_random() -> None:
    """Callers that failed together do not come back together."""
    waits = {next_wait(3, BROKEN, 60.0, max_retries=5) for _ in range(50)}

    assert len(waits) > 40
    assert all(wait is not None and 0.0 <= wait <= 2.0 for wait in waits)


@pytest.mark.parametrize(
    ("attempt", "error", "wait"),
    [
        (1, APIConnectionError("reset", sent=True), 0.0),
        (2, APIConnectionError("reset", sent=True), 1.0),
        (1, APIConnectionError("refused", sent=False), 0.5),
        (1, APITimeoutError("late", sent=True), 0.5),
        (1, APITimeoutError("late", sent=False), 0.5),
        (1, APIResponseError("cut"), 0.5),
        (1, BROKEN, 0.5),
    ],
    ids=["reset", "reset again", "refused", "late", "late to connect", "cut", "500"],
)
def test_a_first_reset_is_no_reason_to_wait(
    attempt: int, error: AIFaceSwapError, wait: float
) -> None:
    """An idle connection that was closed as it was used again is replaced at once, but once."""
    assert wait == next_wait(attempt, error, 60.0, max_retries=4, jitter=highest)


@pytest.mark.parametrize(
    ("retry_after", "attempt", "longest"),
    [
        (0.0, 1, 0.5),
        (0.0, 5, 8.0),
        (0.3, 1, 0.8),
        (0.5, 4, 1.0),
        (7.0, 1, 7.5),
        (7.0, 9, 14.0),
        (59.0, 1, 59.5),
        (59.0, 3, 59.5),
    ],
)
@pytest.mark.parametrize(
    "cls", [RateLimitError, ConcurrencyLimitError, ServiceUnavailableError, APIStatusError]
)
def test_retry_after_is_a_minimum(
    cls: type[APIStatusError], retry_after: float, attempt: int, longest: float
) -> None:
    """The jitter is on top of it, at most doubles it, and exceeds no deadline that it fits in."""
    status = 408 if cls is APIStatusError else 429
    error = cls("wait", status=status, retry_after=retry_after)

    shortest_wait = next_wait(attempt, error, 60.0, max_retries=9, jitter=lowest)
    longest_wait = next_wait(attempt, error, 60.0, max_retries=9, jitter=highest)

    assert (retry_after, longest) == (shortest_wait, longest_wait)


@pytest.mark.parametrize(
    ("retry_after", "time_left", "fits"),
    [
        (10.0, 10.1, True),
        (1.9, 2.0, True),
        (10.0, 10.0, False),
        (10.0, 9.0, False),
        (0.0, 0.0, False),
        (1e12, 120.0, False),
        (math.inf, math.inf, False),
    ],
)
@pytest.mark.parametrize("jitter", [lowest, highest])
def test_no_wait_beyond_the_deadline(
    retry_after: float, time_left: float, fits: bool, jitter: Callable[[], float]
) -> None:
    """A wait that would pass the deadline is not begun: the error is raised at once."""
    error = RateLimitError("wait", status=429, retry_after=retry_after)

    wait = next_wait(1, error, time_left, max_retries=4, jitter=jitter)

    assert fits is (wait is not None)


@pytest.mark.parametrize("time_left", [0.0, -1.0, -math.inf])
@pytest.mark.parametrize("error", [BROKEN, APIConnectionError("reset"), APIResponseError("cut")])
def test_nothing_begins_after_the_deadline(error: AIFaceSwapError, time_left: float) -> None:
    """Once the time is over there is no further attempt, not even an immediate one."""
    assert next_wait(1, error, time_left, max_retries=4, jitter=lowest) is None


@pytest.mark.parametrize("max_retries", [0, 1, 4])
def test_max_retries_is_the_number_of_further_attempts(max_retries: int) -> None:
    """So many attempts follow the first one, and no more."""
    attempts = range(1, 10)

    tried = [
        attempt
        for attempt in attempts
        if next_wait(attempt, BROKEN, math.inf, max_retries=max_retries) is not None
    ]

    assert list(range(1, max_retries + 1)) == tried


@settings(max_examples=200, deadline=None)
@given(
    attempt=st.integers(1, 10_000),
    retry_after=st.none() | st.floats(0, 1e12),
    time_left=st.floats(allow_nan=False),
    max_retries=st.integers(0, 20_000),
    jitter=st.floats(0, 1),
)
def test_a_wait_is_always_sensible(
    attempt: int, retry_after: float | None, time_left: float, max_retries: int, jitter: float
) -> None:
    """Whatever comes, a wait is not negative, ends in time and never undercuts the service."""
    error = RateLimitError("wait", status=429, retry_after=retry_after)

    wait = next_wait(attempt, error, time_left, max_retries=max_retries, jitter=lambda: jitter)

    if wait is None:
        assert attempt > max_retries or time_left <= (retry_after or 0.0) + 8.0
    else:
        assert (retry_after or 0.0) <= wait < time_left
        assert wait <= (retry_after or 0.0) + 8.0


def test_a_refusal_of_our_own_is_not_retried() -> None:
    """Wrong arguments and used-up days are not tried again, however much time is left."""
    for error in (InvalidRequestError("no"), DailyLimitError("no", status=429, retry_after=1.0)):
        assert next_wait(1, error, math.inf, max_retries=100) is None
