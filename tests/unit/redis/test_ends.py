"""Waits that end by what another process sees."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import redis

from aifaceswap import Client, SwapReport
from aifaceswap._polling import poller
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.redis import _ends
from support.redis_server import RedisServer
from support.redis_workers import LONG, coordinator, workers
from support.samples import URLS, delivery, done

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)
HOOK = "https://shop.example.com/hooks/swap"


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    """Swaps that no poll sees end in the time of a test."""
    async with Emulator(duration=600, limits=NO_LIMITS, credits=100_000) as emulator:
        yield emulator


@pytest.fixture
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "SHORTEST_INTERVAL", 0.05)


def gets(emulator: Emulator) -> list[str]:
    """The paths of all GETs, without their queries."""
    return [one.path.partition("?")[0] for one in emulator.requests if one.method == "GET"]


async def test_a_delivery_ends_the_wait_of_another_process(
    redis_server: RedisServer, service: Emulator
) -> None:
    """The one that waits has seen nothing itself."""
    async with workers(redis_server, service) as (one, other):
        swap = await one.swaps.create(**URLS, webhook_url=HOOK)
        waiting = asyncio.create_task(other.swaps.wait(swap))
        await asyncio.sleep(0.1)
        one.deliver(delivery(swap))

        assert await asyncio.wait_for(waiting, LONG) == done(swap)


async def test_a_delivery_that_came_before_the_wait(
    redis_server: RedisServer, service: Emulator
) -> None:
    """A process that did not wait then reads it when it begins to."""
    async with workers(redis_server, service) as (one, other):
        swap = await one.swaps.create(**URLS)
        one.deliver(delivery(swap))
        waiting = asyncio.create_task(one.swaps.wait(swap))

        assert await asyncio.wait_for(other.swaps.wait(swap), LONG) == done(swap)
        assert await waiting == done(swap)
        assert gets(service) == []


async def test_a_delivery_in_a_thread_without_an_event_loop(
    redis_server: RedisServer, service: Emulator
) -> None:
    """A synchronous view of a web app gets it; a worker with an event loop waits."""
    shared = coordinator(redis_server)
    async with workers(redis_server, service, 1) as (waiter,):
        swap = await waiter.swaps.create(**URLS, webhook_url=HOOK)
        waiting = asyncio.create_task(waiter.swaps.wait(swap))
        with Client(service.api_key, base_url=service.base_url, coordinator=shared) as client:
            view = threading.Thread(target=client.deliver, args=(delivery(swap),))
            view.start()

            assert await asyncio.wait_for(waiting, LONG) == done(swap)
            await asyncio.to_thread(view.join)


@pytest.mark.usefixtures("_short_intervals")
async def test_one_process_polls_for_all(redis_server: RedisServer) -> None:
    """Even for one wait it polls the list, which shows the swaps of all."""
    limits = NO_LIMITS
    async with (
        Emulator(duration=0.5, limits=limits, credits=1000) as service,
        workers(redis_server, service, 5) as clients,
    ):
        runs = [client.swaps.run(**URLS) for client in clients for _ in range(2)]
        swaps = await asyncio.wait_for(asyncio.gather(*runs), LONG)

        assert {swap.status for swap in swaps} == {"done"}
        assert set(gets(service)) == {"/api/v1/swaps"}


async def test_a_poll_whose_waits_have_ended(redis_server: RedisServer) -> None:
    """Its timer can run in the turn of the loop in which the last wait ends: nothing is sent."""
    async with Emulator() as service, workers(redis_server, service, 1) as (client,):
        client._resources.watcher._poller()._poll()
        await asyncio.sleep(0)

        assert gets(service) == []


@pytest.mark.parametrize("options", ["protocol=2", "protocol=3", "decode_responses=True"])
async def test_every_form_of_response(redis_server: RedisServer, options: str) -> None:
    """Both versions of the protocol, bytes or strings."""
    from aifaceswap.redis import RedisCoordinator

    async with RedisCoordinator(f"{redis_server.url}?{options}", timeout=5) as shared:
        ends, slots = shared.ends("scope"), shared.slots("scope")
        for _ in range(2):
            await ends.publish(SwapReport([done("tsk_1")], is_delivery=True))
        reports, position = await ends.read("", wait=False)
        assert [report.swaps for report in reports] == [[done("tsk_1")]] * 2
        assert await ends.read(position, wait=False) == ([], position)
        await slots.bind("key", "tsk_2")
        for number in range(9):
            assert await slots.take(f"key-{number}") is None
        assert await slots.take("one too many") == ["tsk_2"]
        assert (await shared.seen().claim("name")).state == "new"
        assert (await shared.seen().claim("name")).state == "busy"


async def test_turns_to_poll(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time; the turn of a process that was killed ends."""
    monkeypatch.setattr(_ends, "_TURN", 0.3)
    async with coordinator(redis_server) as shared:
        ends = shared.ends("scope")
        assert await ends.begin_poll("one") == 0
        assert 0 < await ends.begin_poll("two") <= 0.3
        assert await ends.begin_poll("one") == 0
        await ends.end_poll("two", 0.0)
        assert await ends.begin_poll("two") > 0
        await ends.end_poll("one", 30.0)
        assert 1 < await ends.begin_poll("two") <= 30
        assert await ends.begin_poll("one") > 1

        ends = shared.ends("another scope")
        assert await ends.begin_poll("killed") == 0
        async with asyncio.timeout(LONG):
            while wait := await ends.begin_poll("two"):
                await asyncio.sleep(wait)


