"""Pauses after a 429, the UTC day, and how to start again."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from aifaceswap import AsyncClient, Budget, Client, DailyLimitError, RateLimitError
from aifaceswap.models import RateLimit
from support.virtual_time import run_virtual

MIDNIGHT = 20_000 * 86_400.0


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_long_pause_is_logged_with_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """At WARNING, with the code, the end and what to do."""
    budget = Budget(clock=lambda: MIDNIGHT)
    with caplog.at_level(logging.WARNING, "aifaceswap"):
        budget.penalize(86_400, code="rate_limited")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    end = datetime.fromtimestamp(MIDNIGHT + 86_400, UTC)
    assert f"until {end:%Y-%m-%d %H:%M:%S} UTC" in record.getMessage()
    assert "Budget.reset()" in record.getMessage()


@pytest.mark.parametrize("seconds", [60, 86_400])
def test_a_pause_is_logged_once_and_only_if_it_is_long(
    caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    """A window's length is everyday; a second 429 that asks for less says nothing new."""
    budget = Budget()
    budget.penalize(seconds)
    budget.penalize(seconds / 2)
    assert len(caplog.records) == (seconds > 60)


def test_a_failing_log_handler_does_not_break_the_call() -> None:
    """The pause counts all the same."""

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ZeroDivisionError

    handler = Broken()
    logging.getLogger("aifaceswap").addHandler(handler)
    try:
        budget = Budget()
        budget.penalize(1000)
    finally:
        logging.getLogger("aifaceswap").removeHandler(handler)
    assert budget.paused_until is not None


def test_a_pause_can_be_seen_and_ended() -> None:
    """On the client's budget; those who wait go at once."""

    async def main() -> float:
        client = AsyncClient("key", budget=Budget(clock=lambda: MIDNIGHT))
        budget = client.with_options(timeout=5).budget
        assert isinstance(budget, Budget)
        assert budget is client.budget
        assert budget.paused_until is None
        budget.penalize(86_400)
        end = budget.paused_until
        assert end is not None
        assert end.timestamp() == pytest.approx(MIDNIGHT + 86_400, abs=0.1)
        assert f"paused_until={end:%Y-%m-%dT%H:%M:%SZ}" in repr(budget)
        waiting = asyncio.create_task(budget.acquire())
        await asyncio.sleep(1)
        began = now()
        budget.reset()
        await waiting
        assert budget.paused_until is None
        return now() - began

    assert run_virtual(main) < 0.01


def test_a_client_without_a_budget_has_none() -> None:
    """Both clients show what they were given."""
    budget = Budget()
    with Client("key", budget=budget) as client:
        assert client.budget is budget
    assert AsyncClient("key", budget=None).budget is None


def test_reset_forgets_everything() -> None:
    """Requests, the day, learned limits, and permits in flight, which count nowhere later."""

    async def main() -> None:
        budget = Budget(2, 60.0, per_day=2, clock=lambda: MIDNIGHT)
        first = await budget.acquire()
        (await budget.acquire()).settle(RateLimit(limit=1, remaining=0))
        budget.penalize(500)
        budget.reset()
        first.settle()
        for _ in range(2):
            (await budget.acquire(max_wait=0)).settle()
        with pytest.raises(RateLimitError):
            await budget.acquire(max_wait=0)

    run_virtual(main)


@pytest.mark.parametrize("jump", [500, 86_400, 7 * 86_400])
def test_a_clock_that_jumps_into_another_day_wakes_those_who_wait(jump: float) -> None:
    """A laptop that slept: its monotonic clock stood still."""

    async def main() -> float:
        today = [MIDNIGHT - 400]
        budget = Budget(100, 1.0, 2, clock=lambda: today[0])
        for _ in range(2):
            (await budget.acquire()).settle()
        waiting = asyncio.create_task(budget.acquire("create"))
        await asyncio.sleep(3)
        today[0] += jump
        began = now()
        await waiting
        return now() - began

    assert run_virtual(main) <= 1.0


def test_a_clock_that_is_put_back_over_midnight_gives_no_second_day() -> None:
    """What was sent stays counted."""

    async def main() -> None:
        today = [MIDNIGHT + 100]
        budget = Budget(100, 1.0, 2, clock=lambda: today[0])
        for _ in range(2):
            (await budget.acquire()).settle()
        today[0] -= 500
        with pytest.raises(DailyLimitError):
            await budget.acquire(max_wait=0.1)

    run_virtual(main)


def test_a_permit_of_yesterday_gives_nothing_back_today() -> None:
    """It counted for its own day."""

    async def main() -> None:
        today = [MIDNIGHT - 0.5]
        budget = Budget(100, 1.0, 1, clock=lambda: today[0])
        yesterday = await budget.acquire()
        today[0] += 1
        await budget.acquire()
        yesterday.cancel()
        with pytest.raises(DailyLimitError):
            await budget.acquire(max_wait=0.1)

    run_virtual(main)
