"""Slots: as many unfinished swaps as the service allows, counted over processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aifaceswap import (
    APIConnectionError,
    BadRequestError,
    Client,
    ConcurrencyLimitError,
    SwapReport,
)
from aifaceswap._polling import poller
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import Fault, Status
from aifaceswap.redis import _slots
from support.forks import in_child
from support.redis_server import RedisServer
from support.redis_workers import LONG, coordinator, workers
from support.samples import URLS, delivery, done

LIMITS = Limits(per_minute=None, per_day=None, concurrent=3)


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    """Swaps that no poll sees end in the time of a test."""
    async with Emulator(duration=600, limits=LIMITS, credits=100_000) as emulator:
        yield emulator


async def test_the_life_of_a_slot(redis_server: RedisServer) -> None:
    """It is named by the key, then by the swap, and freed by whoever sees the end."""
    async with coordinator(redis_server, slots=2) as one, coordinator(redis_server) as two:
        slots, other = one.slots("scope"), two.ends("scope")
        assert await slots.take("a") is None
        assert await slots.take("b") is None
        assert await slots.take("a") is None  # it has one
        assert await slots.take("c") == []
        await slots.bind("a", "tsk_a")
        assert await slots.take("c") == ["tsk_a"]
        assert await slots.take("a") is None  # its swap has one
        await slots.free("b")
        assert await slots.take("c") is None
        await other.publish(SwapReport([done("tsk_a")]))
        assert await slots.take("d") is None
        assert await slots.take("a") is None  # its swap has finished: nothing counts
        assert await slots.take("e") == []


async def test_a_repeated_request_returns_a_finished_swap(redis_server: RedisServer) -> None:
    """It takes no slot, although the repeated response says that the swap is queued."""
    async with coordinator(redis_server, slots=1) as shared:
        slots = shared.slots("scope")
        await shared.ends("scope").publish(SwapReport([done("tsk_a")], is_delivery=True))
        assert await slots.take("a") is None
        await slots.bind("a", "tsk_a")

        assert await slots.take("b") is None


async def test_slots_of_the_killed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key loses its slot soon, or gets it back; a swap keeps its slot for long."""
    monkeypatch.setattr(_slots, "_KEY_LEASE", 1)
    async with coordinator(redis_server, slots=2) as shared:
        slots = shared.slots("scope")
        await slots.take("created")
        await slots.bind("created", "tsk_a")
        await slots.take("killed")
        assert await slots.take("killed") is None
        async with asyncio.timeout(LONG):
            while await slots.take("next") is not None:
                await asyncio.sleep(0.05)

        assert await slots.take("killed") == ["tsk_a"]


async def test_a_cancelled_take(redis_server: RedisServer) -> None:
    """What was taken for one who is gone is given back."""
    async with coordinator(redis_server, slots=1) as shared:
        slots = shared.slots("scope")
        await slots.take("first")  # connected
        await slots.free("first")
        taking = asyncio.ensure_future(slots.take("gone"))
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait([taking])
        async with asyncio.timeout(LONG):
            while await slots.take("other") is not None:
                await asyncio.sleep(0.01)


async def test_jobs_of_two_processes(redis_server: RedisServer, service: Emulator) -> None:
    """The third waits until any process gets the delivery of one."""
    async with workers(redis_server, service, slots=2) as (one, other):
        async with one.swaps.slot("1"):
            first = await one.swaps.create(**URLS, idempotency_key="1")
        async with other.swaps.slot("2"):
            await other.swaps.create(**URLS, idempotency_key="2")

        async def third() -> None:
            async with other.swaps.slot("3"):
                await other.swaps.create(**URLS, idempotency_key="3")

        job = asyncio.create_task(third())
        await asyncio.sleep(0.3)
        assert len(service.swaps) == 2
        one.deliver(delivery(first))
        await asyncio.wait_for(job, LONG)

    assert len(service.swaps) == 3


