"""Event loops that close or stop take neither permits nor wake-ups with them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aifaceswap import Budget
from aifaceswap.budget import Permit


class Thread:
    """A thread with an event loop of its own, that runs one function at a time."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def acquire(self, budget: Budget) -> asyncio.Future[Permit]:
        return asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(budget.acquire("create"), self.loop)
        )

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def close(self) -> None:
        if self._thread.is_alive():
            self.stop()
        # In a thread of its own, because the caller's loop is running.
        closing = threading.Thread(target=self._close)
        closing.start()
        closing.join()

    def _close(self) -> None:
        if not self.loop.is_closed():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
                self.loop.run_until_complete(asyncio.wait([task]))
            self.loop.close()


@contextmanager
def thread() -> Iterator[Thread]:
    thread = Thread()
    try:
        yield thread
    finally:
        thread.close()


async def timed(budget: Budget) -> float:
    began = time.monotonic()
    (await budget.acquire("create", max_wait=5)).settle()
    return time.monotonic() - began


def test_no_wake_up_is_lost_with_the_loop_of_who_waited_first() -> None:
    """Each loop that waits has an alarm of its own."""

    async def main() -> float:
        budget = Budget(2, 0.4, None)
        first, second = await budget.acquire(), await budget.acquire()
        first.settle()
        with thread() as other:
            early = other.acquire(budget)
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(timed(budget))
            await asyncio.sleep(0.05)
            second.cancel()
            await early
        return await waiting

    assert asyncio.run(main()) == pytest.approx(0.35, abs=0.2)


@pytest.mark.parametrize("is_closed", [False, True], ids=["stopped", "closed"])
def test_a_waiter_whose_loop_is_gone_is_passed_over(is_closed: bool) -> None:
    """Its place in the queue holds up nobody."""

    async def main() -> float:
        budget = Budget(1, 0.2, None)
        (await budget.acquire()).settle()
        with thread() as other:
            left = other.acquire(budget)
            await asyncio.sleep(0.05)
            other.stop()
            if is_closed:
                other.close()
            seconds = await timed(budget)
            left.cancel()
            return seconds

    assert asyncio.run(main()) < 0.5


def test_a_permit_in_flight_comes_back_when_its_loop_stops() -> None:
    """One window after somebody has missed it."""

    async def main() -> float:
        budget = Budget(1, 0.2, None)
        with thread() as other:
            await other.acquire(budget)
            other.stop()
            return await timed(budget)

    assert asyncio.run(main()) < 1.0


def test_a_loop_that_runs_again_is_served_again() -> None:
    """Its waiters have kept their places."""
    budget = Budget(1, 0.1, None)
    loop = asyncio.new_event_loop()

    async def leave_waiting() -> asyncio.Task[float]:
        (await budget.acquire()).settle()
        task = asyncio.create_task(timed(budget))
        await asyncio.sleep(0.01)
        return task

    task = loop.run_until_complete(leave_waiting())
    time.sleep(0.15)  # virtual time knows no loop that stands still
    assert loop.run_until_complete(task) < 1.0
    loop.close()


def test_a_permit_that_is_settled_after_it_came_back_counts_once() -> None:
    """The loop was only paused."""
    budget = Budget(1, 0.1, None)
    loop = asyncio.new_event_loop()
    permit = loop.run_until_complete(budget.acquire())
    asyncio.run(timed(budget))
    permit.settle()
    permit.cancel()
    asyncio.run(asyncio.wait_for(timed(budget), 2))
    loop.close()
