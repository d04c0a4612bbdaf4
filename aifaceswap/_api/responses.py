"""The API's responses: a value, or the error that a status, a code and a body stand for. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

import attrs

from aifaceswap._api import codec
from aifaceswap._api.requests import Call, T
from aifaceswap.errors import (
    AIFaceSwapError,
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConcurrencyLimitError,
    ConflictError,
    ContentRejectedError,
    DailyLimitError,
    InsufficientCreditsError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
    SourceUnreachableError,
    UnprocessableContentError,
    UnsupportedMediaTypeError,
    short_repr,
    support_id,
)
from aifaceswap.models import (
    RateLimit,
    Response,
    Swap,
    without_query,
)

_SHOWN = 200  # characters of a body in an error's message
_WITHOUT_BODY = frozenset({204, 205})
_MOST_DIGITS = 12
_PLAIN_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LONGEST_RETRY_AFTER = 1e9  # seconds; longer than any deadline

RATE_LIMITED: Final = "rate_limited"
RATE_LIMITED_DAILY: Final = "rate_limited_daily"
RATE_LIMITED_CONCURRENT: Final = "rate_limited_concurrent"

#: The documented error codes. The service sends each instead of creating a swap.
CODES: Mapping[str, type[APIStatusError]] = {
    "unauthorized": AuthenticationError,
    "invalid_api_key": AuthenticationError,
    "validation_error": BadRequestError,
    "source_unreachable": SourceUnreachableError,
    "insufficient_credits": InsufficientCreditsError,
    "method_not_allowed": APIStatusError,
    "payload_too_large": PayloadTooLargeError,
    "unsupported_media_type": UnsupportedMediaTypeError,
    "nsfw_content_detected": ContentRejectedError,
    RATE_LIMITED: RateLimitError,
    RATE_LIMITED_DAILY: DailyLimitError,
    RATE_LIMITED_CONCURRENT: ConcurrencyLimitError,
    "api_temporarily_disabled": ServiceUnavailableError,
}
#: The codes of the contract. Each means that the request had no effect.
DOCUMENTED_CODES = frozenset(CODES)

_STATUSES: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    415: UnsupportedMediaTypeError,
    422: UnprocessableContentError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}


@attrs.frozen
class RawResponse:
    """The response of one attempt.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any case.
        body: The body, decompressed.
        complete: False if the body was cut because it is too large for this API.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True


def read_result(call: Call[T], response: RawResponse, attempts: int = 1) -> T:
    """Decode a response, or raise the `APIStatusError` or `APIResponseError` that it stands for."""
    if not 200 <= response.status <= 299:  # noqa: PLR2004 - success is any 2xx
        raise status_error(response, attempts, call.idempotency_key)
    try:
        value = _read_body(response, call.into)
        if call.swap_id is not None:
            _check_id(call.swap_id, value)
    except (codec.NotJSONError, codec.ShapeError, _WrongSwapError) as error:
        raise _unreadable(call, response, error, attempts) from None
    return value


def _read_body(response: RawResponse, into: type[T]) -> T:
    if not response.complete:
        raise codec.NotJSONError(f"it is larger than {len(response.body)} bytes")
    if into is bytes:
        return cast("T", response.body)
    return codec.structure(codec.loads(response.body), into)


class _WrongSwapError(ValueError):
    """A response that belongs to another request; sent again, this one gets its own."""


def _check_id(wanted: str, value: object) -> None:
    if isinstance(value, Swap) and value.id != wanted:
        raise _WrongSwapError(f"it is about another swap, {short_repr(value.id)}")


def _unreadable(
    call: Call[Any], response: RawResponse, error: ValueError, attempts: int
) -> APIResponseError:
    """The error of a 2xx that cannot be used."""
    into = _name(call.into)
    where = f"{call.method} {call.path.partition('?')[0]}"
    support = support_id(request_id(response), response.headers)
    return APIResponseError(
        f"{where}: the service responded with {response.status}, but the body is not a valid "
        f"{into} ({error}): {_beginning(response.body)}{support}",
        status=response.status,
        body=response.body,
        permanent=isinstance(error, codec.ShapeError) or _has_no_body(call, response),
        request_id=request_id(response),
        attempts=attempts,
        idempotency_key=call.idempotency_key,
    )


