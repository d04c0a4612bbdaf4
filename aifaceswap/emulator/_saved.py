"""The emulator's state as a JSON file: what is written, and how it comes alive again."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from aifaceswap.emulator._documents import FieldError, read_json, report_json, unstructure
from aifaceswap.emulator._service import scenarios, schema, validators
from aifaceswap.emulator._service.delivery_queue import Delivery, DeliveryAttempt
from aifaceswap.emulator._service.errors import Problem, Refused
from aifaceswap.emulator._service.state import Account, Remembered, Swap
from aifaceswap.emulator.clock import TICK
from aifaceswap.emulator.limits import Limits, Meter

if TYPE_CHECKING:
    from aifaceswap.emulator._service.api import Api

VERSION: Final = 1

_ID = re.compile(r"[A-Za-z0-9._~-]{1,100}")
_COUNT = validators.whole(least=0, most=2**53)


def _check_id(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _ID.fullmatch(value):
        raise ValueError(f"{attribute.name} must be an id such as 'tsk_1', not {value!r}")


@attrs.frozen(kw_only=True)
class SavedSwap:
    """One swap; what follows from its file names is not written."""

    id: str = attrs.field(validator=_check_id)
    api_key: str
    type: str
    source_url: str
    target_url: str
    webhook_url: str | None = None
    target_face_index: int | None = None
    enable_face_enhancer: bool | None = None
    metadata: dict[str, Any] | None = None
    idempotency_key: str | None = None
    credit_cost: int = attrs.field(validator=_COUNT)
    created_at: float = attrs.field(validator=validators.number())
    duration: float = attrs.field(validator=validators.number())
    origin: str | None = None


@attrs.frozen(kw_only=True)
class SavedRefusal:
    """A refusal that its idempotency key repeats."""

    idempotency_key: str
    request: dict[str, Any]
    status: int = attrs.field(validator=validators.whole(least=400, most=599))
    code: str
    message: str


@attrs.frozen(kw_only=True)
class SavedKey:
    """One API key; the emulator's are no secrets, and stand in the file."""

    api_key: str = attrs.field(validator=validators.bearer_token, repr=False)
    live: bool = True
    limits: Limits = attrs.field(factory=Limits)
    recent: list[float] = attrs.field(factory=list[float])
    day: int = attrs.field(default=0, validator=_COUNT)
    today: int = attrs.field(default=0, validator=_COUNT)
    refusals: list[SavedRefusal] = attrs.field(factory=list[SavedRefusal])


@attrs.frozen(kw_only=True)
class SavedAttempt:
    """One POST of a delivery."""

    at: float
    status: int | None = None
    error: str | None = None


@attrs.frozen(kw_only=True)
class SavedDelivery:
    """A delivery that has begun."""

    id: str = attrs.field(validator=_check_id)
    swap_id: str
    state: str = attrs.field(
        validator=validators.one_of("pending", "delivered", "failed", "undeliverable", "dropped")
    )
    body: str = ""
    due: float | None = None
    attempts: list[SavedAttempt] = attrs.field(factory=list[SavedAttempt])


@attrs.frozen(kw_only=True)
class SavedState:
    """Everything that a file holds.

    Attributes:
        version: Of the form of the file.
        now: The time when it was written, in unix seconds.
        requests: How many requests have been answered.
        begun: How many deliveries have come due.
        planned: The ids of swaps whose delivery has not come due.
    """

    version: int
    now: float = attrs.field(validator=validators.number())
    seed: int = attrs.field(default=0, validator=validators.whole(least=0, most=2**63 - 1))
    credits: float = attrs.field(validator=validators.number())
    requests: int = attrs.field(default=0, validator=_COUNT)
    begun: int = attrs.field(default=0, validator=_COUNT)
    keys: list[SavedKey]
    swaps: list[SavedSwap] = attrs.field(factory=list[SavedSwap])
    planned: list[str] = attrs.field(factory=list[str])
    deliveries: list[SavedDelivery] = attrs.field(factory=list[SavedDelivery])


# --- writing -------------------------------------------------------------------------------


def dump(api: Api, now: float) -> bytes:
    """The state as JSON, one swap a line."""
    with api.lock:
        value: dict[str, Any] = unstructure(_take(api, now))
    members = (f' "{name}": {_lines(member)}' for name, member in value.items())
    return ("{\n" + ",\n".join(members) + "\n}\n").encode()


def _lines(member: object) -> str:
    if not isinstance(member, list) or not member:
        return json.dumps(member)
    items = (f"  {json.dumps(item)}" for item in cast("list[object]", member))
    return "[\n" + ",\n".join(items) + "\n ]"


