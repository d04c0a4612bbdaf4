"""The API's rules without any IO: calls are built, answers are read.

A `Call` is frozen before its first attempt: every attempt sends the same bytes under the same
idempotency key. An `Answer` is what one attempt brought back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar, cast

import attrs

from aifaceswap import __version__, _checks, _codec
from aifaceswap.errors import (
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConcurrencyLimitError,
    ConflictError,
    ContentRejectedError,
    DailyLimitError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
    SourceUnreachableError,
    UnsupportedMediaTypeError,
)
from aifaceswap.models import (
    Account,
    RateLimit,
    Response,
    Swap,
    SwapPage,
    SwapRequest,
    without_query,
)

T = TypeVar("T")

USER_AGENT = f"aifaceswap-python/{__version__}"
DEFAULT_PAGE = 25
MAX_DOWNLOAD = 512 * 1024 * 1024
# A result URL that has expired answers with one of these: the swap has a fresh one.
EXPIRED = frozenset({401, 403, 404, 410})
# The two highest bits of a uuid4's 17th digit are 1 and 0.
_UUID_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
_SHOWN = 200  # characters of a body in an error's message
_WITHOUT_BODY = frozenset({204, 205})
_MOST_DIGITS = 12
_PLAIN_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")

_CODES: Mapping[str, type[APIStatusError]] = {
    "unauthorized": AuthenticationError,
    "invalid_api_key": AuthenticationError,
    "validation_error": BadRequestError,
    "source_unreachable": SourceUnreachableError,
    "insufficient_credits": InsufficientCreditsError,
    "method_not_allowed": APIStatusError,
    "payload_too_large": PayloadTooLargeError,
    "unsupported_media_type": UnsupportedMediaTypeError,
    "nsfw_content_detected": ContentRejectedError,
    "rate_limited": RateLimitError,
    "rate_limited_daily": DailyLimitError,
    "rate_limited_concurrent": ConcurrencyLimitError,
    "api_temporarily_disabled": ServiceUnavailableError,
}
_STATUSES: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    415: UnsupportedMediaTypeError,
    422: ContentRejectedError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}

_READS = frozenset({"GET", "HEAD", "OPTIONS"})

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_JSON_HEADERS: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"})

Purpose = Literal["create", "read", "poll"]


@attrs.frozen(kw_only=True)
class Call(Generic[T]):
    """One operation, whole, before its first attempt.

    Attributes:
        method: The HTTP method.
        path: The path below the base URL, with its query, percent-encoded.
        into: The type of the decoded answer.
        body: The bytes that every attempt sends.
        headers: Headers of this call alone.
        idempotency_key: The key that every attempt sends; None for what only reads.
        purpose: What the budget orders by.
        template: The path without its query, ids left open; None where that is not known.
    """

    method: str
    path: str
    into: type[T]
    body: bytes | None = None
    headers: Mapping[str, str] = _NO_HEADERS
    idempotency_key: str | None = None
    purpose: Purpose = "read"
    template: str | None = None


@attrs.frozen
class Answer:
    """What one attempt brought back.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any case.
        body: The body, decompressed.
        whole: False if it was cut because it is too large to be an answer of this API.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True


# --- calls -------------------------------------------------------------------------------


def create_swap(request: SwapRequest, idempotency_key: str | None = None) -> Call[Swap]:
    """POST /swaps.

    Args:
        request: What to create.
        idempotency_key: The caller's own key; a fresh uuid4 otherwise.

    Raises:
        InvalidRequestError: The key cannot be sent, or the metadata is nested too deeply.
    """
    return post_swap(swap_body(request), _key(idempotency_key))


def swap_body(request: SwapRequest) -> bytes:
    """The body of POST /swaps.

    Raises:
        InvalidRequestError: The metadata is nested too deeply.
    """
    return _json_body(request, "metadata", request.metadata)


def post_swap(body: bytes, idempotency_key: str) -> Call[Swap]:
    """POST /swaps with a body and a key that were made before."""
    return Call(
        method="POST",
        path="/swaps",
        into=Swap,
        body=body,
        headers=_JSON_HEADERS,
        idempotency_key=idempotency_key,
        purpose="create",
        template="/swaps",
    )