async def test_a_cancelled_turn_ends(redis_server: RedisServer) -> None:
    """Others need not wait for one who asked and is gone."""
    async with coordinator(redis_server) as shared:
        ends = shared.ends("scope")
        asking = asyncio.create_task(ends.begin_poll("gone"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(LONG):
            while await ends.begin_poll("other"):
                await asyncio.sleep(0.01)


async def test_no_end_is_lost_when_connections_break(
    redis_server: RedisServer, service: Emulator
) -> None:
    """What is published while a reader has no connection is read afterwards."""
    async with workers(redis_server, service) as (one, other):
        swaps = await asyncio.gather(*(one.swaps.create(**URLS) for _ in range(60)))
        waits = [asyncio.create_task(other.swaps.wait(swap)) for swap in swaps]
        for number, swap in enumerate(swaps):
            one.deliver(delivery(swap))
            if number % 12 == 5:
                redis_server.command("CLIENT KILL TYPE normal SKIPME yes")
            await asyncio.sleep(0.005)

        assert await asyncio.wait_for(asyncio.gather(*waits), LONG) == [done(s) for s in swaps]


@pytest.mark.usefixtures("_short_intervals")
async def test_what_redis_forgets_a_poll_shows(redis_server: RedisServer) -> None:
    """After FLUSHALL, also of a swap whose end was published before."""
    async with (
        Emulator(duration=0.3, limits=NO_LIMITS, credits=1000) as service,
        workers(redis_server, service) as (one, other),
    ):
        first = await one.swaps.run(**URLS)
        second = await one.swaps.create(**URLS)
        redis_server.command("FLUSHALL")

        finished = asyncio.gather(*(other.swaps.wait(swap.id) for swap in (first, second)))
        assert {swap.status for swap in await asyncio.wait_for(finished, LONG)} == {"done"}


@pytest.mark.usefixtures("_short_intervals")
async def test_waits_end_without_redis(own_redis_server: RedisServer) -> None:
    """Each process polls for itself while Redis is down, and reads again afterwards."""
    async with (
        Emulator(duration=0.5, limits=NO_LIMITS, credits=1000) as service,
        workers(own_redis_server, service, timeout=0.5) as (one, other),
    ):
        waits = [asyncio.create_task(client.swaps.run(**URLS)) for client in (one, other)]
        await asyncio.sleep(0.1)
        own_redis_server.kill()
        swaps = await asyncio.wait_for(asyncio.gather(*waits), LONG)
        assert {swap.status for swap in swaps} == {"done"}

        own_redis_server.start()
        service.reset(duration=600, limits=NO_LIMITS, credits=1000)
        swap = await one.swaps.create(**URLS)
        waiting = asyncio.create_task(other.swaps.wait(swap))
        one.deliver(delivery(swap))
        assert await asyncio.wait_for(waiting, LONG) == done(swap)


async def test_deliveries_at_other_workers_can_be_relied_on(
    redis_server: RedisServer, service: Emulator
) -> None:
    """Behind one port each arrives at any of them, and reaches all."""
    async with workers(redis_server, service) as (one, other):
        for _ in range(8):
            swap = await one.swaps.create(**URLS, webhook_url=HOOK)
            waiting = asyncio.create_task(one.swaps.wait(swap))
            await asyncio.sleep(0.02)
            other.deliver(delivery(swap))
            await asyncio.wait_for(waiting, LONG)

        assert one._resources.watcher._deliveries.are_reliable


async def test_a_client_that_closes_ends_no_wait_of_another(
    redis_server: RedisServer, service: Emulator
) -> None:
    """Nor does one whose coordinator closes while it waits: it connects again."""
    async with workers(redis_server, service, 3) as (one, two, three):
        swap = await one.swaps.create(**URLS)
        waits = [asyncio.create_task(client.swaps.wait(swap)) for client in (two, three)]
        await asyncio.sleep(0.1)
        await one.aclose()
        waits[0].cancel()
        one.deliver(delivery(swap))

        assert await asyncio.wait_for(waits[1], LONG) == done(swap)


def test_clients_of_several_event_loops(redis_server: RedisServer) -> None:
    """Threads with loops of their own share a client and its coordinator."""
    with Emulator(duration=600, limits=NO_LIMITS, credits=1000) as service:
        shared = coordinator(redis_server)
        client = Client(service.api_key, base_url=service.base_url, coordinator=shared)
        other = Client(service.api_key, base_url=service.base_url, coordinator=shared)
        with client, other:
            swaps = [client.swaps.create(**URLS) for _ in range(4)]
            found = []
            threads = [
                threading.Thread(target=lambda swap=swap: found.append(other.swaps.wait(swap)))
                for swap in swaps
            ]
            for thread in threads:
                thread.start()
            for swap in swaps:
                client.deliver(delivery(swap))
            for thread in threads:
                thread.join(LONG)

        assert sorted(swap.id for swap in found) == sorted(swap.id for swap in swaps)


async def test_what_is_kept(redis_server: RedisServer) -> None:
    """Results for 15 minutes at most, a thousand reports, and no key without an end."""
    async with coordinator(redis_server) as shared:
        ends, slots = shared.ends("scope"), shared.slots("scope")
        await slots.take("key")
        await slots.bind("key", "tsk_1")
        await slots.take("other")
        await ends.begin_poll("one")
        await ends.end_poll("one", 10.0)
        for _ in range(3):
            await ends.publish(SwapReport([done("tsk_1")], is_delivery=True))
        await ends.publish(SwapReport([done("tsk_1")], list_age=0.0))

    with redis.Redis.from_url(redis_server.url) as server:
        (stream,) = (key for key in server.scan_iter() if key.endswith(b":ends"))
        assert 0 < server.ttl(stream) <= 900
        assert [key for key in server.scan_iter() if server.ttl(key) == -1] == []


async def test_reports_of_another_version_are_ignored(redis_server: RedisServer) -> None:
    """A deployment in progress has two versions of the package."""
    async with coordinator(redis_server) as shared:
        ends = shared.ends("scope")
        with redis.Redis.from_url(redis_server.url) as server:
            stream = "aifaceswap:{scope}:ends"
            for fields in ({"swaps": "[]"}, {"new": "1"}, {"swaps": "{", "kind": "x", "age": "0"}):
                server.xadd(stream, fields)
        await ends.publish(SwapReport([done("tsk_1")], is_delivery=True))
        async with asyncio.timeout(LONG):
            reports, position = await ends.read("", wait=True)
            while not reports:
                reports, position = await ends.read(position, wait=True)

        assert [report.swaps for report in reports] == [[done("tsk_1")]]
