"""Every error that this package raises, in one tree.

::

    AIFaceSwapError
    ├── ConfigurationError                 the client cannot be set up like this
    ├── InvalidRequestError (ValueError)   bad input; nothing was sent
    ├── APIConnectionError                 no complete response arrived
    │   └── APITimeoutError (TimeoutError)
    ├── APIResponseError                   a 2xx that cannot be read
    ├── APIStatusError                     the service rejected the request
    │   ├── BadRequestError                400
    │   │   └── SourceUnreachableError     source_unreachable
    │   ├── AuthenticationError            401
    │   ├── InsufficientCreditsError       402
    │   ├── NotFoundError                  404
    │   ├── ConflictError                  409
    │   ├── PayloadTooLargeError           413
    │   ├── UnsupportedMediaTypeError      415
    │   ├── ContentRejectedError           422
    │   ├── RateLimitError                 429
    │   │   ├── DailyLimitError            rate_limited_daily
    │   │   └── ConcurrencyLimitError      rate_limited_concurrent
    │   └── ServerError                    5xx
    │       └── ServiceUnavailableError    503
    ├── SwapFailedError                    the swap finished without a result
    ├── WaitTimeoutError (TimeoutError)    the swap did not finish in time
    ├── BulkStoppedError                   a bulk run cannot continue; the journal has what is left
    ├── UnresolvedRowError                 a bulk row may have been charged; it is not sent again
    ├── JournalError                       a bulk run's journal cannot be used
    └── WebhookVerificationError           a delivery that failed verification

The class follows from the response's ``code``, or from its status if the code is unknown.
Every error can be pickled and copied. Every error of a request that creates a swap carries its
``idempotency_key``: sending the same swap again with that key is never charged twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from aifaceswap.models import Swap

_SHOWN = 200  # characters of a refused value in its error


def short_repr(value: object) -> str:
    """A refused value, fit for the message of an error.

    Args:
        value: Anything at all.

    Returns:
        Its ``repr()``, cut where it is long; its type where it has none.
    """
    try:
        text = repr(value)
    except Exception:  # nested too deeply, a number of 5,000 digits, a class of the caller's
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _field_message(field: str, value: object, reason: str) -> str:
    return f"{field} {reason}; got {short_repr(value)}"


class AIFaceSwapError(Exception):
    """The base of every error of this package.

    Args:
        message: What went wrong and what would be right.
        idempotency_key: The key of the call that failed, where it had one.

    Attributes:
        message: What went wrong and what would be right.
        idempotency_key: Send the same request with this key again: it is never carried out
            twice. ``None`` for calls without a key.
    """

    # The message alone is positional and in `args`, all else is in `__dict__`: so the
    # interpreter's own pickling and copying of exceptions works for the complete tree.
    def __init__(self, message: str = "", *, idempotency_key: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.idempotency_key = idempotency_key


class ConfigurationError(AIFaceSwapError):
    """The client cannot be set up like this: the key, the base URL or an option is wrong.

    Args:
        message: What is wrong and what would be right.
        field: The name of the argument.

    Attributes:
        field: The name of the argument, e.g. ``"api_key"``.
    """

    def __init__(self, message: str = "", *, field: str = "") -> None:
        super().__init__(message)
        self.field = field

    @classmethod
    def for_field(cls, field: str, value: object, reason: str) -> Self:
        """Build the usual message: ``"timeout must be ...; got 'x'"``.

        Args:
            field: The name of the argument.
            value: The rejected value; a long one is truncated in the message.
            reason: What the argument must be.

        Returns:
            The error, ready to raise.
        """
        return cls(_field_message(field, value, reason), field=field)


class InvalidRequestError(AIFaceSwapError, ValueError):
    """An argument is wrong; nothing was sent.

    Args:
        message: What is wrong with the value and what would be right.
        field: The name of the argument.
        value: What was given.
        idempotency_key: The key of the call, where it had one.

    Attributes:
        field: The name of the argument, e.g. ``"source_url"``.
        value: What was given.
    """

    def __init__(
        self,
        message: str = "",
        *,
        field: str = "",
        value: object = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message, idempotency_key=idempotency_key)
        self.field = field
        self.value = value

    @classmethod
    def for_field(cls, field: str, value: object, reason: str) -> Self:
        """Build the usual message: ``"limit must be 1 or more; got 0"``.

        Args:
            field: The name of the argument.
            value: The rejected value; a long one is truncated in the message.
            reason: What the argument must be, e.g. ``"must be 1 or more"``.

        Returns:
            The error, ready to raise.
        """
        return cls(_field_message(field, value, reason), field=field, value=value)


class APIConnectionError(AIFaceSwapError):
    """No complete response arrived: the connection failed, or the name does not resolve.

    Args:
        message: What happened.
        sent: Whether the request may have reached the service.
        attempts: How many attempts were made.
        idempotency_key: The key of the call, where it had one.

    Attributes:
        sent: ``False`` if the request certainly never reached the service. ``True`` if it
            may have: a swap may have been created and charged.
        attempts: How many attempts were made.
    """

    def __init__(
        self,
        message: str = "",
        *,
        sent: bool = True,
        attempts: int = 0,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message, idempotency_key=idempotency_key)
        self.sent = sent
        self.attempts = attempts


class APITimeoutError(APIConnectionError, TimeoutError):
    """No complete response arrived within the attempt's ``timeout`` or the call's ``deadline``."""


class APIResponseError(AIFaceSwapError):
    """The service responded with success, but the body cannot be read.

    Args:
        message: What cannot be read, with the JSON path or the beginning of what came.
        status: The HTTP status, 200 to 299.
        body: The body of the response, unchanged.
        permanent: Whether the same request would get the same response again.
        request_id: What the service's support asks for, where it was given.
        attempts: How many attempts were made.
        idempotency_key: The key of the call, where it had one.

    Attributes:
        status: The HTTP status, 200 to 299.
        body: The body of the response, unchanged.
        permanent: ``True`` if the same request would get the same response again: JSON
            of an undocumented shape. ``False`` if it may pass: a proxy's page, a cut body.
        request_id: What the service's support asks for, or ``None``.
        attempts: How many attempts were made.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 200,
        body: bytes = b"",
        permanent: bool = False,
        request_id: str | None = None,
        attempts: int = 0,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message, idempotency_key=idempotency_key)
        self.status = status
        self.body = body
        self.permanent = permanent
        self.request_id = request_id
        self.attempts = attempts


