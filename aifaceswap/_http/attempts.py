"""The attempts of one call: whether there is another one, and which error ends the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs

from aifaceswap import _validation
from aifaceswap._api.requests import Call
from aifaceswap._api.responses import is_documented_rejection
from aifaceswap._http.retry import is_in_progress, is_retryable, retry_delay
from aifaceswap._limits import ATTEMPT_TIMEOUT
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ConflictError,
    RateLimitError,
)

NEVER = float("inf")


def _seconds(instance: object, field: attrs.Attribute[float], value: object) -> None:
    _validation.seconds(field.name, value)


def _non_negative(instance: object, field: attrs.Attribute[int], value: object) -> None:
    _validation.non_negative_integer(field.name, value)


@attrs.frozen(kw_only=True)
class CallOptions:
    """Timeouts and retries of a call; wrong values raise `ConfigurationError`.

    Attributes:
        timeout: Seconds for one attempt, once it has its permit.
        deadline: Seconds for the call with all its attempts and waits.
        max_retries: Attempts after the first one, without those that follow a 429; 0: only one
            attempt, whatever it meets.
        max_wait: Seconds that the call may spend waiting for rate limits.
        not_retried: Errors that the caller handles itself.
        on_attempt: Called with True when a request is sent, and with False when it has finished.
    """

    timeout: float = attrs.field(default=ATTEMPT_TIMEOUT, validator=_seconds)
    deadline: float = attrs.field(default=120.0, validator=_seconds)
    max_retries: int = attrs.field(default=4, validator=_non_negative)
    max_wait: float = attrs.field(default=NEVER, converter=_validation.max_wait)
    not_retried: tuple[type[AIFaceSwapError], ...] = ()
    on_attempt: Callable[[bool], object] | None = None


class CallAttempts:
    """The attempts of one call.

    Attributes:
        count: How many were started.
        timeout: Seconds for the current one.
    """

    __slots__ = (
        "_call",
        "_clock",
        "_ends_at",
        "_error",
        "_is_poll",
        "_limit_wait",
        "_may_be_in_progress",
        "_may_have_succeeded",
        "_options",
        "_retries",
        "_sent",
        "_waits_since",
        "count",
        "timeout",
    )

    def __init__(self, call: Call[Any], options: CallOptions) -> None:
        self._call = call
        self._options = options
        self._clock = asyncio.get_running_loop().time
        self._waits_since = self._clock()
        self._ends_at = self._waits_since + options.deadline
        self._limit_wait = options.max_wait
        self._is_poll = call.purpose == "poll"
        self._retries = 0
        self._sent = self._may_have_succeeded = self._may_be_in_progress = False
        self._error: AIFaceSwapError | None = None
        self.count = 0
        self.timeout = options.timeout

    @property
    def permit_wait(self) -> float:
        """Seconds that the call may wait for its next permit."""
        if self._is_poll:
            return self._limit_wait
        return min(self._ends_at - self._waits_since, self._limit_wait)

    def start(self) -> None:
        """Begin an attempt: its permit was granted."""
        now = self._clock()
        waited = now - self._waits_since
        self._limit_wait = max(0.0, self._limit_wait - waited)
        if self._is_poll:
            # The time that a poll spends in the queue does not count towards its deadline.
            self._ends_at += waited
        self.timeout = min(self._options.timeout, self._ends_at - now)
        self.count += 1
        if self._options.on_attempt is not None:
            self._options.on_attempt(True)

    def resume(self, waited: float) -> None:
        """Begin to wait for the next permit, after the pause that `fail` returned."""
        self._waits_since = self._clock()
        if isinstance(self._error, RateLimitError):
            self._limit_wait -= waited

    def fail(self, error: AIFaceSwapError) -> float | None:
        """End an attempt; return the seconds until the next one, or None."""
        wait = self._next_wait(error)
        if self._options.on_attempt is not None:
            self._options.on_attempt(False)
        self._sent = self._sent or getattr(error, "sent", False)
        if _outcome_is_unknown(error):
            self._may_have_succeeded = True
            # A 409 is about an earlier request with the key; it does not begin one.
            self._may_be_in_progress |= not isinstance(error, ConflictError)
        if self._error is not None and self._is_cut_short(error):
            _explain(self._error, error)
        else:
            error.__cause__ = error.__cause__ or self._error
            self._error = error
        return wait

    def reject(self, rejection: AIFaceSwapError) -> None:
        """Take in that the rate limiter grants no permit for another attempt."""
        if self._error is None:
            self._error = rejection
        else:
            _explain(self._error, rejection)

    def final_error(self) -> AIFaceSwapError:
        """The error that ends the call and describes all of its attempts."""
        error = self._error
        assert error is not None  # noqa: S101 - only called after `fail` or `reject`
        error.may_have_succeeded = self._may_have_succeeded
        if isinstance(error, APIConnectionError | APIResponseError | APIStatusError):
            error.sent = self._sent
            error.attempts = self.count
        return error

    def _next_wait(self, error: AIFaceSwapError) -> float | None:
        time_left = self._ends_at - self._clock()
        if self._options.max_retries == 0 or isinstance(error, self._options.not_retried):
            return None
        if isinstance(error, RateLimitError) and is_retryable(error):
            if self._is_poll:
                return None  # it comes again at its next turn
            # Limits pass by themselves: no reason to count attempts.
            return retry_delay(self.count, error, min(time_left, self._limit_wait))
        if isinstance(error, ConflictError) and (is_in_progress(error) or self._may_be_in_progress):
            return retry_delay(self.count, error, time_left)
        may_pass = is_retryable(error) or (
            isinstance(error, ConflictError) and self._call.is_repeated
        )
        if not may_pass or self._retries >= self._options.max_retries:
            return None
        self._retries += 1
        return retry_delay(self.count, error, time_left)

    def _is_cut_short(self, error: AIFaceSwapError) -> bool:
        """Whether the deadline left the attempt too little time to show anything."""
        return isinstance(error, APITimeoutError) and self.timeout < self._options.timeout


def _outcome_is_unknown(error: AIFaceSwapError) -> bool:
    """Whether the service may have carried out the attempt that failed."""
    return getattr(error, "sent", False) and not is_documented_rejection(error)


def _explain(error: AIFaceSwapError, ending: AIFaceSwapError) -> None:
    """Name why no attempt followed the one that failed with `error`."""
    error.__cause__, ending.__cause__ = ending, error.__cause__
