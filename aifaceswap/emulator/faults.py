"""Faults on demand: what goes wrong, with which request or delivery, and when."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import attrs

from aifaceswap.emulator import _validators as validators
from aifaceswap.emulator._actions import (
    ACTIONS,
    Action,
    BadSignature,
    Body,
    ByteOrderMark,
    ChangePrices,
    ClockSkew,
    Close,
    CloudflarePage,
    Drop,
    Duplicate,
    Fail,
    Headers,
    Late,
    Latency,
    OddFields,
    Oversized,
    Reorder,
    RequestAction,
    Reset,
    RevokeKey,
    Stall,
    Status,
    Stuck,
    Truncate,
    WebhookAction,
)

if TYPE_CHECKING:
    from os import PathLike

__all__ = [
    "ACTIONS",
    "Action",
    "BadSignature",
    "Body",
    "ByteOrderMark",
    "ChangePrices",
    "ClockSkew",
    "Close",
    "CloudflarePage",
    "Drop",
    "Duplicate",
    "Fail",
    "Fault",
    "FaultRecord",
    "Headers",
    "Late",
    "Latency",
    "OddFields",
    "Oversized",
    "Reorder",
    "RequestAction",
    "Reset",
    "RevokeKey",
    "Stall",
    "Status",
    "Stuck",
    "Truncate",
    "WebhookAction",
    "load",
]

_REQUESTS = re.compile(r"(?:[A-Z]+|\*) (?:/[!-~]*|\*)")
_EVENTS = ("swap.completed", "swap.failed")


def _check_match(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a str; got {value!r}")
    if is_for_webhooks(value):
        known = any(fits(value, f"webhook {event}") for event in _EVENTS)
    else:
        known = value == "*" or _REQUESTS.fullmatch(value) is not None
    if not known:
        raise ValueError(
            f"{attribute.name} must be such as 'POST /swaps', 'GET /swaps/*', '*', 'webhook' or "
            f"'webhook swap.completed'; got {value!r}"
        )


def _check_action(fault: Fault, attribute: attrs.Attribute[Action], value: object) -> None:
    kind, fitting = ("a request", get_args(RequestAction))
    if is_for_webhooks(fault.match):
        kind, fitting = ("a webhook", get_args(WebhookAction))
    if not isinstance(value, fitting):
        names = ", ".join(action.__name__ for action in fitting)
        raise ValueError(  # noqa: TRY004 (also for an action of the other kind)
            f"{attribute.name} must be for {kind}, as match={fault.match!r} is: one of {names}; "
            f"got {value!r}"
        )


def _default_times(fault: Fault) -> int | None:
    return 1 if fault.rate is None else None


@attrs.frozen
class Fault:
    """Something that goes wrong, with some requests or webhook deliveries.

    Several faults are a script: each counts every request that it matches, and of those that
    are due the first in the list applies. So three faults with the same `match`, once each,
    apply to the first, the second and the third request.

    Attributes:
        match: Method and path, such as `POST /swaps` or `GET /swaps/*`, the path as it follows
            `/api/v1` or, elsewhere, complete; `*` stands for anything, alone for every request.
            `webhook`, `webhook swap.completed` or `webhook swap.failed`: attempts of deliveries.
        do: What happens.
        nth: From which matching request on: 1 is the first.
        rate: The chance of each, from 0 to 1, drawn from the emulator's seed; None: always.
        times: Maximum number of times; None: no maximum. Default: 1, or no maximum with a `rate`.
    """

    match: str = attrs.field(validator=_check_match)
    do: Action = attrs.field(validator=_check_action)
    nth: int = attrs.field(default=1, kw_only=True, validator=validators.integer(least=1))
    rate: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.number(most=1.0, optional=True)
    )
    times: int | None = attrs.field(
        default=attrs.Factory(_default_times, takes_self=True),
        kw_only=True,
        validator=validators.integer(least=1, optional=True),
    )


@attrs.frozen
class FaultRecord:
    """A fault and what became of it so far.

    Attributes:
        number: What `remove_fault()` knows it by.
        fault: As it was added.
        seen: How many requests or attempts it has matched.
        applied: How often it was applied.
    """

    number: int
    fault: Fault
    seen: int
    applied: int


def is_for_webhooks(match: str) -> bool:
    """Whether `match` is about deliveries."""
    return match == "webhook" or match.startswith("webhook ")


def fits(match: str, subject: str) -> bool:
    """Whether `match`, in which `*` stands for anything, describes `subject`. Takes linear time."""
    first, *others = (f"{match} *" if match == "webhook" else match).split("*")
    if not others:
        return subject == first
    *middle, last = others
    if not subject.startswith(first) or len(subject) < len(first) + len(last):
        return False
    place, end = len(first), len(subject) - len(last)
    for part in middle:
        # The first place where it fits leaves most to the others: no need to try another.
        place = subject.find(part, place, end) + len(part)
        if place < len(part):
            return False
    return subject.endswith(last)


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
        ValueError: It is not such a file; the message names the field.
        OSError: It cannot be read.
    """
    from aifaceswap.emulator._documents import read_toml  # noqa: PLC0415 - loads cattrs

    return tuple(read_toml(Path(path).read_bytes(), Script, str(path)).fault)


@attrs.frozen
class Script:
    fault: list[Fault] = attrs.field(factory=list[Fault])
