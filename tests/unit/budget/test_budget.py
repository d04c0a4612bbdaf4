"""The budget: exact windows, precedence, learning, pauses; all in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque

import pytest

from aifaceswap import Budget, ConfigurationError, DailyLimitError, RateLimitError
from aifaceswap.budget import Purpose, shared_budget
from aifaceswap.models import RateLimit
from support.forks import in_child
from support.virtual_time import run_virtual

MIDNIGHT = 20_000 * 86_400.0


def now() -> float:
    return asyncio.get_running_loop().time()


class SlidingWindow:
    """A service that counts as contract.md says, and answers after a while."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self.counted: deque[float] = deque()
        self.refused = 0

    async def answer(self, latency: float, counted_at: float = 0.5) -> RateLimit:
        await asyncio.sleep(latency * counted_at)
        while self.counted and self.counted[0] <= now() - self.window:
            self.counted.popleft()
        if len(self.counted) >= self.limit:
            self.refused += 1
        else:
            self.counted.append(now())
        remaining = self.limit - len(self.counted)
        await asyncio.sleep(latency * (1 - counted_at))
        return RateLimit(limit=self.limit, remaining=remaining)


async def request(
    budget: Budget, service: SlidingWindow, latency: float, purpose: Purpose = "read"
) -> None:
    permit = await budget.acquire(purpose)
    permit.settle(await service.answer(latency))


def test_300_requests_meet_no_429_and_take_four_windows() -> None:
    """A sliding window never refuses, and no permit is kept longer than it must be."""

    async def main() -> tuple[int, float]:
        budget, service = Budget(60, 60.0), SlidingWindow(60, 60.0)
        began = now()
        latencies = [0.005 + 0.045 * (number * 37 % 100) / 100 for number in range(300)]
        await asyncio.gather(*(request(budget, service, latency) for latency in latencies))
        return service.refused, now() - began

    refused, seconds = run_virtual(main)
    assert refused == 0
    assert 240.0 <= seconds <= 240.0 * 1.03


@pytest.mark.parametrize("counted_at", [0.0, 1.0], ids=["at arrival", "at the answer"])
def test_no_429_wherever_the_service_counts(counted_at: float) -> None:
    """The window holds whether a request is counted when it arrives or when it is answered."""

    async def one(budget: Budget, service: SlidingWindow, latency: float) -> None:
        permit = await budget.acquire()
        permit.settle(await service.answer(latency, counted_at))

    async def main() -> int:
        budget, service = Budget(10, 5.0), SlidingWindow(10, 5.0)
        await asyncio.gather(*(one(budget, service, 0.1 + n % 7) for n in range(60)))
        return service.refused

    assert run_virtual(main) == 0


def test_a_permit_is_freed_one_window_after_its_answer() -> None:
    """Not after its start: the service counted at some moment up to the answer."""

    async def main() -> float:
        budget = Budget(1, 60.0)
        permit = await budget.acquire()
        await asyncio.sleep(20)
        permit.settle()
        began = now()
        await budget.acquire()
        return now() - began

    assert run_virtual(main) == pytest.approx(60.0, abs=0.01)


def test_a_cancelled_permit_is_free_at_once() -> None:
    """A request that was never sent counts nowhere."""

    async def main() -> float:
        budget = Budget(1, 60.0, per_day=1, clock=lambda: MIDNIGHT)
        (await budget.acquire()).cancel()
        began = now()
        await budget.acquire()
        return now() - began

    assert run_virtual(main) == 0.0


def test_a_permit_counts_once_however_often_it_is_settled() -> None:
    """The first word about a permit is the one that counts."""

    async def main() -> str:
        budget = Budget(2, 60.0)
        permit = await budget.acquire()
        permit.settle()
        permit.settle()
        permit.cancel()
        await budget.acquire(max_wait=0)
        with pytest.raises(RateLimitError) as caught:
            await budget.acquire(max_wait=0)
        return str(caught.value)

    assert "2 requests in 60 s" in run_virtual(main)


