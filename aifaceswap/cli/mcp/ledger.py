"""What an agent has spent: each swap is a row of a bulk journal, written before it is sent."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import attrs
from anyio import to_thread

from aifaceswap.bulk._identity import named_identity
from aifaceswap.bulk._journal import JournalEntry, JournalView, State
from aifaceswap.bulk._record import record_end
from aifaceswap.client import AsyncClient
from aifaceswap.errors import AIFaceSwapError, BulkStoppedError, JournalError
from aifaceswap.models import Swap, SwapRequest

T = TypeVar("T")

# Seconds for a swap to finish within the run that creates it: others can use the ledger at once.
_NO_TIME = 1e-9
# Seconds that a request to create a swap may be rejected, by limits or a service that is down.
_MAX_WAIT = 20.0
# Seconds until a ledger that another process uses is tried again.
_PAUSE = 0.5
# Seconds that a result may be held up to write down its end.
_RECORD_WITHIN = 3.0


class CreditLimitError(AIFaceSwapError):
    """Another swap could cost more than the agent may spend."""


@attrs.define
class Balance:
    """What a ledger holds.

    Attributes:
        spent: The credits of all its swaps.
        dearest: The highest price of a swap; None without one.
        unanswered: Requests of other rows without a response: each may have created a swap.
        row: The row that was asked for.
    """

    spent: float = 0.0
    dearest: float | None = None
    unanswered: int = 0
    row: JournalEntry | None = None

    @property
    def reserved(self) -> float:
        """The credits that requests without a response may have cost."""
        if not self.unanswered:
            return 0.0
        return math.inf if self.dearest is None else self.unanswered * self.dearest


class Ledger:
    """Creates each swap once, within a number of credits; several processes can share its file.

    Args:
        client: Sends the requests.
        path: The journal.
        max_credits: The credits that all swaps of the journal may cost.
    """

    def __init__(self, client: AsyncClient, path: Path, max_credits: float) -> None:
        self._client = client
        self._path = path
        self._turn = anyio.Lock()
        self.max_credits = max_credits

    async def create(self, name: str, request: Callable[[], Awaitable[SwapRequest]]) -> Swap:
        """Create the swap of this name, or return it as it was last seen.

        Args:
            name: Names a row of the ledger.
            request: Makes the request of a swap that is not known.

        Raises:
            CreditLimitError: It could cost more than is left.
            AIFaceSwapError: It was not created, or nobody knows; the same name resumes.
        """
        async with self._turn:
            row: dict[str, Any] = {}

            async def find_or_create() -> Swap:
                balance = await self.balance(name)
                if balance.row is not None and balance.row.swap is not None:
                    return balance.row.swap
                if balance.spent >= self.max_credits:
                    raise self._limit_error(balance)
                if not row:
                    row.update(attrs.asdict(await request()), row_id=name)
                return await self._create(row, balance)

            return await _when_free(find_or_create)

    async def balance(self, name: str = "") -> Balance:
        """What is spent, and the row of this name."""
        return await to_thread.run_sync(self._read, named_identity(name))

    async def record_end(self, swap: Swap, saved_as: Path | None = None) -> None:
        """Write down that a swap has finished, unless the ledger is in use for long."""

        async def record() -> None:
            await to_thread.run_sync(record_end, self._path, swap, saved_as)

        if self._path.exists():
            with suppress(JournalError), anyio.move_on_after(_RECORD_WITHIN):
                await _when_free(record)

    async def _create(self, row: Mapping[str, Any], balance: Balance) -> Swap:
        # A row that was rejected was not charged: it is sent again, under a new key.
        was_rejected = balance.row is not None and balance.row.state == State.FAILED
        run = self._client.swaps.bulk(
            _without_end(row),
            journal=self._path,
            timeout=_NO_TIME,
            max_wait=_MAX_WAIT,
            max_credits=max(0.0, self.max_credits - balance.reserved),
            retry_failed="all" if was_rejected else False,
            mark=True,
        )
        try:
            async with run as outcomes:
                outcome = await anext(outcomes)
        except BulkStoppedError as error:
            cause = error.__cause__ or error
            # Any other reason has a class of its own.
            is_limit = type(cause) is AIFaceSwapError
            raise (self._limit_error(balance) if is_limit else cause) from None
        if outcome.swap is not None:
            return outcome.swap
        raise outcome.error or AIFaceSwapError("the ledger has no swap for this call")

    def _limit_error(self, balance: Balance) -> CreditLimitError:
        text = f"{balance.spent:g} of {self.max_credits:g} credits are spent"
        if balance.spent < self.max_credits:
            text += ", and this swap could cost more than the rest"
        if balance.unanswered:
            text += "; calls without a response may have been charged: repeat those first"
        return CreditLimitError(text)

    def _read(self, identity: bytes) -> Balance:
        balance = Balance()
        if not self._path.exists() or not self._path.stat().st_size:
            return balance
        with JournalView.open(self._path) as view:
            for entry in view.entries():
                balance.spent += (entry.cost or 0.0) + entry.earlier_cost
                if entry.cost is not None:
                    balance.dearest = max(balance.dearest or 0.0, entry.cost)
                if entry.identity == identity:
                    balance.row = entry
                elif entry.state == State.INTENDED and entry.sent_at is not None:
                    balance.unanswered += 1
        return balance


async def _when_free(use: Callable[[], Awaitable[T]]) -> T:
    """Use the ledger, once no other process does."""
    while True:
        try:
            return await use()
        except JournalError as error:
            if not error.in_use:
                raise
        await anyio.sleep(_PAUSE)


async def _without_end(row: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any]]:
    """One row; at the end of its input a run would begin what the journal has besides."""
    yield row
    await anyio.sleep_forever()
