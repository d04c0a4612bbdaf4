"""What a fault can do to a request or a webhook delivery."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast, get_args

import attrs

from aifaceswap.emulator import _validators as validators

#: What `Status` says where no code is given; others say `error`.
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


@attrs.frozen
class Status:
    """Answer with an error of the API, in its envelope. The request has no effect.

    Attributes:
        status: 400 to 599.
        code: What fits the status unless given.
        message: For people.
        retry_after: The `Retry-After` header as it is sent: seconds, or any text such as a date.
    """

    status: int = attrs.field(validator=validators.integer(least=400, most=599))
    code: str | None = attrs.field(default=None, validator=validators.text(optional=True))
    message: str = attrs.field(default="A fault was asked for.", validator=validators.text())
    retry_after: float | str | None = attrs.field(default=None, validator=validators.retry_after)


@attrs.frozen
class Latency:
    """Answer late. The request has had its effect when the wait begins.

    Attributes:
        seconds: Of the event loop, as clients' timeouts are; the emulator's clock has no part.
    """

    seconds: float = attrs.field(validator=validators.number())


@attrs.frozen
class Stall:
    """Stop answering, until the client or the emulator gives up. The request has its effect.

    Attributes:
        after: What is sent before: `nothing`, or `half` of the response.
    """

    after: str = attrs.field(default="nothing", validator=validators.one_of("nothing", "half"))


@attrs.frozen
class Reset:
    """Reset the connection in place of a response.

    Attributes:
        commit: Whether the request has its effect.
    """

    commit: bool = attrs.field(default=True, validator=validators.yes_or_no)


@attrs.frozen
class Close:
    """Answer well, and close the connection when the next request has come over it.

    What a server does whose idle timeout ends while a request is on its way. That next request
    is not answered, has no effect and is not recorded.
    """


@attrs.frozen
class Truncate:
    """Close the connection within the body of the response. The request has its effect.

    Attributes:
        keep: The part of the body that is sent: from 0 up to, not including, 1.
    """

    keep: float = attrs.field(default=0.5, validator=validators.number(below=1.0))


@attrs.frozen
class Body:
    """Answer with another body: the page of a proxy unless given. The request has its effect.

    Attributes:
        text: The body, such as `{"id":`.
        content_type: Its `Content-Type`.
        status: None: that of the response.
    """

    text: str = attrs.field(default=_PROXYS_PAGE, validator=validators.text(empty=True, lines=True))
    content_type: str = attrs.field(default="text/html", validator=validators.header_value)
    status: int | None = attrs.field(
        default=None, validator=validators.integer(least=200, most=599, optional=True)
    )


@attrs.frozen
class Oversized:
    """Blow the response up with blanks, which leave its JSON valid. The request has its effect.

    Attributes:
        size: Bytes of the body at least.
    """

    size: int = attrs.field(default=64 * 1024 * 1024, validator=validators.integer(least=1))


def _to_tuple(names: Sequence[str]) -> tuple[str, ...]:
    # What is no list is left to the validator.
    return tuple(names) if isinstance(names, list) else cast("tuple[str, ...]", names)


@attrs.frozen
class Headers:
    """Answer with wrong headers, or without some. The request has its effect.

    Attributes:
        set: Headers that take the place of those of the same name.
        remove: Names of headers that are left out.
    """

    set: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=validators.headers)
    remove: tuple[str, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=validators.header_names
    )


@attrs.frozen
class ClockSkew:
    """Answer, or sign a delivery, as if the service's clock were wrong.

    Of a response it moves `Date`, `x-ratelimit-reset` and `created_at`; of a delivery the time of
    the signature and `created_at`. Nothing else in the emulator moves.

    Attributes:
        seconds: Greater than 0: ahead; less than 0: behind.
    """

    seconds: float = attrs.field(validator=validators.number(least=-1e9))


@attrs.frozen
class Duplicate:
    """Post the delivery twice, at once one after the other."""


@attrs.frozen
class Late:
    """Post the delivery later.

    Attributes:
        seconds: Of the emulator's clock.
    """

    seconds: float = attrs.field(validator=validators.number())


@attrs.frozen
class Reorder:
    """Hold the delivery back until another one has been attempted."""


@attrs.frozen
class BadSignature:
    """Sign the delivery with a key that is none."""


@attrs.frozen
class Drop:
    """Lose the delivery: it is not posted, and not tried again."""


RequestAction: TypeAlias = (
    Status | Latency | Stall | Reset | Close | Truncate | Body | Oversized | Headers | ClockSkew
)
WebhookAction: TypeAlias = Duplicate | Late | Reorder | BadSignature | Drop | ClockSkew
Action: TypeAlias = RequestAction | WebhookAction


def name_of(action: type[Any]) -> str:
    """What an action is called in files: `bad_signature` for `BadSignature`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", action.__name__).lower()


#: Every action by its name in files.
ACTIONS: Final[Mapping[str, type[Any]]] = {name_of(action): action for action in get_args(Action)}