def get_swap(swap_id: str, *, purpose: Purpose = "read") -> Call[Swap]:
    """GET /swaps/{id}.

    Raises:
        InvalidRequestError: The id is none.
    """
    return Call(
        method="GET",
        path=f"/swaps/{_checks.swap_id(swap_id)}",
        into=Swap,
        purpose=purpose,
        template="/swaps/{id}",
    )


def list_swaps(
    limit: int = DEFAULT_PAGE, cursor: str | None = None, *, purpose: Purpose = "read"
) -> Call[SwapPage]:
    """GET /swaps.

    Raises:
        InvalidRequestError: `limit` is outside 1 to 100, or `cursor` is no text.
    """
    params = {"limit": str(_checks.page_limit(limit))}
    if cursor is not None:
        params["cursor"] = _checks.cursor(cursor)
    path = f"/swaps{_checks.query(params)}"
    return Call(method="GET", path=path, into=SwapPage, purpose=purpose, template="/swaps")


def get_account() -> Call[Account]:
    """GET /me."""
    return Call(method="GET", path="/me", into=Account, template="/me")


def any_request(
    method: str,
    path: str,
    *,
    into: type[T],
    json: object = None,
    content: bytes | None = None,
    params: Mapping[str, str | float] | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Call[T]:
    """Any request below the base URL; all but reads carry an idempotency key.

    Raises:
        InvalidRequestError: An argument cannot be sent as it is.
    """
    method = _checks.method(method)
    if json is not None and content is not None:
        raise InvalidRequestError.of("content", content, "cannot be sent together with json")
    sent = _checks.headers(headers or {})
    if json is not None:
        content = _json_body(json, "json", json)
        sent.setdefault("Content-Type", "application/json")
    return Call(
        method=method,
        path=_checks.path(path) + _checks.query(params or {}),
        into=into,
        body=None if content is None else _checks.content(content),
        headers=sent,
        idempotency_key=None if method in _READS else _key(idempotency_key),
    )


def _json_body(body: object, field: str, value: object) -> bytes:
    try:
        return _codec.dumps(body)
    except (TypeError, ValueError) as error:
        fault = f"cannot be written as JSON: {error}"
        raise InvalidRequestError.of(field, value, fault) from None


def _key(given: str | None) -> str:
    return new_idempotency_key() if given is None else _checks.idempotency_key(given)


def new_idempotency_key() -> str:
    """A fresh key for a new swap: a uuid4, as the contract wants it."""
    # Written out: the uuid module takes four times as long, on every call.
    digits = os.urandom(16).hex()
    variant = _UUID_VARIANT[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


# --- answers -------------------------------------------------------------------------------


def read_answer(call: Call[T], answer: Answer, attempts: int = 1) -> T:
    """What an answer says: the value, or the error.

    Args:
        call: What was asked.
        answer: What came.
        attempts: How many attempts were made, for the error.

    Raises:
        APIStatusError: The service refused; the class follows from the code, then the status.
        APIResponseError: It agreed, in words that cannot be read.
    """
    if not 200 <= answer.status <= 299:  # noqa: PLR2004 - success is any 2xx
        raise status_error(answer, attempts, call.idempotency_key)
    try:
        return _read_body(answer, call.into)
    except (_codec.NotJSONError, _codec.ShapeError) as error:
        raise APIResponseError(
            f"{call.method} {call.path.partition('?')[0]}: the service answered {answer.status}, "
            f"but not with a readable {_name(call.into)} ({error}): {_beginning(answer.body)}",
            status=answer.status,
            body=answer.body,
            permanent=isinstance(error, _codec.ShapeError) or _is_empty(call, answer),
            request_id=request_id(answer),
            attempts=attempts,
            idempotency_key=call.idempotency_key,
        ) from None


def _name(into: object) -> str:
    return into.__name__ if isinstance(into, type) else str(into)


def _read_body(answer: Answer, into: type[T]) -> T:
    if not answer.whole:
        raise _codec.NotJSONError(f"it is larger than {len(answer.body)} bytes")
    if into is bytes:
        return cast("T", answer.body)
    return _codec.structure(_codec.loads(answer.body), into)


def _is_empty(call: Call[Any], answer: Answer) -> bool:
    """Whether HTTP allows this answer no body: it will have none the next time, too."""
    return call.method == "HEAD" or answer.status in _WITHOUT_BODY


def read_response(call: Call[T], answer: Answer, attempts: int = 1) -> Response[T]:
    """The same, with all that came around the value.

    Raises:
        APIStatusError: As in `read_answer`.
        APIResponseError: As in `read_answer`.
    """
    return Response(
        value=read_answer(call, answer, attempts),
        status=answer.status,
        headers=answer.headers,
        request_id=request_id(answer),
        rate_limit=read_rate_limit(answer.headers),
        attempts=attempts,
        idempotency_key=call.idempotency_key,
    )


def request_id(answer: Answer) -> str | None:
    """The request id of an answer that is no error: only a header can carry it."""
    return answer.headers.get("x-request-id")


def read_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """What an answer says of the requests left; None where it does not or makes no sense."""
    limit = _whole(headers.get("X-RateLimit-Limit"))
    remaining = _whole(headers.get("X-RateLimit-Remaining"))
    if limit is None or remaining is None:
        return None
    reset = _whole(headers.get("X-RateLimit-Reset"))
    return RateLimit(limit=limit, remaining=remaining, reset=reset)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait; None where it does not or makes no sense.

    A date is taken relative to the answer's own `Date`, so that clocks that differ do no harm.
    """
    text = headers.get("Retry-After")
    seconds = _number(text)
    if seconds is not None:
        return seconds
    until, now = _http_date(text), _http_date(headers.get("Date"))
    if until is None:
        return None
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def status_error(answer: Answer, attempts: int, idempotency_key: str | None) -> APIStatusError:
    """The error that an answer other than a 2xx is.

    Args:
        answer: What came.
        attempts: How many attempts were made.
        idempotency_key: The call's key, where it had one.

    Returns:
        The error; its class follows from the code, then from the status.
    """
    fields = _error_fields(answer.body)
    code = fields.get("code")
    return error_class(answer.status, code)(
        fields.get("message") or _no_message(answer),
        status=answer.status,
        code=code,
        request_id=fields.get("request_id") or request_id(answer),
        retry_after=read_retry_after(answer.headers),
        headers=answer.headers,
        body=answer.body,
        attempts=attempts,
        idempotency_key=idempotency_key,
    )


def _error_fields(body: bytes) -> dict[str, str]:
    """The strings of the error envelope, as far as there is one."""
    try:
        envelope = _codec.loads(body)
    except _codec.NotJSONError:
        return {}
    try:
        fields = _codec.structure(envelope, dict[str, Any])["error"]
        if isinstance(fields, str):
            return {"message": fields}
        named = _codec.structure(fields, dict[str, Any])
    except (KeyError, _codec.ShapeError):
        return {}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def error_class(status: int, code: str | None) -> type[APIStatusError]:
    """The class of an error: by its code, and by its status where the code is new."""
    fallback = ServerError if status >= 500 else APIStatusError  # noqa: PLR2004 - all 5xx
    return _CODES.get(code or "") or _STATUSES.get(status, fallback)


def _no_message(answer: Answer) -> str:
    if location := answer.headers.get("Location"):
        return f"a redirect to {without_query(location)}, which is not followed: check base_url"
    return _beginning(answer.body)


def _beginning(body: bytes) -> str:
    """The first words of a body, fit for one line of a message."""
    if not body.strip():
        return "an empty body"
    text = " ".join(body[: 2 * _SHOWN].decode(errors="replace").split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= _SHOWN and len(body) <= 2 * _SHOWN else f"{text[:_SHOWN]}…"


def _whole(text: str | None) -> int | None:
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
