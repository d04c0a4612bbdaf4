"""The service's state: accounts, swaps, credits, idempotency keys. No IO, and time is given."""

from __future__ import annotations

import base64
import heapq
import math
from typing import TYPE_CHECKING

import attrs

from aifaceswap.emulator._service import ids, scenarios
from aifaceswap.emulator._service.errors import Problem, Refused, invalid, not_found
from aifaceswap.emulator._service.meter import Meter, rate_limited_concurrent
from aifaceswap.emulator._service.schema import are_same
from aifaceswap.emulator._times import TICK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aifaceswap.emulator._service.schema import SwapParams
    from aifaceswap.emulator.limits import Limits

COSTS = {"image": 1, "gif": 2}

#: Where, as a part of its duration, a swap leaves `queued`, `preparing` and the first `processing`.
_PREPARING, _PROCESSING, _LATE = 0.1, 0.25, 2 / 3

#: The progress at which a failing swap stops.
_FAILS_AT = 80

_CONFLICT = Problem(409, "idempotency_conflict", "This Idempotency-Key was used with another body.")
_NO_CREDITS = Problem(402, "insufficient_credits", "Not enough credits for this swap.")
_UNAUTHORIZED = Problem(401, "unauthorized", "The header 'Authorization: Bearer <key>' is missing.")
_INVALID_KEY = Problem(401, "invalid_api_key", "This API key is not a live one.")


@attrs.define(eq=False)
class StoredSwap:
    """One swap: its state at any moment follows from its times.

    Attributes:
        origin: By what origin its creator reached the emulator; None: nobody asks.
    """

    id: str
    number: int
    owner: KeyAccount
    params: SwapParams
    key: str | None
    life: scenarios.Life
    cost: int
    created: float
    duration: float
    origin: str | None = None

    @property
    def finish(self) -> float:
        """When it ends, in unix seconds; infinity where it never does."""
        return self.created + self.duration if self.life.ends else math.inf

    def status(self, now: float) -> str:
        """`queued`, one of the states in between, `done` or `failed`."""
        if self.finish <= now + TICK:
            return "failed" if self.life.fails else "done"
        elapsed = self._elapsed(now)
        if elapsed < _PREPARING:
            return "queued"
        if elapsed < _PROCESSING:
            return "preparing"
        return self.life.late_status if elapsed >= _LATE else "processing"

    def progress(self, now: float) -> int:
        """0 to 100; 100 only when it is done."""
        if self.finish <= now + TICK:
            return _FAILS_AT if self.life.fails else 100
        return min(_FAILS_AT if self.life.fails else 99, int(self._elapsed(now) * 100))

    def _elapsed(self, now: float) -> float:
        return min(1.0, (now - self.created) / self.duration) if self.duration else 1.0


@attrs.frozen(eq=False)
class Remembered:
    """A refusal that its idempotency key repeats."""

    params: SwapParams
    problem: Problem


@attrs.define(eq=False)
class KeyAccount:
    """One API key with its own list and its own limits."""

    api_key: str = attrs.field(repr=False)
    meter: Meter
    live: bool = True
    swaps: list[StoredSwap] = attrs.field(factory=list[StoredSwap], init=False, repr=False)
    replies: dict[str, StoredSwap | Remembered] = attrs.field(
        factory=dict[str, "StoredSwap | Remembered"], init=False, repr=False
    )
    unfinished: list[tuple[float, int, StoredSwap]] = attrs.field(
        factory=list[tuple[float, int, StoredSwap]], init=False, repr=False
    )


