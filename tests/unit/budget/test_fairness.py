"""No purpose starves another, whatever the load: simulated hours."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifaceswap import Budget, RateLimitError
from aifaceswap.budget import Purpose
from support.virtual_time import run_virtual

PURPOSES: tuple[Purpose, ...] = ("create", "read", "poll")


def now() -> float:
    return asyncio.get_running_loop().time()


class Load:
    """Callers that come again and again, each for one purpose."""

    def __init__(self, budget: Budget, until: float) -> None:
        self.budget, self.until = budget, until
        self.served: Counter[Purpose] = Counter()
        self.longest: dict[Purpose, float] = dict.fromkeys(PURPOSES, 0.0)

    async def call(self, purpose: Purpose, max_wait: float | None, rest: float) -> None:
        while now() < self.until:
            began = now()
            try:
                permit = await self.budget.acquire(purpose, max_wait=max_wait)
            except RateLimitError:
                await asyncio.sleep(20)
                continue
            self.longest[purpose] = max(self.longest[purpose], now() - began)
            self.served[purpose] += 1
            await asyncio.sleep(0.05)
            permit.settle()
            await asyncio.sleep(rest)


@settings(max_examples=10, deadline=None)
@given(
    callers=st.integers(1, 60),
    max_wait=st.sampled_from([None, 40.0]),
    others=st.lists(st.sampled_from(PURPOSES), max_size=10),
    flood=st.sampled_from(PURPOSES),
)
def test_no_load_starves_a_single_caller(
    callers: int, max_wait: float | None, others: list[Purpose], flood: Purpose
) -> None:
    """A lone caller of any purpose gets its share beside any number of others, for an hour."""

    async def main() -> None:
        load = Load(Budget(6, 36.0, None), now() + 3600)
        floods = [load.call(flood, max_wait, 0.0) for _ in range(callers)]
        floods += [load.call(purpose, max_wait, 0.0) for purpose in others]
        alone = Load(load.budget, load.until)
        await asyncio.gather(*floods, *(alone.call(purpose, None, 10.0) for purpose in PURPOSES))
        rivals = Counter(others)
        rivals[flood] += callers
        for purpose in PURPOSES:
            # A permit each six seconds; at worst every ninth is a poll.
            turns = 9.0 if purpose == "poll" else 2.5
            assert alone.longest[purpose] <= 6 * turns * (rivals[purpose] + 1) + 72, purpose

    run_virtual(main)


def test_under_full_load_each_purpose_gets_its_share() -> None:
    """Four creations and four reads for each poll."""

    async def main() -> None:
        load = Load(Budget(60, 60.0, None), now() + 3600)
        await asyncio.gather(*(load.call(p, None, 0.0) for p in PURPOSES for _ in range(100)))
        total = sum(load.served.values())
        assert total >= 3500
        shares = {purpose: round(load.served[purpose] / total, 2) for purpose in PURPOSES}
        assert shares == pytest.approx({"create": 0.44, "read": 0.44, "poll": 0.11}, abs=0.03)

    run_virtual(main)


def test_a_long_pause_saves_up_no_turns() -> None:
    """Creations that were paused do not take an hour's permits when they continue."""

    async def main() -> None:
        load = Load(Budget(6, 6.0, None), now() + 1200)
        load.budget.penalize(600, purpose="create")
        creations = [load.call("create", None, 0.0) for _ in range(50)]
        reads = [load.call("read", None, 0.0) for _ in range(5)]
        await asyncio.gather(*creations, *reads)
        assert load.longest["read"] <= 2 * (5 + 4) + 6

    run_virtual(main)


def test_a_full_queue_rejects_who_cannot_be_served_in_time() -> None:
    """Those of other purposes count with their share only."""

    async def main() -> None:
        budget = Budget(6, 6.0, None)
        for _ in range(6):
            (await budget.acquire()).settle()
        queued = [asyncio.ensure_future(budget.acquire("create")) for _ in range(1000)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitError):
            await budget.acquire("create", max_wait=60)
        (await budget.acquire("read", max_wait=60)).settle()
        (await budget.acquire("poll", max_wait=60)).settle()
        for call in queued:
            call.cancel()

    run_virtual(main)


def test_20_000_queued_calls_do_not_freeze_the_loop() -> None:
    """To join the queue and to leave it, from its middle, takes microseconds."""

    async def main() -> tuple[float, float]:
        budget = Budget(1, 3600.0, None)
        (await budget.acquire()).settle()
        began = time.process_time()
        calls = [asyncio.ensure_future(budget.acquire("create")) for _ in range(20_000)]
        await asyncio.sleep(0)
        joined = time.process_time()
        for call in calls[::-1]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return joined - began, time.process_time() - joined

    join, leave = asyncio.run(main())
    assert join < 1.5
    assert leave < 1.5