def _name(into: object) -> str:
    return into.__name__ if isinstance(into, type) else str(into)


def _has_no_body(call: Call[Any], response: RawResponse) -> bool:
    """Whether HTTP allows this response no body, so that it will not have one next time either."""
    return call.method == "HEAD" or response.status in _WITHOUT_BODY


def read_response(call: Call[T], response: RawResponse, attempts: int = 1) -> Response[T]:
    """Decode a response like `read_result`, with its status, headers and rate limit."""
    return Response(
        value=read_result(call, response, attempts),
        status=response.status,
        headers=response.headers,
        request_id=request_id(response),
        rate_limit=read_rate_limit(response.headers),
        attempts=attempts,
        idempotency_key=call.idempotency_key,
    )


def request_id(response: RawResponse) -> str | None:
    """The request id in the headers; an error's envelope has it in its body."""
    return response.headers.get("x-request-id")


def read_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """The requests left, as the headers state them; None without valid headers."""
    limit = _whole_number(headers.get("X-RateLimit-Limit"))
    remaining = _whole_number(headers.get("X-RateLimit-Remaining"))
    if limit is None or remaining is None:
        return None
    reset = _whole_number(headers.get("X-RateLimit-Reset"))
    return RateLimit(limit=limit, remaining=remaining, reset=reset)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the Retry-After header; None without a valid one."""
    text = headers.get("Retry-After")
    seconds = _number(text)
    if seconds is not None:
        return min(seconds, _LONGEST_RETRY_AFTER)
    # Relative to the response's own date: the clocks may differ.
    until, now = _http_date(text), _http_date(headers.get("Date"))
    if until is None:
        return None
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def status_error(
    response: RawResponse, attempts: int, idempotency_key: str | None
) -> APIStatusError:
    """The error that a response other than a 2xx stands for."""
    fields = _error_fields(response.body)
    code = fields.get("code")
    return error_class(response.status, code)(
        fields.get("message") or _no_message(response),
        status=response.status,
        code=code,
        request_id=fields.get("request_id") or request_id(response),
        retry_after=read_retry_after(response.headers),
        headers=response.headers,
        body=response.body,
        attempts=attempts,
        idempotency_key=idempotency_key,
    )


def _error_fields(body: bytes) -> dict[str, str]:
    """The strings of the error envelope; empty without an envelope."""
    try:
        envelope = codec.loads(body)
    except codec.NotJSONError:
        return {}
    try:
        fields = codec.structure(envelope, dict[str, Any])["error"]
        if isinstance(fields, str):
            return {"message": fields}
        named = codec.structure(fields, dict[str, Any])
    except (KeyError, codec.ShapeError):
        return {}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def error_class(status: int, code: str | None) -> type[APIStatusError]:
    """The class of an error, by its code, or by its status if the code is unknown."""
    fallback = ServerError if status >= 500 else APIStatusError  # noqa: PLR2004 - all 5xx
    return CODES.get(code or "") or _STATUSES.get(status, fallback)


def is_documented_rejection(error: AIFaceSwapError) -> bool:
    """Whether the service itself stated that it did not carry out this attempt."""
    if not isinstance(error, APIStatusError) or error.code not in DOCUMENTED_CODES:
        return False
    return error.status in (*range(400, 500), 503)


def _no_message(response: RawResponse) -> str:
    if location := response.headers.get("Location"):
        return f"a redirect to {without_query(location)}, which is not followed: check base_url"
    return _beginning(response.body)


def _beginning(body: bytes) -> str:
    """The beginning of a body, as one line of a message."""
    # As text: it has more white space than bytes have.
    if not body.decode(errors="replace").strip():
        return "an empty body"
    text = " ".join(body[: 2 * _SHOWN].decode(errors="replace").split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= _SHOWN and len(body) <= 2 * _SHOWN else f"{text[:_SHOWN]}…"


def _whole_number(text: str | None) -> int | None:
    """A number of requests or a Unix time, or None."""
    if text is None or len(text) > _MOST_DIGITS or not (text.isdecimal() and text.isascii()):
        return None
    return int(text)


def _number(text: str | None) -> float | None:
    """A number of seconds in plain digits, or None."""
    return float(text) if text is not None and _PLAIN_NUMBER.fullmatch(text) else None


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