async def test_a_job_that_waits_polls_for_swaps_that_nobody_waits_for(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their process may have been killed."""
    monkeypatch.setattr(poller, "_GUEST_INTERVAL", 0.1)
    async with (
        Emulator(duration=0.3, limits=LIMITS, credits=1000) as service,
        workers(redis_server, service, slots=2) as (one, other),
    ):
        for key in ("1", "2"):
            async with one.swaps.slot(key):
                await one.swaps.create(**URLS, idempotency_key=key)
        async with asyncio.timeout(LONG), other.swaps.slot("3"):
            await other.swaps.create(**URLS, idempotency_key="3")

        assert 429 not in [request.status for request in service.requests]


async def test_a_slot_without_a_swap_is_given_back(redis_server: RedisServer) -> None:
    """At the end of its block: nothing was sent, or the service rejected it."""
    async with (
        Emulator(duration=600, limits=LIMITS, credits=1000) as service,
        workers(redis_server, service, slots=1) as (one, other),
    ):
        async with one.swaps.slot("1"):
            pass
        service.add_fault(Fault("POST /swaps", Status(400, code="validation_error", commit=False)))
        with pytest.raises(BadRequestError):
            async with other.swaps.slot("2", max_wait=LONG):
                await other.swaps.create(**URLS, idempotency_key="2")
        async with one.swaps.slot("3", max_wait=LONG):
            pass


async def test_a_slot_whose_swap_may_exist_is_kept(redis_server: RedisServer) -> None:
    """A repeated request with its key gets it back."""
    async with (
        Emulator(duration=600, limits=LIMITS, credits=1000) as service,
        workers(redis_server, service, slots=1) as (one, other),
    ):
        service.add_fault(Fault("POST /swaps", Status(500, commit=True), times=None))
        hasty = one.with_options(max_retries=0)
        with pytest.raises(Exception, match="500"):
            async with hasty.swaps.slot("1"):
                await hasty.swaps.create(**URLS, idempotency_key="1")
        with pytest.raises(ConcurrencyLimitError, match="no slot is free"):
            async with other.swaps.slot("2", max_wait=0.2):
                raise AssertionError
        service.clear_faults()
        async with other.swaps.slot("1", max_wait=0):
            swap = await other.swaps.create(**URLS, idempotency_key="1")
        assert [swap.id] == [one.id for one in service.swaps]


async def test_who_gives_up_leaves_nothing(redis_server: RedisServer, service: Emulator) -> None:
    """Neither `max_wait` nor a cancellation takes a slot, or holds up those who wait longer."""
    async with workers(redis_server, service, slots=1) as (one, other):
        async with one.swaps.slot("1"):
            for max_wait in (0, 0.05):
                with pytest.raises(ConcurrencyLimitError) as caught:
                    async with other.swaps.slot("2", max_wait=max_wait):
                        raise AssertionError
                assert caught.value.attempts == 0
            jobs = [asyncio.create_task(other.swaps.slot(key).__aenter__()) for key in "34"]
            await asyncio.sleep(0.1)
            jobs[0].cancel()
        await asyncio.wait_for(jobs[1], LONG)


async def test_bulk_runs_of_two_processes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share the slots by themselves: the service refuses nothing."""
    monkeypatch.setattr(poller, "SHORTEST_INTERVAL", 0.05)
    limits = Limits(per_minute=None, per_day=None, concurrent=3)

    async with (
        Emulator(duration=0.2, limits=limits, credits=1000) as service,
        workers(redis_server, service, slots=3) as clients,
    ):
        runs = [client.swaps.bulk([URLS] * 8) for client in clients]

        async def outcomes(run: object) -> list[bool]:
            async with run as found:  # type: ignore[attr-defined]
                return [outcome.ok async for outcome in found]

        done_rows = await asyncio.wait_for(asyncio.gather(*map(outcomes, runs)), LONG)
        assert done_rows == [[True] * 8] * 2
        assert 429 not in [request.status for request in service.requests]


async def test_an_outage(own_redis_server: RedisServer, service: Emulator) -> None:
    """Every slot counts as free, or nothing is sent; a paid swap is returned in both cases."""
    async with (
        workers(own_redis_server, service, 1, timeout=0.3) as (local,),
        workers(own_redis_server, service, 1, timeout=0.3, on_outage="raise") as (strict,),
    ):
        for client in (local, strict):
            async with client.swaps.slot("key"):
                pass
        own_redis_server.kill()
        async with local.swaps.slot("1"):
            swap = await local.swaps.create(**URLS, idempotency_key="1")
        assert swap.status == "queued"
        with pytest.raises(APIConnectionError, match="Redis is unreachable") as caught:
            async with strict.swaps.slot("2"):
                raise AssertionError
        assert not caught.value.sent


def test_blocking_slots(redis_server: RedisServer) -> None:
    """As a Celery task uses them."""
    with Emulator(duration=600, limits=LIMITS, credits=1000) as service:
        shared = coordinator(redis_server, slots=1)
        with Client(service.api_key, base_url=service.base_url, coordinator=shared) as client:
            with client.swaps.slot("1"):
                swap = client.swaps.create(**URLS, idempotency_key="1")
            with pytest.raises(ConcurrencyLimitError), client.swaps.slot("2", max_wait=0.1):
                raise AssertionError
            client.deliver(delivery(swap))
            with pytest.raises(ZeroDivisionError), client.swaps.slot("2", max_wait=LONG):
                raise ZeroDivisionError
            with client.swaps.slot("3", max_wait=LONG):
                pass


def test_a_forked_child_takes_slots_of_its_own(redis_server: RedisServer) -> None:
    """As a prefork worker does whose parent has used the client."""
    with Emulator(duration=600, limits=LIMITS, credits=1000) as service:
        shared = coordinator(redis_server, slots=2)
        with Client(service.api_key, base_url=service.base_url, coordinator=shared) as client:

            def job(key: str) -> None:
                with client.swaps.slot(key, max_wait=LONG):
                    swap = client.swaps.create(**URLS, idempotency_key=key)
                client.deliver(delivery(swap))
                assert client.swaps.wait(swap.id) == done(swap)

            job("parent")
            assert in_child(lambda: job("child")) == 0
            job("parent-again")