def write(path: Path, content: bytes) -> None:
    """Put the file there whole, or leave what is there.

    Raises:
        OSError: It cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _take(api: Api, now: float) -> SavedState:
    state, outbox = api.state, api.outbox
    state.settle(now)
    return SavedState(
        version=VERSION,
        now=now,
        seed=state.seed,
        credits=state.credits,
        requests=api.served,
        begun=outbox.begun,
        keys=list(map(_take_key, state.accounts.values())),
        swaps=list(map(_take_swap, state.swaps)),
        planned=[swap.id for swap in outbox.planned()],
        deliveries=[_take_delivery(delivery, now) for delivery in outbox.deliveries],
    )


def _take_key(account: Account) -> SavedKey:
    meter = account.meter
    refusals = [
        SavedRefusal(
            idempotency_key=key,
            request=attrs.asdict(reply.params),
            status=reply.problem.status,
            code=reply.problem.code,
            message=reply.problem.message,
        )
        for key, reply in account.replies.items()
        if isinstance(reply, Remembered)
    ]
    return SavedKey(
        api_key=account.api_key,
        live=account.live,
        limits=meter.limits,
        recent=list(meter.recent),
        day=meter.day,
        today=meter.today,
        refusals=refusals,
    )


def _take_swap(swap: Swap) -> SavedSwap:
    params = swap.params
    return SavedSwap(
        id=swap.id,
        api_key=swap.owner.api_key,
        type=params.type,
        source_url=params.source_url,
        target_url=params.target_url,
        webhook_url=params.webhook_url,
        target_face_index=params.target_face_index,
        enable_face_enhancer=params.enable_face_enhancer,
        metadata=params.metadata,
        idempotency_key=swap.key,
        credit_cost=swap.cost,
        created_at=swap.created,
        duration=swap.duration,
        origin=swap.origin,
    )


def _take_delivery(delivery: Delivery, now: float) -> SavedDelivery:
    due = delivery.due
    if delivery.state == "pending" and due == math.inf:
        due = now  # an attempt is under way, or held back: it is made anew
    return SavedDelivery(
        id=delivery.id,
        swap_id=delivery.swap.id,
        state=delivery.state,
        body=delivery.body.decode(),
        due=None if due == math.inf else due,
        attempts=[
            SavedAttempt(at=attempt.at, status=attempt.status, error=attempt.error)
            for attempt in delivery.attempts
        ],
    )


# --- reading -------------------------------------------------------------------------------


def read(content: bytes, name: str) -> SavedState:
    """The state that a file holds.

    Raises:
        ValueError: It is damaged; the message begins with `name`, and names line and field.
    """
    return read_json(content, SavedState, name, _check_version)


def _check_version(value: object) -> None:
    if not isinstance(value, dict):
        return
    version = cast("dict[str, object]", value).get("version", VERSION)
    if version != VERSION:
        raise FieldError(("version",), f"must be {VERSION} for this release, not {version!r}")


def restore(api: Api, saved: SavedState, content: bytes, name: str) -> None:
    """Fill a fresh API with what a file held.

    Raises:
        ValueError: Its parts do not fit together; the message names line and field.
    """
    try:
        _fill(api, saved)
    except FieldError as error:
        raise report_json(error, content.decode(), name) from None


def _fill(api: Api, saved: SavedState) -> None:
    state, outbox = api.state, api.outbox
    state.credits = saved.credits
    state.accounts.clear()
    for place, key in enumerate(saved.keys):
        if key.api_key in state.accounts:
            raise FieldError(("keys", place, "api_key"), "is there twice")
        state.accounts[key.api_key] = _restore_key(key, place)
    for place, swap in enumerate(saved.swaps):
        if swap.api_key not in state.accounts:
            raise FieldError(("swaps", place, "api_key"), "is none of the keys")
        if state.find(swap.id) is not None:
            raise FieldError(("swaps", place, "id"), f"{swap.id} is there twice")
        restored = _restore_swap(swap, place, state.accounts[swap.api_key])
        state.adopt(restored, unfinished=restored.finish > saved.now + TICK)
    api.served = saved.requests
    outbox.begun = saved.begun
    for place, swap_id in enumerate(saved.planned):
        outbox.add(_find(api, swap_id, ("planned", place)))
    for place, delivery in enumerate(saved.deliveries):
        owner = _find(api, delivery.swap_id, ("deliveries", place, "swap_id"))
        outbox.adopt(_restore_delivery(delivery, owner), delivery.due)


def _find(api: Api, swap_id: str, place: tuple[str | int, ...]) -> Swap:
    swap = api.state.find(swap_id)
    if swap is None:
        raise FieldError(place, f"{swap_id} is none of the swaps")
    return swap


def _restore_key(saved: SavedKey, place: int) -> Account:
    meter = Meter(saved.limits)
    meter.recent.extend(saved.recent)
    meter.day, meter.today = saved.day, saved.today
    account = Account(saved.api_key, meter, saved.live)
    for number, refusal in enumerate(saved.refusals):
        path = ("keys", place, "refusals", number, "request")
        params = _read_params(refusal.request, path)
        problem = Problem(refusal.status, refusal.code, refusal.message)
        account.replies[refusal.idempotency_key] = Remembered(params, problem)
    return account


def _read_params(value: object, path: tuple[str | int, ...]) -> schema.SwapParams:
    try:
        return schema.read_swap(value)
    except Refused as refused:
        # Every one begins with its field, since what is read is an object.
        field, _, message = refused.problem.message.rstrip(".").partition(": ")
        raise FieldError((*path, field), message) from None


def _restore_swap(saved: SavedSwap, place: int, owner: Account) -> Swap:
    return Swap(
        id=saved.id,
        number=place,
        owner=owner,
        params=_read_params(attrs.asdict(saved, recurse=False), ("swaps", place)),
        key=saved.idempotency_key,
        life=scenarios.find_life((saved.source_url, saved.target_url)),
        cost=saved.credit_cost,
        created=saved.created_at,
        duration=saved.duration,
        origin=saved.origin,
    )


def _restore_delivery(saved: SavedDelivery, swap: Swap) -> Delivery:
    delivery = Delivery(saved.id, swap, None, saved.state, saved.body.encode())
    delivery.attempts.extend(
        DeliveryAttempt(attempt.at, (), attempt.status, attempt.error) for attempt in saved.attempts
    )
    return delivery