def test_a_poll_that_has_waited_long_goes_in_turn() -> None:
    """Creations do not starve polls: swaps must be seen to end, too."""

    async def main() -> list[str]:
        budget, order = Budget(1, 1.0), list[str]()

        async def wait_for(purpose: Purpose) -> None:
            permit = await budget.acquire(purpose)
            order.append(purpose)
            permit.settle()

        (await budget.acquire()).settle()
        await asyncio.sleep(0.74)
        tasks = [asyncio.create_task(wait_for("poll"))]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(wait_for("create")) for _ in range(2)]
        await asyncio.gather(*tasks)
        return order

    assert run_virtual(main) == ["poll", "create", "create"]


def test_a_fresh_poll_waits_behind_creations() -> None:
    """A poll that has not waited long lets creations that came after it pass."""

    async def main() -> list[str]:
        budget, order = Budget(1, 1.0), list[str]()

        async def wait_for(purpose: Purpose) -> None:
            permit = await budget.acquire(purpose)
            order.append(purpose)
            permit.settle()

        (await budget.acquire()).settle()
        await asyncio.sleep(0.76)
        tasks = [asyncio.create_task(wait_for("poll"))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(wait_for("create")))
        await asyncio.gather(*tasks)
        return order

    assert run_virtual(main) == ["create", "poll"]


def test_others_who_use_the_key_are_seen_in_the_headers() -> None:
    """What others have used of the key is gone for this budget too, for one window."""

    async def main() -> float:
        budget = Budget(60, 60.0)
        (await budget.acquire()).settle(RateLimit(limit=60, remaining=0))
        began = now()
        await budget.acquire()
        return now() - began

    assert run_virtual(main) == pytest.approx(60.0, abs=0.01)


def test_a_lower_limit_in_the_headers_is_followed() -> None:
    """A key that may do less than the budget says is held to what the service says."""

    async def main() -> float:
        budget, service = Budget(60, 60.0), SlidingWindow(10, 60.0)
        began = now()
        for _ in range(25):
            await request(budget, service, 0.001)
        assert service.refused == 0
        return now() - began

    assert run_virtual(main) == pytest.approx(120.0, abs=1.0)


def test_a_higher_limit_in_the_headers_does_not_lift_the_budget() -> None:
    """The caller's own number is a ceiling."""

    async def main() -> None:
        budget = Budget(1, 60.0)
        (await budget.acquire()).settle(RateLimit(limit=1000, remaining=999))
        with pytest.raises(RateLimitError):
            await budget.acquire(max_wait=1)

    run_virtual(main)


def test_a_penalty_pauses_everyone() -> None:
    """After a 429 nobody sends, neither those who wait nor those who come."""

    async def main() -> list[float]:
        budget = Budget(2, 10.0)
        for _ in range(2):
            (await budget.acquire()).settle()
        began = now()

        async def arrive() -> float:
            (await budget.acquire()).settle()
            return now() - began

        waiting = asyncio.create_task(arrive())
        await asyncio.sleep(1)
        budget.penalize(30.0)
        return [await waiting, await arrive()]

    assert run_virtual(main) == pytest.approx([31.0, 31.0], abs=0.01)


def test_a_penalty_for_creations_lets_polls_go() -> None:
    """Too many unfinished swaps: polls are how their end is seen."""

    async def main() -> float:
        budget = Budget(10, 10.0)
        budget.penalize(30.0, purpose="create")
        creation = asyncio.create_task(budget.acquire("create"))
        await asyncio.sleep(0)
        await budget.acquire("poll", max_wait=0)
        await budget.acquire("read", max_wait=0)
        assert not creation.done()
        began = now()
        await creation
        return now() - began

    assert run_virtual(main) == pytest.approx(30.0, abs=0.01)


def test_who_is_held_back_longer_is_not_in_the_way() -> None:
    """Creations that wait for a pause to end do not make a read wait that need not."""

    async def main() -> None:
        budget = Budget(10, 10.0)
        budget.penalize(30.0, purpose="create")
        creations = [asyncio.create_task(budget.acquire("create")) for _ in range(20)]
        await asyncio.sleep(0)
        await budget.acquire("read", max_wait=0)
        for creation in creations:
            creation.cancel()

    run_virtual(main)