class APIStatusError(AIFaceSwapError):
    """The service rejected the request: any response that is not a 2xx.

    Args:
        message: The service's own words, or the beginning of what came instead.
        status: The HTTP status.
        code: The service's error code.
        request_id: What the service's support asks for.
        retry_after: Seconds that the service asks to wait.
        headers: The headers of the response.
        body: The body of the response, unchanged.
        attempts: How many attempts were made.
        idempotency_key: The key of the call, where it had one.

    Attributes:
        status: The HTTP status.
        code: The service's error code, e.g. ``"validation_error"``; ``None`` if the
            response had none (a proxy's page). Unknown codes are kept unchanged.
        request_id: What the service's support asks for, or ``None``.
        retry_after: Seconds that the service asks to wait, or ``None``.
        headers: The headers of the response; names in any case.
        body: The body of the response, unchanged.
        attempts: How many attempts were made; 0 if the client's own budget refused and
            nothing was sent.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        attempts: int = 0,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message, idempotency_key=idempotency_key)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.body = body
        self.attempts = attempts

    def __str__(self) -> str:
        """Status, code and message, and the request id that support asks for."""
        text = " ".join(str(part) for part in (self.status, self.code) if part)
        text = f"{text}: {self.message}"
        return f"{text} (request {self.request_id})" if self.request_id else text


class BadRequestError(APIStatusError):
    """400: the body or the query failed the service's checks. Do not retry blindly."""


class SourceUnreachableError(BadRequestError):
    """``source_url`` or ``target_url`` is not public, or its name does not resolve."""


class AuthenticationError(APIStatusError):
    """401: the key is missing, malformed or not valid."""


class InsufficientCreditsError(APIStatusError):
    """402: top up, then send the swap again with a *fresh* idempotency key."""


class NotFoundError(APIStatusError):
    """404: there is no such thing, or it belongs to another key."""


class ConflictError(APIStatusError):
    """409: most likely an idempotency key that was used before with another body."""


class PayloadTooLargeError(APIStatusError):
    """413: the source or the target is larger than its type may be."""


class UnsupportedMediaTypeError(APIStatusError):
    """415: the source or the target is not of the declared type."""


