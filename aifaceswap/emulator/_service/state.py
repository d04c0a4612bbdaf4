"""The service's state: keys, swaps, credits, idempotency. No IO, and the time is an argument."""

from __future__ import annotations

import base64
import bisect
import heapq
import math
from typing import TYPE_CHECKING

import attrs

from aifaceswap.emulator._service import ids, scenarios
from aifaceswap.emulator._service.errors import Problem, Rejected, invalid, not_found
from aifaceswap.emulator._service.files import FileStore
from aifaceswap.emulator._service.meter import Meter, rate_limited_concurrent
from aifaceswap.emulator._service.schema import are_same
from aifaceswap.emulator._times import TICK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aifaceswap.emulator._service.schema import SwapParams
    from aifaceswap.emulator.limits import Limits
    from aifaceswap.emulator.settings import Idempotency, Lag

#: The part of its duration after which a swap leaves `queued`, `preparing` and `processing`.
_PREPARING, _PROCESSING, _LATE = 0.1, 0.25, 2 / 3

#: The progress at which a failing swap stops.
_FAILS_AT = 80

#: `Retry-After` in seconds when no slot will become free.
_LONGEST_WAIT = 60.0

_CONFLICT = "This Idempotency-Key was used with another body."
_IN_PROGRESS = Problem(
    409,
    "idempotency_in_progress",
    "The first request with this Idempotency-Key is still in progress.",
)
_NO_CREDITS = Problem(402, "insufficient_credits", "Not enough credits for this swap.")
_UNAUTHORIZED = Problem(401, "unauthorized", "The header 'Authorization: Bearer <key>' is missing.")
_INVALID_KEY = Problem(401, "invalid_api_key", "Invalid or revoked API key.")


@attrs.define(eq=False)
class StoredSwap:
    """One swap: its state at any moment follows from its times.

    Attributes:
        origin: The origin at which its creator reached the emulator; None: nobody needs it.
    """

    id: str
    number: int
    owner: KeyAccount
    params: SwapParams
    key: str | None
    life: scenarios.Life
    cost: float
    created: float
    duration: float
    origin: str | None = None

    @property
    def finish(self) -> float:
        """When it finishes, in unix seconds; infinity if it never does."""
        return self.created + self.duration if self.life.ends else math.inf

    def status(self, now: float) -> str:
        """Return `queued`, an intermediate status, `done` or `failed`."""
        if self.finish <= now + TICK:
            return "failed" if self.life.fails else "done"
        elapsed = self._elapsed(now)
        if elapsed < _PREPARING:
            return "queued"
        if elapsed < _PROCESSING:
            return "preparing"
        return self.life.late_status if elapsed >= _LATE else "processing"

    def progress(self, now: float) -> int:
        """Return 0 to 100; 100 only when it is done."""
        if self.finish <= now + TICK:
            return _FAILS_AT if self.life.fails else 100
        return min(_FAILS_AT if self.life.fails else 99, int(self._elapsed(now) * 100))

    def _elapsed(self, now: float) -> float:
        passed = (now - self.created) / self.duration if self.duration else 1.0
        return min(self.life.stops_at, passed)


@attrs.frozen(eq=False)
class Rejection:
    """An error that is repeated for its idempotency key."""

    params: SwapParams
    problem: Problem
    created: float


@attrs.define(eq=False)
class KeyAccount:
    """One API key with its own list and its own limits."""

    api_key: str = attrs.field(repr=False)
    meter: Meter
    live: bool = True
    swaps: list[StoredSwap] = attrs.field(factory=list[StoredSwap], init=False, repr=False)
    replies: dict[str, StoredSwap | Rejection] = attrs.field(
        factory=dict[str, "StoredSwap | Rejection"], init=False, repr=False
    )
    unfinished: list[tuple[float, int, StoredSwap]] = attrs.field(
        factory=list[tuple[float, int, StoredSwap]], init=False, repr=False
    )


