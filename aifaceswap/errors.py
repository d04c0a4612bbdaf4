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
    │   ├── UnprocessableContentError      422
    │   │   └── ContentRejectedError       nsfw_content_detected
    │   ├── RateLimitError                 429
    │   │   ├── DailyLimitError            rate_limited_daily
    │   │   └── ConcurrencyLimitError      rate_limited_concurrent
    │   └── ServerError                    5xx
    │       └── ServiceUnavailableError    503
    ├── FileStoreError                     a local file could not be published
    ├── SwapFailedError                    the swap finished without a result
    ├── WaitTimeoutError (TimeoutError)    the swap did not finish in time
    ├── BulkStoppedError                   a bulk run cannot continue; the journal has what is left
    ├── UnresolvedRowError                 a bulk row may have been charged; it is not sent again
    ├── JournalError                       a bulk run's journal cannot be used
    └── WebhookVerificationError           a delivery that failed verification

The class follows from the response's ``code``, or from its status if the code is unknown.
Every error pickles and copies. An error describes the complete call, not only its last attempt:
the errors of earlier attempts are chained as ``__cause__``, and every error of a call that
creates a swap carries its ``idempotency_key``. The same swap sent again with this key is never
charged twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from aifaceswap.models import Swap

_SHOWN = 200  # characters of a rejected value in its error
_RAY = re.compile(r"[0-9A-Za-z-]{1,64}")


def short_repr(value: object) -> str:
    """Show a rejected value in an error message.

    Args:
        value: Anything.

    Returns:
        Its ``repr()``, truncated if it is long; its type if ``repr()`` fails.
    """
    try:
        text = repr(value)
    except Exception:  # nested too deeply, a number of 5,000 digits, a class of the caller's
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _field_message(field: str, value: object, reason: str) -> str:
    return f"{field} {reason}; got {short_repr(value)}"


def _picklable(value: object) -> object:
    import pickle  # noqa: PLC0415 - loaded by those who pickle only

    try:
        pickle.dumps(value)
    except Exception:  # a lock, a lambda, a generator: each raises an error of its own
        return short_repr(value)
    return value


def support_id(request_id: str | None, headers: Mapping[str, str]) -> str:
    """End a message with the id that support asks for.

    Args:
        request_id: The service's request id.
        headers: The headers of the response; Cloudflare's ``cf-ray`` is used without a request id.

    Returns:
        The id in brackets after a space, or an empty string.
    """
    if request_id:
        return f" (request {request_id})"
    ray = headers.get("cf-ray", "")
    return f" (cf-ray {ray})" if _RAY.fullmatch(ray) else ""


def name_call(
    error: BaseException, idempotency_key: str | None, swap_id: str | None = None
) -> None:
    """Make an exception carry what is needed to continue its call.

    Args:
        error: An error of this package gets attributes, any other exception a note.
        idempotency_key: The key of the call, if it had one.
        swap_id: The id of the swap, if it is known.
    """
    if isinstance(error, AIFaceSwapError):
        error.idempotency_key = idempotency_key or error.idempotency_key
        error.swap_id = swap_id or error.swap_id
        return
    known = {"idempotency key": idempotency_key, "swap id": swap_id}
    note = ", ".join(f"{name}: {value}" for name, value in known.items() if value)
    if note and not any(note in other for other in getattr(error, "__notes__", ())):
        error.add_note(f"aifaceswap: {note}")


