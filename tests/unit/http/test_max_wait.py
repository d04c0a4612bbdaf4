"""`max_wait`: how long one call waits for the service's limits, and what it ends in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aifaceswap import (
    AsyncClient,
    Budget,
    Client,
    ConcurrencyLimitError,
    ConfigurationError,
    DailyLimitError,
    RateLimitError,
    ServerError,
    SwapStatus,
)
from aifaceswap.emulator import Emulator
from support.samples import URLS, client_of
from support.scripted import SWAP, ScriptedServer, Step, answer, refusal, stall


def now() -> float:
    return asyncio.get_running_loop().time()


def limited(seconds: float, code: str = "rate_limited") -> Step:
    return refusal(429, code, {"Retry-After": f"{seconds}"})


@pytest.mark.parametrize("max_wait", [0, 0.5, 59])
async def test_a_full_budget_is_refused_at_once(max_wait: float) -> None:
    """Nothing is sent, nothing is queued; the error has the wait, the key and no attempt."""
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=Budget(1, 60.0), max_wait=max_wait) as client,
    ):
        await client.swaps.get("tsk_1")
        began = now()
        with pytest.raises(RateLimitError) as caught:
            await client.swaps.create(**URLS, idempotency_key="order-7")
        assert now() - began < 0.01
    assert len(server.requests) == 1
    assert caught.value.retry_after == pytest.approx(60.0, abs=0.1)
    assert caught.value.idempotency_key == "order-7"
    assert caught.value.attempts == 0


async def test_a_permit_that_comes_in_time_is_waited_for() -> None:
    """What fits is waited for; the attempts that follow have the rest."""
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=Budget(1, 60.0), max_wait=61) as client,
    ):
        await client.swaps.get("tsk_1")
        await client.swaps.create(**URLS)
    assert len(server.requests) == 2


async def test_who_never_waits_takes_what_is_free() -> None:
    """Even while polls wait in the queue for a longer pause."""
    budget = Budget(10, 60.0)
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=budget, max_wait=0) as client,
    ):
        budget.penalize(30, purpose="poll")
        poll = asyncio.create_task(budget.acquire("poll"))
        await asyncio.sleep(0)
        await client.swaps.create(**URLS)
        poll.cancel()
        assert len(server.requests) == 1


async def test_refused_calls_leave_no_queue_behind() -> None:
    """A hundred that were refused hold back nobody: the next free permit is taken at once."""
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=Budget(1, 60.0), max_wait=0.5) as client,
    ):
        await client.swaps.get("tsk_1")
        calls = (client.swaps.create(**URLS) for _ in range(100))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {RateLimitError}
        await asyncio.sleep(60)
        await client.swaps.create(**URLS)
    assert len(server.requests) == 2


async def test_a_429_is_waited_for_as_long_as_is_allowed() -> None:
    """All waits of a call count together; the one that would be too long is not begun."""
    async with (
        ScriptedServer(limited(4)) as server,
        client_of(server, max_wait=6) as client,
    ):
        began = now()
        with pytest.raises(RateLimitError) as caught:
            await client.swaps.create(**URLS)
        assert 4.0 <= now() - began <= 4.6
    assert len(server.requests) == caught.value.attempts == 2
    assert caught.value.retry_after == 4.0
    assert caught.value.idempotency_key == server.keys[0]


async def test_a_429_and_a_permit_are_waited_for_out_of_one_purse() -> None:
    """What the permit has cost is not there for the 429."""
    async with (
        ScriptedServer(answer(), limited(4)) as server,
        client_of(server, budget=Budget(1, 10.0), max_wait=13) as client,
    ):
        await client.swaps.get("tsk_1")
        began = now()
        with pytest.raises(RateLimitError) as caught:
            await client.swaps.create(**URLS)
        assert now() - began == pytest.approx(10.0, abs=0.1)
    assert caught.value.attempts == 1


async def test_a_429_without_retry_after_is_not_waited_for_by_who_never_waits() -> None:
    """The usual backoff would be a wait, too."""
    async with (
        ScriptedServer(refusal(429, "rate_limited")) as server,
        client_of(server, max_wait=0) as client,
    ):
        with pytest.raises(RateLimitError):
            await client.swaps.create(**URLS)
    assert len(server.requests) == 1


async def test_other_failures_are_retried_as_ever() -> None:
    """A 503 is no limit: its Retry-After is obeyed up to the deadline."""
    failure = refusal(503, "api_temporarily_disabled", {"Retry-After": "7"})
    async with (
        ScriptedServer(failure, answer()) as server,
        client_of(server, budget=Budget(), max_wait=0) as client,
    ):
        began = now()
        await client.swaps.create(**URLS)
        assert 7.0 <= now() - began <= 7.6


async def test_a_rate_limiter_that_refuses_a_retry_hides_no_error() -> None:
    """The error of the attempt is raised, and the refusal is its cause."""
    async with (
        ScriptedServer(refusal(500, "internal_error")) as server,
        client_of(server, budget=Budget(1, 60.0), max_wait=1) as client,
    ):
        with pytest.raises(ServerError) as caught:
            await client.swaps.create(**URLS)
    assert len(server.requests) == caught.value.attempts == 1
    assert caught.value.sent
    assert isinstance(caught.value.__cause__, RateLimitError)
    assert caught.value.idempotency_key == server.keys[0]


async def test_after_a_daily_429_everyone_gets_that_error() -> None:
    """Also those who were not the one to meet it, through whichever client of the budget."""
    budget = Budget()
    async with (
        ScriptedServer(limited(3600, "rate_limited_daily")) as server,
        client_of(server, budget=budget, max_wait=0.5) as client,
        client_of(server, budget=budget) as other,
    ):
        for one in (client, client, other):
            with pytest.raises(DailyLimitError) as caught:
                await one.me()
            assert caught.value.retry_after == pytest.approx(3600, abs=0.1)
            assert caught.value.code == "rate_limited_daily"
    assert len(server.requests) == 1


async def test_too_many_unfinished_swaps_are_told_as_such() -> None:
    """Creations get that error while the pause lasts; reads go on."""
    async with (
        ScriptedServer(limited(30, "rate_limited_concurrent"), answer()) as server,
        client_of(server, budget=Budget(), max_wait=0.5) as client,
    ):
        for attempts in (1, 0):
            with pytest.raises(ConcurrencyLimitError) as caught:
                await client.swaps.create(**URLS)
            assert caught.value.attempts == attempts
            assert caught.value.retry_after == pytest.approx(30, abs=0.1)
        await client.swaps.get("tsk_1")
    assert len(server.requests) == 2


async def test_with_options_narrows_and_lifts_it() -> None:
    """None leaves it as it was; infinity is the way back to the deadline."""
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=Budget(1, 60.0)) as client,
    ):
        narrow = client.with_options(max_wait=0.5)
        await client.swaps.get("tsk_1")
        for hasty in (narrow, narrow.with_options(timeout=5)):
            with pytest.raises(RateLimitError):
                await hasty.swaps.get("tsk_1")
        await narrow.with_options(max_wait=float("inf")).swaps.get("tsk_1")
        await client.swaps.get("tsk_1")
    assert len(server.requests) == 3


async def test_waits_are_not_bounded_by_it() -> None:
    """A wait is no call: its looks take their turn, however long that is."""
    budget = Budget(1, 60.0)
    done = {**SWAP, "status": "done", "result_url": "https://example.com/r.jpg"}
    async with (
        ScriptedServer(answer(), answer(200, done)) as server,
        client_of(server, budget=budget, max_wait=0) as client,
    ):
        swap = await client.swaps.create(**URLS)
        began = now()
        assert (await client.swaps.wait(swap)).status == SwapStatus.DONE
        assert now() - began == pytest.approx(60, abs=1)


async def test_a_call_cancelled_between_two_attempts_tells_its_key() -> None:
    """The first attempt may have created the swap."""
    async with ScriptedServer(limited(30), stall) as server, client_of(server) as client:
        task = asyncio.create_task(client.swaps.create(**URLS))
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert caught.value.__notes__ == [f"aifaceswap: idempotency key: {server.keys[0]}"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), "1", True, b"", [1]], ids=repr)
def test_what_is_no_wait(value: Any) -> None:
    """The error names the argument and its value, in every place where it can be given."""
    for refused in (
        lambda: AsyncClient("key", max_wait=value),
        lambda: Client("key", max_wait=value),
        lambda: AsyncClient("key").with_options(max_wait=value),
    ):
        with pytest.raises(
            ConfigurationError, match=r"^max_wait must be .*, 0 or more; got "
        ) as caught:
            refused()
        assert caught.value.field == "max_wait"


@pytest.mark.parametrize("value", [None, 0, 0.5, 10**400, float("inf")])
def test_what_is_a_wait(value: float | None) -> None:
    """From never to as long as the deadline allows."""
    AsyncClient("key", max_wait=value).with_options(max_wait=value)


def test_the_blocking_client_has_it_too() -> None:
    """Both where it is made and where it is derived."""
    with Emulator() as emulator:
        options: Any = {"base_url": emulator.base_url, "budget": Budget(1, 60.0)}
        with Client(emulator.api_key, max_wait=0, **options) as client:
            client.me()
            for hasty in (client, client.with_options(max_wait=0.01)):
                with pytest.raises(RateLimitError) as caught:
                    hasty.swaps.create(**URLS)
                assert caught.value.attempts == 0
                assert caught.value.idempotency_key
