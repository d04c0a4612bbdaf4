"""Faults on demand: what goes wrong, with which request or delivery, and when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, get_args

import attrs

from aifaceswap.emulator._service import validators

if TYPE_CHECKING:
    from os import PathLike

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

_REQUESTS = re.compile(r"(?:[A-Z]+|\*) (?:/[!-~]*|\*)")
_EVENTS = ("swap.completed", "swap.failed")


@attrs.frozen
class Status:
    """Answer with an error of the API, in its envelope. The request has no effect.

    Attributes:
        status: 400 to 599.
        code: What fits the status unless given.
        message: For people.
        retry_after: The `Retry-After` header as it is sent: seconds, or any text such as a date.
    """

    status: int = attrs.field(validator=validators.whole(least=400, most=599))
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
        after: What is sent before: `nothing`, or `half` of the answer.
    """

    after: str = attrs.field(default="nothing", validator=validators.one_of("nothing", "half"))


@attrs.frozen
class Reset:
    """Reset the connection in place of an answer.

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
    """Close the connection within the body of the answer. The request has its effect.

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
        status: None: that of the answer.
    """

    text: str = attrs.field(default=_PROXYS_PAGE, validator=validators.text(empty=True, lines=True))
    content_type: str = attrs.field(default="text/html", validator=validators.header_value)
    status: int | None = attrs.field(
        default=None, validator=validators.whole(least=200, most=599, optional=True)
    )


@attrs.frozen
class Oversized:
    """Blow the answer up with blanks, which leave its JSON valid. The request has its effect.

    Attributes:
        size: Bytes of the body at least.
    """

    size: int = attrs.field(default=64 * 1024 * 1024, validator=validators.whole(least=1))


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

    Of an answer it moves `Date`, `x-ratelimit-reset` and `created_at`; of a delivery the time of
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


def _check_match(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a str, not {value!r}")
    if is_for_webhooks(value):
        pattern = compile_match(value)
        known = any(pattern.fullmatch(f"webhook {event}") for event in _EVENTS)
    else:
        known = value == "*" or _REQUESTS.fullmatch(value) is not None
    if not known:
        raise ValueError(
            f"{attribute.name} must be such as 'POST /swaps', 'GET /swaps/*', '*', 'webhook' or "
            f"'webhook swap.completed', not {value!r}"
        )


def _check_action(fault: Fault, attribute: attrs.Attribute[Action], value: object) -> None:
    kind, fitting = ("a request", get_args(RequestAction))
    if is_for_webhooks(fault.match):
        kind, fitting = ("a webhook", get_args(WebhookAction))
    if not isinstance(value, fitting):
        names = ", ".join(action.__name__ for action in fitting)
        raise ValueError(  # noqa: TRY004 (also for an action of the other kind)
            f"{attribute.name} must be for {kind}, as match={fault.match!r} is: one of {names}; "
            f"not {value!r}"
        )


def _default_times(fault: Fault) -> int | None:
    return 1 if fault.rate is None else None


@attrs.frozen
class Fault:
    """Something that goes wrong, with some requests or webhook deliveries.

    Several faults are a script: each counts every request that it matches, and of those that
    are due the first in the list strikes. So three faults with the same `match`, once each, strike
    the first, the second and the third request.

    Attributes:
        match: Method and path, such as `POST /swaps` or `GET /swaps/*`, the path as it follows
            `/api/v1` or, elsewhere, whole; `*` stands for anything, alone for every request.
            `webhook`, `webhook swap.completed` or `webhook swap.failed`: attempts of deliveries.
        do: What happens.
        nth: From which matching request on: 1 is the first.
        rate: The chance of each, from 0 to 1, drawn from the emulator's seed; None: always.
        times: How often at most; None: for ever. 1 unless given, or for ever with a `rate`.
    """

    match: str = attrs.field(validator=_check_match)
    do: Action = attrs.field(validator=_check_action)
    nth: int = attrs.field(default=1, kw_only=True, validator=validators.whole(least=1))
    rate: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.number(most=1.0, optional=True)
    )
    times: int | None = attrs.field(
        default=attrs.Factory(_default_times, takes_self=True),
        kw_only=True,
        validator=validators.whole(least=1, optional=True),
    )


@attrs.frozen
class FaultRecord:
    """A fault and what became of it so far.

    Attributes:
        number: What `remove_fault()` knows it by.
        fault: As it was added.
        seen: How many requests or attempts it has matched.
        struck: How often it has struck.
    """

    number: int
    fault: Fault
    seen: int
    struck: int


def is_for_webhooks(match: str) -> bool:
    """Whether `match` is about deliveries."""
    return match == "webhook" or match.startswith("webhook ")


def compile_match(match: str) -> re.Pattern[str]:
    """The pattern for `POST /swaps` and the like."""
    whole = f"{match} *" if match == "webhook" else match
    return re.compile(re.escape(whole).replace(r"\*", ".*"), re.DOTALL)


def load(path: str | PathLike[str]) -> tuple[Fault, ...]:
    """Read faults from a TOML file of `[[fault]]` tables.

    Such as:

        [[fault]]
        match = "POST /swaps"
        nth = 3
        do = { action = "status", status = 503, retry_after = 2 }

    Args:
        path: The file.

    Returns:
        The faults, in order.

    Raises:
        ValueError: It is no such file; the message names the line and the field.
        OSError: It cannot be read.
    """
    from aifaceswap.emulator._documents import read_script  # noqa: PLC0415 - loads cattrs

    return read_script(Path(path).read_bytes(), str(path))
