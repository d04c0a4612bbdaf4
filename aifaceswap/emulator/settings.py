"""Settings of the emulator for behaviour that the API's documents leave open."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from aifaceswap.emulator import _validators as validators
from aifaceswap.emulator.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    from aifaceswap.emulator._server.receivers import Receiver
    from aifaceswap.emulator.faults import Fault

    class Settings(TypedDict, total=False):
        """The settings of an `Emulator` that can change while it runs."""

        faults: Sequence[Fault]
        credits: float
        limits: Limits | None
        duration: float
        spread: float
        deliver_to: str | Receiver | None
        idempotency: Idempotency
        lag: Lag
        prices: Mapping[str, float]
        result_ttl: float
        result_links: ResultLinks


#: The settings, without the faults, that can change while the emulator runs.
CHANGEABLE: Final = (
    *("credits", "limits", "duration", "spread", "deliver_to", "idempotency", "lag", "prices"),
    *("result_ttl", "result_links"),
)

#: Credits for each type of swap.
PRICES: Final[Mapping[str, float]] = MappingProxyType({"image": 1, "gif": 2})


@attrs.frozen
class Idempotency:
    """How the API treats a request whose idempotency key it has seen before.

    Attributes:
        in_progress: Seconds during which a repeated key gets 409 `idempotency_in_progress`, as if
            its first request were still in progress; 0 or more.
        reuse_status: Status for a key that is sent again with another body: 409 or 422.
        forget_after: Seconds after which a key is forgotten, so that it creates another swap;
            greater than 0. None: never.
    """

    in_progress: float = attrs.field(default=0.0, validator=validators.number())
    reuse_status: int = attrs.field(default=409, validator=validators.one_of(409, 422))
    forget_after: float | None = attrs.field(
        default=None, validator=validators.number(above=0.0, optional=True)
    )


@attrs.frozen
class Lag:
    """How far reads are behind writes: they show the swaps as they were some seconds ago.

    A swap that is younger than the lag is missing: 404, or not in the list.

    Attributes:
        get: Seconds that `GET /swaps/{id}` is behind, 0 or more.
        list: Seconds that `GET /swaps` is behind, 0 or more.
    """

    get: float = attrs.field(default=0.0, validator=validators.number())
    list: float = attrs.field(default=0.0, validator=validators.number())


@attrs.frozen
class ResultLinks:
    """What a `result_url` is like.

    Attributes:
        suffix: `.jpg`, `.jpeg`, `.img` or `.gif`. None: the one that fits the type.
        presigned: Whether links look like those of an S3 bucket, and errors are XML.
        expired_status: Status of an expired link: 400, 401, 403, 404 or 410.
        origin: Scheme and host of the links, such as `https://cdn.example.com`. None: where the
            client reached the emulator.
    """

    suffix: str | None = attrs.field(
        default=None, validator=validators.one_of(None, ".jpg", ".jpeg", ".img", ".gif")
    )
    presigned: bool = attrs.field(default=False, validator=validators.boolean)
    expired_status: int = attrs.field(
        default=403, validator=validators.one_of(400, 401, 403, 404, 410)
    )
    origin: str | None = attrs.field(default=None, validator=validators.origin)


def to_faults(given: Sequence[Fault]) -> tuple[Fault, ...]:
    """Turn a list into a tuple; the validator rejects everything else."""
    return tuple(given) if isinstance(given, list) else cast("tuple[Fault, ...]", given)


def to_limits(given: Limits | None) -> Limits:
    """Turn None into limits that are all off."""
    return Limits(per_minute=None, per_day=None, concurrent=None) if given is None else given


def to_prices(given: Mapping[str, float]) -> Mapping[str, float]:
    """Add the default prices for the types that are not named."""
    return {**PRICES, **given} if isinstance(cast("object", given), Mapping) else given


def check_prices(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Validate credits by type."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name} must be a dict such as {{'image': 1}}; got {value!r}")
    for kind, price in cast("Mapping[object, object]", value).items():
        if kind not in PRICES:
            wanted = " or ".join(map(repr, PRICES))
            raise ValueError(f"{attribute.name} must name the types {wanted}; got {kind!r}")
        if validators.require_number(f"{attribute.name}[{kind!r}]", price) < 0:
            raise ValueError(f"{attribute.name}[{kind!r}] must be 0 or more; got {price!r}")
