"""What response headers teach a budget: requests of others, and nothing about other windows."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from itertools import cycle

import pytest

from aifaceswap import Budget
from aifaceswap.models import RateLimit
from support.virtual_time import run_virtual

NOON = 20_000 * 86_400.0 + 43_200
WINDOW = 60.0


def now() -> float:
    return asyncio.get_running_loop().time()


def budget_of(requests: int = 60, per: float = WINDOW) -> Budget:
    """A budget whose wall clock follows the loop."""
    began = now()
    return Budget(requests, per, clock=lambda: NOON + now() - began)


def headers(limit: float, remaining: float, reset_in: float | None = None) -> RateLimit:
    """Headers that were written at noon."""
    return RateLimit(
        limit=limit, remaining=remaining, reset=None if reset_in is None else NOON + reset_in
    )


class Service:
    """A sliding window that counts when a request arrives, and responds after a while."""

    def __init__(self, limit: int, window: float = WINDOW) -> None:
        self.limit, self.window = limit, window
        self.counted: deque[float] = deque()
        self.statuses: Counter[int] = Counter()
        self._began = now()

    async def respond(self, latency: float = 0.05) -> tuple[int, RateLimit]:
        await asyncio.sleep(latency / 2)
        while self.counted and self.counted[0] <= now() - self.window:
            self.counted.popleft()
        status = 200 if len(self.counted) < self.limit else 429
        self.statuses[status] += 1
        if status == 200:
            self.counted.append(now())
        reset = math.ceil(NOON + self.counted[0] + self.window - self._began)
        rate_limit = RateLimit(
            limit=self.limit, remaining=self.limit - len(self.counted), reset=reset
        )
        await asyncio.sleep(latency / 2)
        return status, rate_limit

    async def request(self, budget: Budget) -> None:
        """One call: 429s are obeyed and retried."""
        while True:
            permit = await budget.acquire("create")
            status, rate_limit = await self.respond()
            permit.settle(rate_limit)
            if status == 200:
                return
            wait = max(1.0, math.ceil(self.counted[0] + self.window - now()))
            budget.penalize(wait)
            await asyncio.sleep(wait)


def scenario(main: Callable[[], Awaitable[object]]) -> None:
    async def run() -> None:
        await main()

    run_virtual(run)


def test_others_are_counted_until_the_reset() -> None:
    """Not for one window more."""

    async def main() -> float:
        budget = budget_of()
        (await budget.acquire()).settle(headers(60, 0, 7))
        began = now()
        (await budget.acquire()).settle(headers(60, 59, 67))
        return now() - began

    assert run_virtual(main) == pytest.approx(7.0, abs=0.01)


def test_a_429_costs_what_it_asks_for() -> None:
    """Its headers say that nothing is left, its Retry-After when to come back."""

    async def main() -> float:
        budget = budget_of()
        (await budget.acquire()).settle(headers(60, 0, 50))
        budget.penalize(1.0)
        began = now()
        (await budget.acquire(max_wait=5)).settle()
        return now() - began

    assert run_virtual(main) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("shares", [(30, 30), (45, 15), (20, 20, 20)], ids=str)
def test_each_share_gets_what_it_is_worth(shares: tuple[int, ...]) -> None:
    """Processes with a share each do not block one another."""

    async def main() -> None:
        service = Service(60)

        async def process(share: int) -> float:
            budget, began = budget_of(share), now()
            await asyncio.gather(*(service.request(budget) for _ in range(share * 4)))
            return now() - began

        took = await asyncio.gather(*(process(share) for share in shares))
        assert service.statuses == {200: 240}
        assert max(took) <= 3 * WINDOW * 1.03

    scenario(main)


def test_a_share_is_limited_by_what_remains_alone() -> None:
    """Another share's requests are no reason to wait while some remain."""

    async def main() -> None:
        budget = budget_of(30)
        for remaining in range(29, 9, -1):
            (await budget.acquire(max_wait=0)).settle(headers(60, remaining, 30))
        (await budget.acquire(max_wait=0)).settle(headers(60, 0, 30))
        began = now()
        await budget.acquire()
        assert now() - began == pytest.approx(30, abs=0.01)

    scenario(main)


@pytest.mark.parametrize(
    "other",
    [
        headers(10_000, 3, 40_000),
        headers(1000, 1, 1800),
        headers(5, 0),
        headers(10_000, 3, -86_400),
        headers(0, 0, 10),
    ],
    ids=["per day", "per hour", "alternating", "in the past", "nothing"],
)
def test_headers_of_other_windows_are_ignored(other: RateLimit) -> None:
    """A day's, an hour's, or a path's limit that comes and goes."""

    async def main() -> float:
        budget, began = budget_of(), now()
        replies = cycle([headers(60, 58, 60), other])
        for _ in range(50):
            (await budget.acquire()).settle(next(replies))
        return now() - began

    assert run_virtual(main) == pytest.approx(0.0, abs=0.01)


def test_a_restart_inside_a_used_up_window_meets_one_429() -> None:
    """One request goes first, and its response teaches the others."""

    async def main() -> None:
        service = Service(60)
        await asyncio.gather(*(service.respond() for _ in range(60)))
        await asyncio.sleep(40)
        budget, began = budget_of(), now()
        await asyncio.gather(*(service.request(budget) for _ in range(59)))
        assert service.statuses[429] == 1
        # What the service frees in 20 s, and its rounding to whole seconds.
        assert now() - began <= 22

    scenario(main)


def test_the_first_request_holds_up_the_others_for_two_seconds() -> None:
    """A response that does not come teaches nothing."""

    async def main() -> list[float]:
        budget, began = budget_of(), now()

        async def arrive() -> float:
            await budget.acquire()
            return now() - began

        return sorted(await asyncio.gather(*(arrive() for _ in range(5))))

    assert run_virtual(main) == pytest.approx([0, 2, 2, 2, 2], abs=0.01)


def test_nobody_is_rejected_because_the_first_request_is_in_flight() -> None:
    """Who cannot wait for its headers goes without."""

    async def main() -> None:
        budget, began = budget_of(), now()
        await budget.acquire()
        await budget.acquire(max_wait=0)
        await budget.acquire(max_wait=0.5)
        assert now() - began == pytest.approx(0.5, abs=0.01)

    scenario(main)


def test_a_first_request_that_was_never_sent_leaves_its_place_to_the_next() -> None:
    """It has taught nothing, and has counted nowhere."""

    async def main() -> list[float]:
        budget, began = budget_of(), now()
        first = await budget.acquire()

        async def arrive(response: float) -> float:
            permit = await budget.acquire()
            arrived = now() - began
            await asyncio.sleep(response)
            permit.settle(headers(60, 59, 60))
            return arrived

        others = asyncio.gather(arrive(0.3), arrive(0.3))
        await asyncio.sleep(0.1)
        first.cancel()
        return list(await others)

    assert run_virtual(main) == pytest.approx([0.1, 0.4], abs=0.01)


def test_requests_in_flight_are_not_taken_for_those_of_others() -> None:
    """Whether the service has counted them already, or not yet."""

    async def main() -> None:
        service, budget = Service(60), budget_of()
        await service.request(budget)
        began = now()
        await asyncio.gather(*(service.request(budget) for _ in range(59)))
        assert now() - began < 0.1

    scenario(main)