def test_a_refusal_has_the_code_of_the_longest_pause() -> None:
    """A short pause does not hide the day's end, and a new code is passed on."""

    async def main() -> list[tuple[type[RateLimitError], str | None, int]]:
        budget = Budget(10, 10.0)
        refusals = []
        for seconds, code in [(5, "brand_new"), (100, "rate_limited_daily"), (50, "rate_limited")]:
            budget.penalize(seconds, code=code)
            with pytest.raises(RateLimitError, match="paused after a 429") as caught:
                await budget.acquire(max_wait=1)
            after = round(caught.value.retry_after or 0)
            refusals.append((type(caught.value), caught.value.code, after))
        return refusals

    daily = (DailyLimitError, "rate_limited_daily", 100)
    assert run_virtual(main) == [(RateLimitError, "brand_new", 5), daily, daily]


def test_one_who_was_overtaken_is_refused_when_his_wait_is_over() -> None:
    """The least wait was within bounds; creations that came later took what became free."""

    async def main() -> float | None:
        budget = Budget(1, 10.0)
        (await budget.acquire()).settle()
        await asyncio.sleep(8)
        poll = asyncio.create_task(budget.acquire("poll", max_wait=4))
        await asyncio.sleep(0)
        creation = asyncio.create_task(budget.acquire("create"))
        with pytest.raises(RateLimitError) as caught:
            await poll
        (await creation).settle()
        await budget.acquire(max_wait=10.1)  # who has left has taken nothing with him
        return caught.value.retry_after

    assert run_virtual(main) == pytest.approx(10.0, abs=0.1)


def test_the_utc_day_is_counted() -> None:
    """When the day's requests are used up, the error says when the next day begins."""

    async def main() -> float:
        began = now()
        budget = Budget(100, 60.0, per_day=3, clock=lambda: MIDNIGHT - 150 + now() - began)
        for _ in range(3):
            (await budget.acquire()).settle()
        with pytest.raises(DailyLimitError) as caught:
            await budget.acquire(max_wait=120)
        assert caught.value.attempts == 0
        assert caught.value.code == "rate_limited_daily"
        assert caught.value.retry_after == pytest.approx(150, abs=0.1)
        await budget.acquire()
        return now() - began

    assert run_virtual(main) == pytest.approx(150, abs=0.1)


def test_a_wait_that_would_be_too_long_is_refused_at_once() -> None:
    """Nobody queues for a permit that cannot come in time."""

    async def main() -> tuple[float, float | None, int]:
        budget = Budget(1, 60.0)
        (await budget.acquire()).settle()
        began = now()
        with pytest.raises(RateLimitError, match=r"in 60\.0 s") as caught:
            await budget.acquire(max_wait=59)
        assert (caught.value.status, caught.value.code) == (429, "rate_limited")
        return now() - began, caught.value.retry_after, caught.value.attempts

    seconds, retry_after, attempts = run_virtual(main)
    assert seconds == 0.0
    assert retry_after == pytest.approx(60.0, abs=0.01)
    assert attempts == 0


