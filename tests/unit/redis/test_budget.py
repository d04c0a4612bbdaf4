"""The rate limiter that processes share, as its callers see it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from aifaceswap import DailyLimitError, RateLimit, RateLimitError, RequestBudget
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.redis import RedisCoordinator
from support.conditions import until
from support.forks import in_child
from support.redis_server import RedisServer

SCOPE = "scope"
# Nothing is said of how long something takes: the machine may be busy.
PATIENT = 30.0

Make = Callable[..., RedisCoordinator]


@pytest.fixture
def make(redis_server: RedisServer) -> Make:
    """Make the coordinator of one more process."""

    def make(**options: Any) -> RedisCoordinator:
        options = {"requests": 3, "per": 300.0, "timeout": PATIENT, **options}
        return RedisCoordinator(redis_server.url, **options)

    return make


def permits(server: RedisServer, name: str = "permits") -> int:
    return int(server.command(f"ZCARD aifaceswap:{{{SCOPE}}}:{name}").removeprefix(":"))


async def test_processes_share_one_window(make: Make) -> None:
    """What one process has taken is not free for another."""
    async with make() as one, make() as other:
        first = await one.budget(SCOPE).acquire("create")
        await other.budget(SCOPE).acquire("read")
        await one.budget(SCOPE).acquire("poll")
        with pytest.raises(RateLimitError, match="3 requests in 300 s is used up") as caught:
            await other.budget(SCOPE).acquire("create", max_wait=5)
        first.cancel()

        await other.budget(SCOPE).acquire("create")
    assert (caught.value.code, caught.value.status) == ("rate_limited", 429)
    assert 5 < (caught.value.retry_after or 0) <= 300


async def test_keys_have_limits_of_their_own(make: Make) -> None:
    """One coordinator serves many API keys; the same scope is the same limiter."""
    async with make(requests=1) as shared:
        await shared.budget("one").acquire()
        await shared.budget("two").acquire(max_wait=0)

        assert shared.budget("one") is shared.budget("one")


async def test_a_sliding_window_never_holds_too_many(make: Make) -> None:
    """Four processes send as fast as they may, to a service that refuses what is too many."""
    limits = Limits(per_minute=4, window=0.5, per_day=None, concurrent=None)
    async with (
        Emulator(limits=limits, credits=1e6) as emulator,
        make(requests=4, per=0.5) as one,
        make(requests=4, per=0.5) as other,
    ):
        from aifaceswap import AsyncClient

        clients = [
            AsyncClient(emulator.api_key, base_url=emulator.base_url, coordinator=shared)
            for shared in (one, other, one, other)
        ]
        await asyncio.gather(*(client.me() for client in clients for _ in range(4)))
        for client in clients:
            await client.aclose()
        statuses = [request.status for request in emulator.requests]

    assert statuses == 16 * [200]


async def test_calls_that_never_wait_all_go_if_there_is_room(make: Make) -> None:
    """Those behind another call of their process wait for its question, and are not rejected."""
    async with make(requests=20) as shared:
        acquired = [shared.budget(SCOPE).acquire("create", max_wait=0) for _ in range(21)]
        results = await asyncio.gather(*acquired, return_exceptions=True)

    assert [type(result) for result in results if isinstance(result, Exception)] == [RateLimitError]


async def test_who_cannot_be_in_time_is_rejected_at_once(make: Make) -> None:
    """Behind a call that waits for long, those with less patience do not wait with it."""
    async with make(requests=1) as shared:
        budget = shared.budget(SCOPE)
        await budget.acquire()
        patient = asyncio.ensure_future(budget.acquire())
        impatient = [asyncio.ensure_future(budget.acquire(max_wait=200)) for _ in range(3)]
        done, _ = await asyncio.wait(impatient, timeout=PATIENT)
        with pytest.raises(RateLimitError):
            await budget.acquire(max_wait=250)

        assert [type(one.exception()) for one in done] == 3 * [RateLimitError]
        assert not patient.done()
        patient.cancel()


async def test_a_day_is_used_up(make: Make) -> None:
    """The error is that of the daily limit."""
    async with make(per_day=1) as shared:
        (await shared.budget(SCOPE).acquire()).settle()
        with pytest.raises(DailyLimitError, match="UTC day is used up"):
            await shared.budget(SCOPE).acquire(max_wait=0)


async def test_a_pause_is_for_all_processes(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Also for the next call of the process that met the 429; a long pause is logged."""
    async with make() as one, make() as other:
        one.budget(SCOPE).penalize(1000, code="rate_limited")
        for shared in (one, other):
            with pytest.raises(RateLimitError, match="used up") as caught:
                await shared.budget(SCOPE).acquire("read", max_wait=0)
            assert 300 < (caught.value.retry_after or 0) <= 1000

    assert caplog.messages == [
        "429 rate_limited: all requests of all processes are paused for 1000 s"
    ]


async def test_a_pause_of_create_requests_lets_others_pass(make: Make) -> None:
    """They do not queue behind those that are paused."""
    async with make() as shared:
        budget = shared.budget(SCOPE)
        budget.penalize(100, purpose="create", code="rate_limited_concurrent")
        create = asyncio.ensure_future(budget.acquire("create"))
        await asyncio.sleep(0)
        (await budget.acquire("read")).cancel()
        (await budget.acquire("poll")).cancel()

        assert not create.done()
        create.cancel()