@attrs.define(eq=False)
class ServiceState:
    """Everything the service knows."""

    seed: int
    limits: Limits
    duration: float
    spread: float
    credits: float
    accounts: dict[str, KeyAccount] = attrs.field(factory=dict[str, KeyAccount], init=False)
    swaps: list[StoredSwap] = attrs.field(factory=list[StoredSwap], init=False)
    _by_id: dict[str, StoredSwap] = attrs.field(factory=dict[str, StoredSwap], init=False)

    def add_account(self, api_key: str, own: Limits | None = None) -> None:
        """Make `api_key` a live key, with limits of its own where they are given."""
        account = self.accounts.setdefault(api_key, KeyAccount(api_key, Meter(self.limits)))
        account.live = True
        if own is not None:
            account.meter.limits = own

    def find_account(self, header: str | None) -> KeyAccount | None:
        """The account that the Authorization header names, if it names one."""
        return self.accounts.get((header or "").partition(" ")[2].strip())

    def authenticate(self, header: str | None) -> KeyAccount:
        """The account that the Authorization header names.

        Raises:
            Refused: It is missing, malformed, or names no live key.
        """
        scheme, _, key = (header or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or " " in key:
            raise Refused(_UNAUTHORIZED)
        account = self.accounts.get(key)
        if account is None or not account.live:
            raise Refused(_INVALID_KEY)
        return account

    def settle(self, now: float) -> None:
        """Take finished swaps off the count of unfinished ones; refund the failed."""
        for account in self.accounts.values():
            unfinished = account.unfinished
            while unfinished and unfinished[0][0] <= now + TICK:
                swap = heapq.heappop(unfinished)[2]
                if swap.life.fails:
                    self.credits += swap.cost

    def create(
        self, account: KeyAccount, params: SwapParams, key: str | None, now: float
    ) -> tuple[StoredSwap, bool]:
        """Create a swap, or find the one that its idempotency key created.

        Returns:
            The swap, and whether it is new.

        Raises:
            Refused: A conflict, a magic input, no credits, or no free slot.
        """
        if key is not None and (earlier := account.replies.get(key)) is not None:
            return _replay(earlier, params), False
        self.settle(now)
        try:
            self._check(account, params, now)
        except Refused as refused:
            if key is not None and refused.problem.code == _NO_CREDITS.code:
                account.replies[key] = Remembered(params, refused.problem)
            raise
        return self._add(account, params, key, now), True

    def _check(self, account: KeyAccount, params: SwapParams, now: float) -> None:
        problem = scenarios.find_problem((params.source_url, params.target_url), now)
        if problem is not None:
            raise Refused(problem)
        if self.credits < COSTS[params.type]:
            raise Refused(_NO_CREDITS)
        concurrent = account.meter.limits.concurrent
        if concurrent is not None and len(account.unfinished) >= concurrent:
            wait = account.unfinished[0][0] - now
            raise Refused(rate_limited_concurrent(min(wait, 60.0)))

    def _add(
        self, account: KeyAccount, params: SwapParams, key: str | None, now: float
    ) -> StoredSwap:
        number, cost = len(self.swaps), COSTS[params.type]
        life = scenarios.find_life((params.source_url, params.target_url))
        swap = StoredSwap(
            id=ids.make_id(self.seed, "tsk", number),
            number=number,
            owner=account,
            params=params,
            key=key,
            life=life,
            cost=cost,
            created=now,
            duration=self._draw_duration(number) * life.pace,
        )
        self._by_id[swap.id] = swap
        self.swaps.append(swap)
        account.swaps.append(swap)
        heapq.heappush(account.unfinished, (swap.finish, swap.number, swap))
        if key is not None:
            account.replies[key] = swap
        self.credits -= cost
        return swap

    def _draw_duration(self, number: int) -> float:
        if not self.spread:
            return self.duration
        return self.duration + self.spread * (2 * ids.fraction(self.seed, "spread", number) - 1)

    def find(self, swap_id: str) -> StoredSwap | None:
        """The swap with this id, whoever owns it."""
        return self._by_id.get(swap_id)

    def get(self, account: KeyAccount, swap_id: str) -> StoredSwap:
        """One swap of the account.

        Raises:
            Refused: There is none; another key's swap responses like a missing one.
        """
        swap = self._by_id.get(swap_id)
        if swap is None or swap.owner is not account:
            raise not_found("There is no swap with this id.")
        return swap

    def page(
        self, account: KeyAccount, limit: int, cursor: str | None
    ) -> tuple[list[StoredSwap], str | None]:
        """Swaps of the account, newest first, and the cursor of the next page.

        Raises:
            Refused: The cursor is none of ours.
        """
        end = len(account.swaps) if cursor is None else self._read_cursor(account, cursor)
        start = max(0, end - limit)
        page: Sequence[StoredSwap] = account.swaps[start:end]
        return list(reversed(page)), self._make_cursor(account, start) if start else None

    def _make_cursor(self, account: KeyAccount, end: int) -> str:
        check = ids.digest(self.seed, f"cursor/{account.api_key}", end, 6)
        return base64.urlsafe_b64encode(b"%d.%s" % (end, check.hex().encode())).decode().rstrip("=")

    def _read_cursor(self, account: KeyAccount, cursor: str) -> int:
        end = _decode_cursor(cursor)
        if not 0 < end <= len(account.swaps) or self._make_cursor(account, end) != cursor:
            raise invalid("cursor: is not a next_cursor of this list.")
        return end


def _decode_cursor(cursor: str) -> int:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return int(text.partition(b".")[0][:12])
    except ValueError:
        return 0


def _replay(earlier: StoredSwap | Remembered, params: SwapParams) -> StoredSwap:
    if not are_same(earlier.params, params):
        raise Refused(_CONFLICT)
    if isinstance(earlier, Remembered):
        raise Refused(earlier.problem)
    return earlier