class AIFaceSwapError(Exception):
    """The base of every error of this package.

    Args:
        message: What went wrong and what is expected.
        idempotency_key: The key of the call that failed, if it had one.

    Attributes:
        message: What went wrong and what is expected.
        idempotency_key: The same request sent again with this key is never carried out twice.
            ``None`` for calls without a key.
        swap_id: The id of the swap that the call created or waited for, once it is known.
        may_have_succeeded: Whether an attempt of the call may have been carried out although
            it failed for the caller. Repeat such a call only with the same key.
    """

    swap_id: str | None = None
    may_have_succeeded: bool = False

    # The message alone is positional and in `args`, all else is in `__dict__`: so the
    # interpreter's own pickling and copying of exceptions works for the complete tree.
    def __init__(self, message: str = "", *, idempotency_key: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.idempotency_key = idempotency_key


class ConfigurationError(AIFaceSwapError):
    """The client cannot be set up: the key, the base URL or an option is not valid.

    Args:
        message: What is wrong and what is expected.
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
    """An argument is not valid; nothing was sent.

    Args:
        message: What is wrong with the value and what is expected.
        field: The name of the argument.
        value: The rejected value.
        idempotency_key: The key of the call, if it had one.

    Attributes:
        field: The name of the argument, e.g. ``"source_url"``.
        value: The rejected value; after pickling its text, if it cannot be pickled.
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the value as its text if it cannot be pickled itself."""
        return type(self), self.args, {**vars(self), "value": _picklable(self.value)}

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
    """No complete response arrived: connection refused, reset or dropped, or a timeout.

    Args:
        message: What happened.
        sent: Whether an attempt may have reached the service.
        permanent: Whether the same request would fail again in the same way.
        attempts: How many attempts were made.
        idempotency_key: The key of the call, if it had one.

    Attributes:
        sent: ``False`` if no attempt of the call reached the service. ``True`` if one may have:
            a swap may have been created and charged.
        permanent: ``True`` if the same request would fail again in the same way, e.g. because
            a certificate is not valid. Such errors are not retried.
        attempts: How many attempts were made.
    """

    def __init__(
        self,
        message: str = "",
        *,
        sent: bool = True,
        permanent: bool = False,
        attempts: int = 0,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message, idempotency_key=idempotency_key)
        self.sent = sent
        self.permanent = permanent
        self.attempts = attempts


class APITimeoutError(APIConnectionError, TimeoutError):
    """No complete response within the attempt's ``timeout`` or the call's ``deadline``."""


class APIResponseError(AIFaceSwapError):
    """The service accepted the request, but its response cannot be read.

    Args:
        message: What cannot be read, with the JSON path or the beginning of the body.
        status: The HTTP status, 200 to 299.
        body: The body of the response.
        permanent: Whether the same request would get the same response again.
        request_id: The id that the service's support asks for, if the response had one.
        attempts: How many attempts were made.
        idempotency_key: The key of the call, if it had one.

    Attributes:
        sent: Always ``True``: the service has received the request.
        status: The HTTP status, 200 to 299.
        body: The body of the response.
        permanent: ``True`` if the same request would get the same response again: JSON of an
            undocumented shape. ``False`` if it may be temporary: a proxy's page, a cut body.
        request_id: The id that the service's support asks for, or ``None``.
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
        self.sent = True
        self.status = status
        self.body = body
        self.permanent = permanent
        self.request_id = request_id
        self.attempts = attempts


class APIStatusError(AIFaceSwapError):
    """The service rejected the request: any response other than a 2xx.

    Args:
        message: The service's message, or the beginning of the body.
        status: The HTTP status.
        code: The service's error code.
        request_id: The id that the service's support asks for.
        retry_after: Seconds that the service asks to wait.
        headers: The headers of the response.
        body: The body of the response.
        sent: Whether an attempt may have reached the service.
        attempts: How many attempts were made.
        idempotency_key: The key of the call, if it had one.

    Attributes:
        status: The HTTP status.
        code: The service's error code, e.g. ``"validation_error"``; ``None`` if the response
            had none (a proxy's page). Unknown codes are kept as they are.
        request_id: The id that the service's support asks for, or ``None``.
        retry_after: Seconds that the service asks to wait, or ``None``.
        headers: The headers of the response; names in any case.
        body: The body of the response.
        sent: ``False`` if the client's own rate limiter rejected the call and nothing was sent.
        attempts: How many attempts were made; 0 if nothing was sent.
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
        sent: bool = True,
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
        self.sent = sent
        self.attempts = attempts

    def __str__(self) -> str:
        """Status, code, message, and the id that support asks for."""
        text = " ".join(str(part) for part in (self.status, self.code) if part)
        return f"{text}: {self.message}{support_id(self.request_id, self.headers)}"


class BadRequestError(APIStatusError):
    """400: the body or the query is not valid. Sent again unchanged, it fails again."""


class SourceUnreachableError(BadRequestError):
    """``source_url`` or ``target_url`` is not public, or its name does not resolve."""


class AuthenticationError(APIStatusError):
    """401: the key is missing, malformed or not active."""


class InsufficientCreditsError(APIStatusError):
    """402: not enough credits.

    Top up, then send the swap again with a *new* idempotency key. If ``may_have_succeeded`` is
    true, an earlier attempt may have created the swap: first repeat it with the same key.
    """


class NotFoundError(APIStatusError):
    """404: it does not exist, or it belongs to another key."""


class ConflictError(APIStatusError):
    """409: the idempotency key is in use.

    Either an earlier request with the key is still being carried out, or the key was used for
    another request. While the first may be true, the client retries until the deadline.
    """


class PayloadTooLargeError(APIStatusError):
    """413: the source or the target is larger than its type allows."""


class UnsupportedMediaTypeError(APIStatusError):
    """415: the source or the target is not of the declared type."""


class UnprocessableContentError(APIStatusError):
    """422: the service understood the request but does not carry it out.

    E.g. an idempotency key that was used for another request.
    """


class ContentRejectedError(UnprocessableContentError):
    """The content is not allowed; the same inputs are rejected again."""


class RateLimitError(APIStatusError):
    """429: too many requests in a minute.

    The client's own rate limiter raises it too, before anything is sent, if a permit would not
    be free within ``max_wait`` and the call's deadline. Then ``attempts`` is 0, ``sent`` is false
    and ``retry_after`` is when a permit will be free.
    """


class DailyLimitError(RateLimitError):
    """429: too many requests in this UTC day. Never retried."""


class ConcurrencyLimitError(RateLimitError):
    """429: too many unfinished swaps."""


class ServerError(APIStatusError):
    """5xx: the service, or a proxy in front of it, failed."""


class ServiceUnavailableError(ServerError):
    """503: the service is switched off or overloaded."""


class FileStoreError(AIFaceSwapError):
    """The store of local files failed: no bucket, no permission, no connection.

    The swap was not created. It concerns the store, and with it every file; a file that cannot
    be read or is not an image is an `InvalidRequestError`.
    """


class SwapFailedError(AIFaceSwapError):
    """The swap finished without a result.

    Args:
        message: The service's reason.
        swap: The finished swap.
        idempotency_key: The key the swap was created with, if this call created it.

    Attributes:
        swap: The finished swap; ``swap.error`` is the service's reason.
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
            self.swap_id: str | None = swap.id

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
    """The swap did not finish in time. It keeps running: wait again, do not create it again.

    Args:
        message: How long the wait was, and the last known status.
        swap_id: The id of the swap.
        swap: The swap as it was last seen.
        idempotency_key: The key the swap was created with, if this call created it.

    Attributes:
        swap_id: The id of the swap: ``client.swaps.wait(error.swap_id)`` continues the wait.
        swap: The swap as it was last seen; ``None`` if it was never seen.
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
        self.swap_id: str = swap_id  # pyright: ignore[reportIncompatibleVariableOverride]
        self.swap = swap


class BulkStoppedError(AIFaceSwapError):
    """A bulk run met an error that stops every row: the key, the credits, the day's requests.

    Everything that was started is in the journal. The reason is the error's ``__cause__``.

    Args:
        message: The reason, how much is left and how to continue.
        rows_left: How many rows have no outcome yet.

    Attributes:
        rows_left: How many rows have no outcome yet; None if the input's length is unknown.
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

    Attributes:
        in_use: Whether another run has it open: it can be used when that run has finished.
    """

    in_use: bool = False


class WebhookVerificationReason(StrEnum):
    """Why the verification of a webhook delivery failed."""

    HEADER_MISSING = "header_missing"
    HEADER_MALFORMED = "header_malformed"
    SIGNATURE_MISMATCH = "signature_mismatch"
    TIMESTAMP_OUTSIDE_TOLERANCE = "timestamp_outside_tolerance"
    BODY_MALFORMED = "body_malformed"


class WebhookVerificationError(AIFaceSwapError):
    """The verification of a webhook delivery failed: do not use its content.

    Args:
        message: What is wrong with it.
        reason: The same as a value.

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