@attrs.define(eq=False)
class ServiceState:
    """Everything the service knows, and the settings of how it behaves."""

    seed: int
    limits: Limits
    duration: float
    spread: float
    credits: float
    prices: Mapping[str, float]
    idempotency: Idempotency
    lag: Lag
    accounts: dict[str, KeyAccount] = attrs.field(factory=dict[str, KeyAccount], init=False)
    swaps: list[StoredSwap] = attrs.field(factory=list[StoredSwap], init=False)
    files: FileStore = attrs.field(factory=FileStore, init=False)
    _by_id: dict[str, StoredSwap] = attrs.field(factory=dict[str, StoredSwap], init=False)

    def add_account(self, api_key: str, own: Limits | None = None) -> None:
        """Make a key valid; one that was revoked keeps its list and its counters."""
        account = self.accounts.setdefault(api_key, KeyAccount(api_key, Meter(self.limits)))
        account.live = True
        if own is not None:
            account.meter.limits = own

    def change_limits(self, limits: Limits) -> None:
        """Change the limits of every key that has no limits of its own."""
        for account in self.accounts.values():
            if account.meter.limits is self.limits:
                account.meter.limits = limits
        self.limits = limits

    def find_account(self, header: str | None) -> KeyAccount | None:
        """Return the account of an Authorization header, if there is one."""
        try:
            return self.authenticate(header)
        except Rejected:
            return None

    def authenticate(self, header: str | None) -> KeyAccount:
        """Return the account of an Authorization header, or raise `Rejected`."""
        scheme, _, key = (header or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or " " in key:
            raise Rejected(_UNAUTHORIZED)
        account = self.accounts.get(key)
        if account is None or not account.live:
            raise Rejected(_INVALID_KEY)
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
        self,
        account: KeyAccount,
        params: SwapParams,
        key: str | None,
        now: float,
        life: scenarios.Life | None = None,
    ) -> tuple[StoredSwap, bool]:
        """Create a swap (True), or find that of the idempotency key; may raise `Rejected`."""
        if key is not None and (earlier := self._find_earlier(account, key, now)) is not None:
            return self._replay(earlier, params, now), False
        self.settle(now)
        try:
            self._check(account, params, now)
        except Rejected as rejected:
            if key is not None and rejected.problem.code == _NO_CREDITS.code:
                account.replies[key] = Rejection(params, rejected.problem, now)
            raise
        return self._add(account, params, key, now, life), True

    def _find_earlier(
        self, account: KeyAccount, key: str, now: float
    ) -> StoredSwap | Rejection | None:
        earlier, ttl = account.replies.get(key), self.idempotency.forget_after
        if earlier is not None and ttl is not None and earlier.created + ttl <= now + TICK:
            return None
        return earlier

    def _replay(
        self, earlier: StoredSwap | Rejection, params: SwapParams, now: float
    ) -> StoredSwap:
        if not are_same(earlier.params, params):
            status = self.idempotency.reuse_status
            raise Rejected(Problem(status, "idempotency_conflict", _CONFLICT))
        if now + TICK < earlier.created + self.idempotency.in_progress:
            raise Rejected(_IN_PROGRESS)
        if isinstance(earlier, Rejection):
            raise Rejected(earlier.problem)
        return earlier

    def _check(self, account: KeyAccount, params: SwapParams, now: float) -> None:
        problem = scenarios.find_problem((params.source_url, params.target_url), now)
        if problem is not None:
            raise Rejected(problem)
        self.files.check(params)
        if self.credits < self.prices[params.type]:
            raise Rejected(_NO_CREDITS)
        concurrent = account.meter.limits.concurrent
        if concurrent is not None and len(account.unfinished) >= concurrent:
            wait = account.unfinished[0][0] - now
            raise Rejected(rate_limited_concurrent(min(wait, _LONGEST_WAIT)))

    def _add(
        self,
        account: KeyAccount,
        params: SwapParams,
        key: str | None,
        now: float,
        life: scenarios.Life | None,
    ) -> StoredSwap:
        number, cost = len(self.swaps), self.prices[params.type]
        life = life or scenarios.find_life((params.source_url, params.target_url))
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
        """Return the swap with this id, of any key."""
        return self._by_id.get(swap_id)

    def get(self, account: KeyAccount, swap_id: str, now: float) -> StoredSwap:
        """Return one swap of the account, or raise `Rejected`; other keys' swaps do not exist."""
        swap = self._by_id.get(swap_id)
        if swap is None or swap.owner is not account or swap.created > now - self.lag.get + TICK:
            raise not_found("No swap with this id.")
        return swap

    def page(
        self, account: KeyAccount, limit: int, cursor: str | None, now: float
    ) -> tuple[list[StoredSwap], str | None]:
        """Return swaps of the account, newest first, and the cursor of the next page."""
        if cursor is not None:
            end = self._read_cursor(account, cursor)
        elif self.lag.list:
            visible = now - self.lag.list + TICK
            end = bisect.bisect(account.swaps, visible, key=lambda swap: swap.created)
        else:
            end = len(account.swaps)
        start = max(0, end - limit)
        page: Sequence[StoredSwap] = account.swaps[start:end]
        return list(reversed(page)), self._make_cursor(account, start) if start else None

    def _make_cursor(self, account: KeyAccount, end: int) -> str:
        check = ids.digest(self.seed, f"cursor/{account.api_key}", end, 6)
        return base64.urlsafe_b64encode(b"%d.%s" % (end, check.hex().encode())).decode().rstrip("=")

    def _read_cursor(self, account: KeyAccount, cursor: str) -> int:
        end = _decode_cursor(cursor)
        if not 0 < end <= len(account.swaps) or self._make_cursor(account, end) != cursor:
            raise invalid("cursor: must be a next_cursor of this list.")
        return end


def _decode_cursor(cursor: str) -> int:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return int(text.partition(b".")[0][:12])
    except ValueError:
        return 0
