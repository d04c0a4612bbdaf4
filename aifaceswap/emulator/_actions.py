"""What a fault can do to a request or a webhook delivery."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast, get_args

import attrs

from aifaceswap.emulator import _validators as validators

#: The code of a `Status` without one; other statuses get `error`.
CODES: Final = {
    400: "validation_error",
    401: "invalid_api_key",
    402: "insufficient_credits",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "idempotency_conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "nsfw_content_detected",
    429: "rate_limited",
    500: "internal_error",
    503: "api_temporarily_disabled",
}

_PROXYS_PAGE = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>\n"

#: The optional fields of a swap, each with a value of an unexpected type.
_ODD_FIELDS: Final[Mapping[str, Any]] = {
    "credit_cost": "one",
    "progress": "half",
    "created_at": 1_767_225_600,
    "error": ["unknown"],
    "metadata": "none",
    "webhook_url": {"url": "https://shop.example.com/hooks/swap"},
}


@attrs.frozen
class Status:
    """Return an error of the API, in its envelope.

    Attributes:
        status: 400 to 599.
        code: None: the code that fits the status.
        message: The text for people.
        retry_after: The `Retry-After` header: seconds (0 or more), or any text such as a date.
            None: 1 with a status of 429, no header with any other.
        commit: Whether the request is carried out before its response is replaced.
    """

    status: int = attrs.field(validator=validators.integer(least=400, most=599))
    code: str | None = attrs.field(default=None, validator=validators.text(optional=True))
    message: str = attrs.field(default="Injected fault.", validator=validators.text())
    retry_after: float | str | None = attrs.field(default=None, validator=validators.retry_after)
    commit: bool = attrs.field(default=False, validator=validators.boolean)


@attrs.frozen
class CloudflarePage:
    """Return a page of Cloudflare: HTML, a `cf-ray` header and none of the API's headers.

    Attributes:
        status: 520 to 530; 403 or 503 for a challenge; 429 for Cloudflare's own rate limit.
        retry_after: The `Retry-After` header: seconds (0 or more), or any text. None: no header.
        commit: Whether the request is carried out before its response is replaced.
    """

    status: int = attrs.field(
        default=524, validator=validators.one_of(*range(520, 531), 403, 429, 503)
    )
    retry_after: float | str | None = attrs.field(default=None, validator=validators.retry_after)
    commit: bool = attrs.field(default=True, validator=validators.boolean)


@attrs.frozen
class Latency:
    """Respond late. The request is carried out before the wait.

    Attributes:
        seconds: Seconds of the event loop, as for timeouts of clients; the emulator's clock does
            not matter.
    """

    seconds: float = attrs.field(validator=validators.number())


@attrs.frozen
class Stall:
    """Stop responding, until the client closes the connection or the emulator is reset or stopped.

    Attributes:
        after: What is sent before: `nothing`, or `half` of the response.
        commit: Whether the request is carried out.
    """

    after: str = attrs.field(default="nothing", validator=validators.one_of("nothing", "half"))
    commit: bool = attrs.field(default=True, validator=validators.boolean)


@attrs.frozen
class Reset:
    """Reset the connection instead of responding.

    Attributes:
        commit: Whether the request is carried out.
    """

    commit: bool = attrs.field(default=True, validator=validators.boolean)


@attrs.frozen
class Close:
    """Respond normally, and close the connection when the next request arrives on it.

    This is what a server does whose idle timeout ends while a request is on its way. That next
    request gets no response, has no effect and is not recorded.
    """


@attrs.frozen
class Truncate:
    """Close the connection within the body of the response. The request is carried out.

    Attributes:
        keep: The part of the body that is sent, 0 or more and less than 1.
    """

    keep: float = attrs.field(default=0.5, validator=validators.number(below=1.0))


@attrs.frozen
class Body:
    """Respond with another body, by default the page of a proxy.

    Attributes:
        text: The body, such as `{"id":`.
        content_type: Its `Content-Type`.
        status: 200 to 599. None: the status of the response, or 502 without `commit`.
        commit: Whether the request is carried out.
    """

    text: str = attrs.field(default=_PROXYS_PAGE, validator=validators.text(empty=True, lines=True))
    content_type: str = attrs.field(default="text/html", validator=validators.header_value)
    status: int | None = attrs.field(
        default=None, validator=validators.integer(least=200, most=599, optional=True)
    )
    commit: bool = attrs.field(default=True, validator=validators.boolean)


@attrs.frozen
class Oversized:
    """Append blanks to the response, which leave its JSON valid. The request is carried out.

    Attributes:
        size: The minimum size of the body in bytes.
    """

    size: int = attrs.field(default=64 * 1024 * 1024, validator=validators.integer(least=1))


@attrs.frozen
class ByteOrderMark:
    """Put a UTF-8 byte-order mark before the body. The request is carried out."""


def _to_tuple(names: Sequence[str]) -> tuple[str, ...]:
    # The validator rejects everything else.
    return tuple(names) if isinstance(names, list) else cast("tuple[str, ...]", names)


@attrs.frozen
class OddFields:
    """Give fields of each swap an unexpected type or leave them out, in a response or a delivery.

    Attributes:
        set: Fields and their JSON values. The default replaces every optional field.
        remove: Names of fields to leave out.
    """

    set: Mapping[str, Any] = attrs.field(
        factory=lambda: dict(_ODD_FIELDS), validator=validators.json_object
    )
    remove: tuple[str, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=validators.names
    )


@attrs.frozen
class Headers:
    """Respond with wrong or missing headers. The request is carried out.

    Attributes:
        set: Headers that replace those of the same name.
        remove: Names of headers to leave out.
    """

    set: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=validators.headers)
    remove: tuple[str, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=validators.header_names
    )


@attrs.frozen
class ClockSkew:
    """Respond, or sign a delivery, as if the API's clock were wrong.

    In a response this changes `Date`, `x-ratelimit-reset` and `created_at`; in a delivery the time
    of the signature and `created_at`. Nothing else in the emulator changes.

    Attributes:
        seconds: Greater than 0: ahead; less than 0: behind.
    """

    seconds: float = attrs.field(validator=validators.number(least=-1e9))


@attrs.frozen
class Stuck:
    """Create a swap that never finishes and keeps its slot. For `POST /swaps`.

    Attributes:
        status: The status it stays in: `queued`, `preparing` or `processing`.
    """

    status: str = attrs.field(
        default="processing", validator=validators.one_of("queued", "preparing", "processing")
    )


@attrs.frozen
class Fail:
    """Create a swap that finishes as `failed`. For `POST /swaps`.

    Attributes:
        error: The `error` of the swap: an object, a text, or None for no reason.
    """

    error: Mapping[str, Any] | str | None = attrs.field(
        default=None, validator=validators.json_error
    )


@attrs.frozen
class RevokeKey:
    """Revoke the API key of the request: this request and all later ones get `invalid_api_key`."""


@attrs.frozen
class ChangePrices:
    """Change the prices, from this request on.

    Attributes:
        image: Credits for an image, 0 or more. None: unchanged.
        gif: Credits for a GIF, 0 or more. None: unchanged.
    """

    image: float | None = attrs.field(default=None, validator=validators.number(optional=True))
    gif: float | None = attrs.field(default=None, validator=validators.number(optional=True))


@attrs.frozen
class Duplicate:
    """Post the delivery twice, immediately one after the other."""


@attrs.frozen
class Late:
    """Post the delivery later.

    Attributes:
        seconds: Seconds of the emulator's clock.
    """

    seconds: float = attrs.field(validator=validators.number())


@attrs.frozen
class Reorder:
    """Hold the delivery back until another one has been attempted."""


@attrs.frozen
class BadSignature:
    """Sign the delivery with an unknown key."""


@attrs.frozen
class Drop:
    """Lose the delivery: it is not posted, and not retried."""


RequestAction: TypeAlias = (
    Status
    | CloudflarePage
    | Latency
    | Stall
    | Reset
    | Close
    | Truncate
    | Body
    | Oversized
    | ByteOrderMark
    | OddFields
    | Headers
    | ClockSkew
    | Stuck
    | Fail
    | RevokeKey
    | ChangePrices
)
WebhookAction: TypeAlias = Duplicate | Late | Reorder | BadSignature | Drop | OddFields | ClockSkew
Action: TypeAlias = RequestAction | WebhookAction


def name_of(action: type[Any]) -> str:
    """Return the name of an action in files: `bad_signature` for `BadSignature`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", action.__name__).lower()


#: Every action by its name in files.
ACTIONS: Final[Mapping[str, type[Any]]] = {name_of(action): action for action in get_args(Action)}
