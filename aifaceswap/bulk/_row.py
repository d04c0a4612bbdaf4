"""A row in progress: what the run knows of it beyond its journal entry."""

from __future__ import annotations

import attrs

from aifaceswap._polling.slots import HeldSlot
from aifaceswap.bulk._journal import JournalEntry
from aifaceswap.bulk._slots import Slot
from aifaceswap.models import Swap


@attrs.define(eq=False)
class Row:
    """A row in progress.

    Attributes:
        entry: The row as the journal has it, or is about to.
        slot: Its slot, until its swap has finished.
        shared: The same among all processes; None without a coordinator.
        began: When this run began it, by the loop's clock.
        sent: When it was first sent, by the same clock.
        swap: The swap as it was last seen.
        may_exist: Whether there may be a swap of this row that nobody has the id of.
        was_resumed: Whether that is so since an earlier run.
        is_in_flight: Whether its POST was sent, and its id is not written down yet.
        was_refused: Whether a POST of it is to be sent again.
        is_rejected: Whether the service has proven that there is no swap of this row.
    """

    entry: JournalEntry
    slot: Slot | None
    shared: HeldSlot | None
    began: float
    sent: float
    swap: Swap | None = None
    may_exist: bool = False
    was_resumed: bool = False
    is_in_flight: bool = False
    was_refused: bool = False
    is_rejected: bool = False

    def set_in_flight(self, value: bool) -> None:
        self.is_in_flight = value

    def update(self, **changes: object) -> None:
        self.entry = attrs.evolve(self.entry, **changes)  # type: ignore[arg-type]
