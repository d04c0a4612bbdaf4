"""What `/_emulator/` shows: the emulator's records as JSON has them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import attrs

from aifaceswap.emulator._actions import name_of
from aifaceswap.emulator.limits import Limits
from aifaceswap.emulator.settings import Idempotency, Lag, ResultLinks

if TYPE_CHECKING:
    from collections.abc import Collection

    from aifaceswap.emulator._service.api import Api
    from aifaceswap.emulator._service.delivery_queue import DeliveryRecord
    from aifaceswap.emulator._service.records import RequestRecord
    from aifaceswap.emulator._service.state import KeyAccount, StoredSwap
    from aifaceswap.emulator.faults import Action, Fault, FaultRecord
    from aifaceswap.emulator.settings import Settings


def show_action(action: Action | None) -> dict[str, Any] | None:
    """An action as files have it."""
    return None if action is None else {"action": name_of(type(action)), **attrs.asdict(action)}


def show_fault(record: FaultRecord) -> dict[str, Any]:
    """A fault as files have it, with its number and its counters."""
    return {
        "number": record.number,
        **describe_fault(record.fault),
        "seen": record.seen,
        "applied": record.applied,
    }


def describe_fault(fault: Fault) -> dict[str, Any]:
    """A fault as files have it."""
    return {**attrs.asdict(fault, recurse=False), "do": show_action(fault.do)}


def show_request(record: RequestRecord, keys: Collection[str]) -> dict[str, Any]:
    """A request; an Authorization that names none of our keys may be real, and is left out."""

    def show(name: str, value: str) -> str:
        secret = name.lower() == "authorization" and value.removeprefix("Bearer ") not in keys
        return "…" if secret else value

    return {
        **attrs.asdict(record, recurse=False),
        "fault": show_action(record.fault),
        "headers": [[name, show(name, value)] for name, value in record.headers],
        "body": record.body.decode(errors="replace"),
    }


def show_swap(api: Api, swap: StoredSwap, now: float, origin: str) -> dict[str, Any]:
    """A swap as the API shows it, and what only the emulator knows of it."""
    return {
        **api.view(swap, now, origin),
        "api_key": swap.owner.api_key,
        "source_url": swap.params.source_url,
        "target_url": swap.params.target_url,
        "idempotency_key": swap.key,
        "finishes_at": swap.finish if swap.finish < math.inf else None,
    }


def show_delivery(record: DeliveryRecord) -> dict[str, Any]:
    """A webhook delivery with its attempts."""
    attempts = [
        {**attrs.asdict(attempt, recurse=False), "fault": show_action(attempt.fault)}
        for attempt in record.attempts
    ]
    body = record.body.decode(errors="replace")
    return {**attrs.asdict(record, recurse=False), "body": body, "attempts": attempts}


def show_account(account: KeyAccount, now: float) -> dict[str, Any]:
    """An API key with its counters; the emulator's keys are not secret."""
    meter = account.meter
    meter.forget(now)
    return {
        "api_key": account.api_key,
        "live": account.live,
        "limits": attrs.asdict(meter.limits),
        "in_window": len(meter.recent),
        "today": meter.today,
        "unfinished": len(account.unfinished),
        "swaps": len(account.swaps),
    }


def show_settings(settings: Settings) -> dict[str, Any]:
    """The settings in effect, as files have them; a receiver in the process by its repr."""

    def show(value: Any) -> Any:
        if isinstance(value, Limits | Idempotency | Lag | ResultLinks):
            return attrs.asdict(value)
        is_json = value is None or isinstance(value, str | float | int | dict)
        return cast("Any", value) if is_json else repr(cast("object", value))

    return {name: show(value) for name, value in settings.items()}
