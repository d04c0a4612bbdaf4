"""Decides which fault applies when. No I/O; chance comes from the seed alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs

from aifaceswap.emulator._service import ids
from aifaceswap.emulator.faults import FaultRecord, fits, is_for_webhooks

if TYPE_CHECKING:
    from aifaceswap.emulator.faults import Action, Fault, RequestAction, WebhookAction


@attrs.define(eq=False)
class Armed:
    """A fault and its counters."""

    number: int
    fault: Fault
    seen: int = 0
    applied: int = 0


@attrs.define(eq=False)
class FaultInjector:
    """The faults that are switched on, in the order in which they were added."""

    seed: int
    requests: list[Armed] = attrs.field(factory=list[Armed], init=False)
    webhooks: list[Armed] = attrs.field(factory=list[Armed], init=False)
    _added: int = attrs.field(default=0, init=False)

    def add(self, fault: Fault) -> int:
        """Add a fault and return its number."""
        armed = Armed(self._added, fault)
        (self.webhooks if is_for_webhooks(fault.match) else self.requests).append(armed)
        self._added += 1
        return armed.number

    def remove(self, number: int) -> None:
        """Remove a fault; may raise `KeyError`."""
        for faults in (self.requests, self.webhooks):
            for armed in faults:
                if armed.number == number:
                    faults.remove(armed)
                    return
        raise KeyError(number)

    def clear(self) -> None:
        """Switch all faults off."""
        self.requests.clear()
        self.webhooks.clear()

    def records(self) -> list[FaultRecord]:
        """Every fault and what became of it so far."""
        every = sorted(self.requests + self.webhooks, key=lambda armed: armed.number)
        return [FaultRecord(each.number, each.fault, each.seen, each.applied) for each in every]

    def strike_request(self, method: str, path: str) -> RequestAction | None:
        """What happens to this request; the path is as faults have it."""
        return cast("RequestAction | None", self._strike(self.requests, f"{method} {path}"))

    def strike_webhook(self, event: str) -> WebhookAction | None:
        """What happens to this attempt of a delivery."""
        return cast("WebhookAction | None", self._strike(self.webhooks, f"webhook {event}"))

    def _strike(self, faults: list[Armed], subject: str) -> Action | None:
        matching = [armed for armed in faults if fits(armed.fault.match, subject)]
        for armed in matching:
            armed.seen += 1
        for armed in matching:
            if self._is_due(armed):
                armed.applied += 1
                return armed.fault.do
        return None

    def _is_due(self, armed: Armed) -> bool:
        fault = armed.fault
        if armed.seen < fault.nth or (fault.times is not None and armed.applied >= fault.times):
            return False
        # By the request's number: what applied before, or when, changes no later draw.
        return fault.rate is None or fault.rate > ids.fraction(
            self.seed, f"fault {armed.number}", armed.seen
        )