def test_the_queue_counts_in_what_is_refused() -> None:
    """With a window's worth of others ahead, the wait is a window longer."""

    async def main() -> None:
        budget = Budget(2, 10.0)
        for _ in range(2):
            (await budget.acquire()).settle()
        others = [asyncio.create_task(budget.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitError) as caught:
            await budget.acquire(max_wait=9.99)
        assert caught.value.retry_after == pytest.approx(10.0, abs=0.01)
        await asyncio.gather(*others)

    run_virtual(main)


def test_a_permit_given_to_one_who_has_left_goes_back() -> None:
    """Cancelling a wait loses no permit, in whichever moment it comes."""

    async def main() -> None:
        budget = Budget(1, 1.0)
        for _ in range(20):
            (await budget.acquire()).settle()
            waiting = asyncio.create_task(budget.acquire())
            await asyncio.sleep(1.0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await waiting).cancel()
            (await budget.acquire(max_wait=0)).settle()
            await asyncio.sleep(1.0)

    run_virtual(main)


def test_threads_with_loops_of_their_own_share_one_budget() -> None:
    """The sum over all event loops stays within the window."""
    budget = Budget(5, 0.2)
    times: list[float] = []

    async def use() -> None:
        for _ in range(5):
            permit = await budget.acquire()
            times.append(now())
            permit.settle()

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    assert len(times) == 20
    assert all(later - earlier >= 0.199 for earlier, later in zip(times, times[5:], strict=False))


def test_waiters_of_a_loop_that_ended_are_passed_over() -> None:
    """A permit is not lost on an event loop that is gone."""
    budget = Budget(1, 0.05)

    async def take() -> None:
        (await budget.acquire()).settle()

    async def leave_waiting() -> None:
        await take()
        waiting = asyncio.ensure_future(budget.acquire())
        await asyncio.sleep(0)
        assert not waiting.done()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_waiting())
    pending = asyncio.all_tasks(loop)
    loop.close()
    asyncio.run(asyncio.wait_for(take(), 5))
    for task in pending:
        # Never awaited again: its loop is closed. Say so, or its end would be a warning.
        coroutine = task.get_coro()
        assert coroutine is not None
        coroutine.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_clients_of_one_key_share_a_budget() -> None:
    """Limits belong to the key, so does the default budget."""
    ours = shared_budget("https://example.com/v1", "key")
    assert ours is shared_budget("https://example.com/v1", "key")
    assert ours is not shared_budget("https://example.com/v1", "other")
    assert ours is not shared_budget("https://example.org/v1", "key")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"requests": 0}, "requests"),
        ({"requests": True}, "requests"),
        ({"requests": 1.5}, "requests"),
        ({"per": 0}, "per"),
        ({"per": float("nan")}, "per"),
        ({"per": "60"}, "per"),
        ({"per_day": 0}, "per_day"),
    ],
)
def test_a_budget_of_nothing_is_refused(arguments: dict[str, float], field: str) -> None:
    """The error names the argument and its value."""
    with pytest.raises(
        ConfigurationError, match=rf"^{field}\b.*{next(iter(arguments.values()))!r}"
    ) as caught:
        Budget(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_repr_says_what_is_allowed() -> None:
    """A budget shows its numbers."""
    assert repr(Budget()) == "Budget(requests=60, per=60, per_day=10000)"


def test_headers_that_allow_nothing_are_not_believed() -> None:
    """A limit of 0 would hold everything back for ever."""

    async def main() -> None:
        budget = Budget(2, per=60.0)
        permit = await budget.acquire()
        permit.settle(RateLimit(limit=0, remaining=0))
        await budget.acquire(max_wait=1)

    run_virtual(main)


def test_a_day_without_limit() -> None:
    """Only the window counts."""

    async def main() -> None:
        budget = Budget(1, per=10.0, per_day=None, clock=lambda: 0.0)
        began = now()
        for _ in range(20):
            (await budget.acquire()).settle()
        assert now() - began == pytest.approx(190.0, abs=0.1)

    run_virtual(main)


def test_a_permit_is_settled_where_no_loop_runs() -> None:
    """By the garbage collector, or after its loop has ended."""
    budget = Budget(1, per=1000.0)
    permit = asyncio.run(budget.acquire())
    permit.settle()

    async def again() -> None:
        with pytest.raises(RateLimitError):
            await budget.acquire(max_wait=900.0)

    asyncio.run(again())


def test_the_day_ends_at_midnight_whenever_it_is_asked() -> None:
    """Seconds to the next UTC day, not to the same hour of it."""

    async def main() -> float | None:
        budget = Budget(100, 60.0, per_day=1, clock=lambda: MIDNIGHT + 80_000)
        await budget.acquire()
        with pytest.raises(DailyLimitError) as caught:
            await budget.acquire(max_wait=60)
        return caught.value.retry_after

    assert run_virtual(main) == pytest.approx(6400.0)


def test_a_cancelled_permit_gives_back_one_and_no_more() -> None:
    """Of the window and of the day, however often it is cancelled."""

    async def main() -> None:
        for budget in (Budget(2, 60.0), Budget(9, 60.0, per_day=2, clock=lambda: MIDNIGHT)):
            first, _ = await budget.acquire(), await budget.acquire()
            first.cancel()
            first.cancel()
            await budget.acquire(max_wait=0)
            with pytest.raises(RateLimitError):
                await budget.acquire(max_wait=0)

    run_virtual(main)


def test_a_permit_settled_twice_does_not_widen_the_next_window() -> None:
    """It was one request."""

    async def main() -> None:
        budget = Budget(1, 10.0)
        permit = await budget.acquire()
        permit.settle()
        permit.settle()
        await asyncio.sleep(20)
        await budget.acquire(max_wait=0)
        with pytest.raises(RateLimitError):
            await budget.acquire(max_wait=0)

    run_virtual(main)


def test_a_cancelled_permit_goes_to_one_who_waits() -> None:
    """At once, not when he looks again."""

    async def main() -> float:
        budget, began = Budget(1, 60.0), now()
        permit = await budget.acquire()
        waiting = asyncio.create_task(budget.acquire())
        await asyncio.sleep(1)
        permit.cancel()
        await waiting
        return now() - began

    assert run_virtual(main) == pytest.approx(1.0, abs=0.01)


def test_a_limit_that_rises_again_lets_those_go_who_wait() -> None:
    """At once."""

    async def main() -> float:
        budget, began = Budget(2, 10.0), now()
        (await budget.acquire()).settle(RateLimit(limit=1, remaining=0))
        permit = await budget.acquire()
        waiting = asyncio.create_task(budget.acquire())
        await asyncio.sleep(1)
        permit.settle(RateLimit(limit=2, remaining=1))
        await waiting
        return now() - began

    assert run_virtual(main) == pytest.approx(11.0, abs=0.01)


def test_one_request_of_others_is_counted() -> None:
    """And a service that counts by the billion costs no memory."""

    async def main() -> list[float]:
        waited = []
        for limit in (RateLimit(limit=2, remaining=0), RateLimit(limit=10**12, remaining=0)):
            budget, began = Budget(2, 10.0), now()
            (await budget.acquire()).settle(limit)
            await budget.acquire()
            waited.append(now() - began)
        return waited

    assert run_virtual(main) == pytest.approx([10.0, 10.0], abs=0.01)


def test_one_who_is_cancelled_is_cancelled_and_takes_nothing() -> None:
    """The permit that he would have had goes to the next."""

    async def main() -> float:
        budget, began = Budget(1, 10.0), now()
        (await budget.acquire()).settle()
        waiting = asyncio.create_task(budget.acquire())
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await budget.acquire()
        return now() - began

    assert run_virtual(main) == pytest.approx(10.0, abs=0.01)


def test_who_may_go_first_is_woken_first() -> None:
    """A creation that waits for the end of a pause does not delay a read that came later."""

    async def main() -> list[float]:
        budget, began = Budget(1, 10.0), now()

        async def arrive(purpose: Purpose) -> float:
            (await budget.acquire(purpose)).settle()
            return now() - began

        (await budget.acquire()).settle()
        budget.penalize(30.0, purpose="create")
        return list(await asyncio.gather(arrive("create"), arrive("read")))

    assert run_virtual(main) == pytest.approx([30.0, 10.0], abs=0.01)


def test_polls_that_wait_are_in_nobodys_way() -> None:
    """A creation goes before them, so they do not count in its wait."""

    async def main() -> None:
        budget = Budget(1, 10.0)
        (await budget.acquire()).settle()
        await asyncio.sleep(9)
        polls = [asyncio.create_task(budget.acquire("poll")) for _ in range(3)]
        await asyncio.sleep(0)
        (await budget.acquire("create", max_wait=1.1)).settle()
        for poll in polls:
            (await poll).settle()

    run_virtual(main)


@pytest.mark.parametrize(
    ("paused", "expected"),
    [(0.0, [7.0, 10.0, 10.0, 20.0, 20.0, 30.0]), (15.0, [15.0, 15.0, 15.0, 20.0, 20.0, 30.0])],
)
def test_the_wait_that_is_told_grows_with_the_queue(paused: float, expected: list[float]) -> None:
    """Two a window: what was answered 3 s ago comes free first, then what is under way."""

    async def main() -> list[float | None]:
        budget, told, tasks = Budget(2, 10.0), [], []
        (await budget.acquire()).settle()
        await asyncio.sleep(3)
        await budget.acquire()
        budget.penalize(paused)
        for _ in expected:
            with pytest.raises(RateLimitError) as caught:
                await budget.acquire(max_wait=0)
            told.append(caught.value.retry_after)
            tasks.append(asyncio.create_task(budget.acquire()))
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        return told

    assert run_virtual(main) == pytest.approx(expected, abs=0.01)


def test_a_forked_child_does_not_wait_for_its_parents_requests() -> None:
    """A request in flight is the parent's: its permit never comes back in the child."""

    async def use_the_only_permit(budget: Budget) -> None:
        await budget.acquire()
        assert in_child(lambda: asyncio.run(asyncio.wait_for(budget.acquire(), 5))) == 0

    asyncio.run(use_the_only_permit(Budget(requests=1)))
