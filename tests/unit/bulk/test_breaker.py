"""The circuit breaker of a run: pauses, one that goes first, and the end; in virtual time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aifaceswap import APIConnectionError, NotFoundError, ServiceUnavailableError
from aifaceswap.bulk._breaker import CircuitBreaker, RunStopped

LOST = APIConnectionError("connection refused", sent=False)
WRONG = NotFoundError("no such page", status=404)


def breaker_of(max_wait: float = 300.0) -> tuple[CircuitBreaker, list[object]]:
    """A breaker, and the reasons of its pauses as they are reported."""
    reasons: list[object] = []
    breaker = CircuitBreaker(max_wait, lambda: reasons.append(breaker.error))
    return breaker, reasons


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_nothing_waits_while_there_is_no_trouble() -> None:
    """Any number go at once."""
    breaker, _ = breaker_of()
    async with breaker.turn(), breaker.turn():
        pass


async def test_after_a_pause_one_goes_first() -> None:
    """The others follow when it was accepted."""
    breaker, reasons = breaker_of()
    breaker.pause(LOST, now())
    posting = most = 0

    async def post() -> None:
        nonlocal posting, most
        async with breaker.turn():
            posting += 1
            most = max(most, posting) if breaker.error else most
            await asyncio.sleep(1)
            breaker.accepted()
            posting -= 1

    await asyncio.gather(*(post() for _ in range(5)))
    assert most == 1
    assert reasons == [LOST, None]


async def test_an_accepted_post_ends_the_pause_of_all() -> None:
    """It was sent before the pause began."""
    breaker, _ = breaker_of()
    breaker.pause(ServiceUnavailableError("later", status=503, retry_after=200.0), now())
    waiting = asyncio.ensure_future(breaker.turn().__aenter__())
    await asyncio.sleep(1)
    breaker.accepted()
    await asyncio.wait_for(waiting, 1)


async def test_pauses_grow_and_the_run_stops_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """After exactly `max_wait` without progress; one warning says so at the beginning."""
    breaker, reasons = breaker_of(100.0)
    began = now()

    async def fail_for_ever() -> None:
        while True:
            async with breaker.turn():
                breaker.pause(LOST, now())

    with caplog.at_level(logging.WARNING, "aifaceswap"), pytest.raises(RunStopped) as stopped:
        await fail_for_ever()
    assert stopped.value.cause is LOST
    assert now() - began == pytest.approx(100, abs=0.1)
    assert 6 < len(reasons) < 12
    assert [record.message for record in caplog.records] == [
        "bulk run: creating swaps is paused for 1 s: connection refused"
    ]


async def test_progress_starts_the_time_again() -> None:
    """A swap that finishes, as well as a POST that is accepted."""
    breaker, _ = breaker_of(100.0)
    breaker.pause(LOST, now())
    await asyncio.sleep(90)
    breaker.progressed()
    await asyncio.sleep(50)
    assert breaker.time_left(now()) == pytest.approx(100, abs=0.1)
    await asyncio.sleep(90)
    breaker.pause(LOST, now())


async def test_a_run_without_trouble_has_not_stood_still() -> None:
    """Time counts from the first failure, however long the last progress is ago."""
    breaker, _ = breaker_of(100.0)
    await asyncio.sleep(5000)
    assert breaker.time_left(now()) == pytest.approx(100, abs=0.1)


async def test_a_wait_that_is_too_long_stops_at_once() -> None:
    """Waiting for less would be of no use."""
    breaker, _ = breaker_of(300.0)
    with pytest.raises(RunStopped):
        breaker.pause(ServiceUnavailableError("off", status=503, retry_after=900.0), now())


async def test_the_third_identical_response_of_a_wrong_address_stops() -> None:
    """Unless a POST was accepted in between."""
    breaker, _ = breaker_of()
    breaker.stop_if_repeated(WRONG, now())
    breaker.stop_if_repeated(WRONG, now())
    breaker.accepted()
    breaker.stop_if_repeated(WRONG, now())
    breaker.stop_if_repeated(NotFoundError("gone", status=404, code="other"), now())
    breaker.stop_if_repeated(WRONG, now())
    breaker.stop_if_repeated(WRONG, now())
    with pytest.raises(RunStopped):
        breaker.stop_if_repeated(WRONG, now())


async def test_rows_that_fail_one_by_one_pause_the_next() -> None:
    """Two may be about their rows; the third is taken to be about all."""
    breaker, _ = breaker_of()
    for paused in (False, False, True):
        breaker.pause_if_repeated(WRONG, now())
        assert (breaker.error is not None) is paused