class ContentRejectedError(APIStatusError):
    """422: the content is not allowed; the same inputs will fail again."""


class RateLimitError(APIStatusError):
    """429: too many requests in a minute.

    Raised by the client's own budget too, before anything is sent, where the wait for a
    permit would be longer than ``max_wait`` or the call's deadline allows: ``attempts`` is 0
    then, or counts what was sent before, and ``retry_after`` says when a permit will be free.
    """


class DailyLimitError(RateLimitError):
    """429: too many requests in this UTC day. Never retried."""


class ConcurrencyLimitError(RateLimitError):
    """429: too many unfinished swaps."""


class ServerError(APIStatusError):
    """5xx: the service or a proxy before it failed."""


class ServiceUnavailableError(ServerError):
    """503: the service is switched off or overloaded for now."""


class SwapFailedError(AIFaceSwapError):
    """The swap has ended without a picture.

    Args:
        message: What the service says of it.
        swap: The swap as it ended.
        idempotency_key: The key it was created with, where this call created it.

    Attributes:
        swap: The swap as it ended; ``swap.error`` is what the service says of it.
    """

    swap: Swap

    def __init__(
        self,
        message: str = "",
        *,
        swap: Swap | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message, idempotency_key=idempotency_key)
        if swap is not None:
            self.swap = swap

    @classmethod
    def of(cls, swap: Swap) -> Self:
        """The error of a failed swap, with the service's reason.

        Args:
            swap: The failed swap.

        Returns:
            The error.
        """
        reason = swap.error_message or "the service gives no reason"
        return cls(f"{swap.id} failed: {reason}", swap=swap)


class WaitTimeoutError(AIFaceSwapError, TimeoutError):
    """The swap did not finish in time. It is still running: wait again, do not create it again.

    Args:
        message: How long was waited and for what.
        swap_id: The id of the swap.
        swap: The swap as it was seen last.
        idempotency_key: The key it was created with, where this call created it.

    Attributes:
        swap_id: The id of the swap: ``client.swaps.wait(error.swap_id)`` resumes waiting.
        swap: The swap as it was seen last; ``None`` if it was never seen.
    """

    def __init__(
        self,
        message: str = "",
        *,
        swap_id: str = "",
        swap: Swap | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message, idempotency_key=idempotency_key)
        self.swap_id = swap_id
        self.swap = swap


class BulkStoppedError(AIFaceSwapError):
    """A bulk run has met what no row can get past: the key, the credits, the day's requests.

    Everything that was begun is journaled. What stopped it is the error's ``__cause__``.

    Args:
        message: What stopped it, how much is left and how to resume.
        rows_left: How many rows have no outcome yet.

    Attributes:
        rows_left: How many rows have no outcome yet; None where the input's length is unknown.
    """

    def __init__(self, message: str = "", *, rows_left: int | None = None) -> None:
        super().__init__(message)
        self.rows_left = rows_left


class UnresolvedRowError(AIFaceSwapError):
    """A row of a bulk run may have been charged, and its swap cannot be determined.

    The row was not sent again and stays open in the journal.

    Args:
        message: What is known of the row and what to do.
        candidates: Ids of swaps that may be the row's.

    Attributes:
        candidates: Ids of swaps that may be the row's; empty if none is known.
    """

    def __init__(self, message: str = "", *, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class JournalError(AIFaceSwapError):
    """A bulk run's journal cannot be used: in use, damaged, incomplete, or of another key.

    Nothing in it was overwritten.
    """


class WebhookVerificationReason(StrEnum):
    """Why a webhook delivery fails verification."""

    HEADER_MISSING = "header_missing"
    HEADER_MALFORMED = "header_malformed"
    SIGNATURE_MISMATCH = "signature_mismatch"
    TIMESTAMP_OUTSIDE_TOLERANCE = "timestamp_outside_tolerance"
    BODY_MALFORMED = "body_malformed"


class WebhookVerificationError(AIFaceSwapError):
    """A webhook delivery that fails verification.

    Args:
        message: What is wrong with it.
        reason: The same for programs.

    Attributes:
        reason: Why it was rejected.
    """

    def __init__(
        self,
        message: str = "",
        *,
        reason: WebhookVerificationReason = WebhookVerificationReason.SIGNATURE_MISMATCH,
    ) -> None:
        super().__init__(message)
        self.reason = reason