@pytest.mark.parametrize("loops", [0, 1, 2, 5, 20])
async def test_a_cancelled_call_leaves_nothing_behind(
    make: Make, redis_server: RedisServer, loops: int
) -> None:
    """At whatever moment: no permit is lost, no place in the queue is kept."""
    async with make() as shared:
        budget = shared.budget(SCOPE)
        calls = [asyncio.ensure_future(budget.acquire("create")) for _ in range(5)]
        for _ in range(loops):
            await asyncio.sleep(0)
        if loops == 20:
            await until(lambda: permits(redis_server, "waiting"))
        for call in calls:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        for permit in results:
            if not isinstance(permit, BaseException):
                permit.cancel()

        await until(lambda: permits(redis_server) == permits(redis_server, "waiting") == 0)
        await budget.acquire("create", max_wait=0)


async def test_only_the_first_end_of_a_permit_counts(make: Make, redis_server: RedisServer) -> None:
    """A permit that was cancelled is not settled, and the other way round."""
    async with make() as shared:
        cancelled, settled = [await shared.budget(SCOPE).acquire() for _ in range(2)]
        cancelled.cancel()
        cancelled.settle()
        settled.settle(RateLimit(limit=3, remaining=1))
        settled.cancel()
    assert permits(redis_server) == 1


async def test_every_key_expires(make: Make, redis_server: RedisServer) -> None:
    """And carries the scope as its hash tag: a cluster keeps them on one node."""
    from redis.asyncio import Redis

    async with make(requests=1) as shared:
        budget = shared.budget(SCOPE)
        (await budget.acquire()).settle()
        for purpose in ("create", "poll"):
            waiting = asyncio.ensure_future(budget.acquire(purpose))
            await until(lambda: permits(redis_server, "asked"))
        async with Redis.from_url(redis_server.url, decode_responses=True) as client:
            keys = [str(key) for key in await client.keys("*")]
            assert len(keys) == 5
            assert all([0 < await client.ttl(key) <= 172_800 for key in keys])
        assert {key.rpartition(":")[0] for key in keys} == {"aifaceswap:{scope}"}
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if "acquire" in repr(task):
                task.cancel()
        del waiting


async def test_an_uncontended_acquire_takes_two_round_trips(
    make: Make, redis_server: RedisServer
) -> None:
    """One to acquire, one to settle."""
    async with make() as shared:
        (await shared.budget(SCOPE).acquire()).settle()
        await shared.aclose()
        redis_server.command("CONFIG RESETSTAT")
        (await shared.budget(SCOPE).acquire()).settle()

    statistics = redis_server.info("commandstats")
    assert "cmdstat_eval:" not in statistics
    assert "cmdstat_evalsha:calls=2," in statistics


# --- loops, threads and processes ----------------------------------------------------------


def test_what_a_loop_leaves_is_sent_before_it_ends(make: Make, redis_server: RedisServer) -> None:
    """The last response of a program: its permit does not wait for its lease."""
    shared = make()

    async def main() -> None:
        (await shared.budget(SCOPE).acquire()).settle()
        (await shared.budget(SCOPE).acquire()).cancel()

    asyncio.run(main())

    assert permits(redis_server) == 1
    # The one that asks is among them.
    assert "connected_clients:1\r" in redis_server.info("clients")


def test_several_loops_and_threads(make: Make, redis_server: RedisServer) -> None:
    """Each has connections of its own; a permit can be settled in another thread."""
    shared = make()

    async def main() -> None:
        budget: RequestBudget = shared.budget(SCOPE)
        permit = await budget.acquire()
        await asyncio.to_thread(permit.cancel)
        await asyncio.gather(
            *(asyncio.to_thread(asyncio.run, self_contained(budget)) for _ in range(3))
        )

    async def self_contained(budget: RequestBudget) -> None:
        (await budget.acquire()).cancel()

    asyncio.run(main())
    asyncio.run(main())

    assert permits(redis_server) == 0


def test_a_forked_child_has_connections_of_its_own(make: Make, redis_server: RedisServer) -> None:
    """The parent's connections go on working."""
    shared = make()
    runner = asyncio.Runner()

    def take() -> None:
        asyncio.run(_acquire(shared))

    runner.run(_acquire(shared))
    assert in_child(take) == 0
    runner.run(_acquire(shared))
    runner.close()

    assert permits(redis_server) == 3


async def _acquire(shared: RedisCoordinator) -> None:
    await shared.budget(SCOPE).acquire(max_wait=0)


def test_a_permit_of_a_loop_that_has_closed(make: Make) -> None:
    """It is left to its lease, without an error."""
    shared = make()

    async def acquire() -> Any:
        return await shared.budget(SCOPE).acquire()

    permit = asyncio.run(acquire())
    permit.settle()
    del permit
    gc.collect()


async def test_a_coordinator_can_be_used_after_it_was_closed(make: Make) -> None:
    """As a client can."""
    shared = make()
    for _ in range(2):
        async with shared:
            await shared.budget(SCOPE).acquire(max_wait=0)
    await shared.aclose()
