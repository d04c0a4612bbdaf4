"""Redis is down, frozen, emptied, full, read-only or refuses us: calls continue or say so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from aifaceswap import APIConnectionError, AsyncClient, RateLimitError, RequestBudget
from aifaceswap.emulator import Emulator
from aifaceswap.redis import RedisCoordinator
from aifaceswap.redis._budget import RedisBudget
from support.conditions import until
from support.leaks import places
from support.redis_server import RedisServer

SCOPE = "scope"
PATIENT = 30.0
PASSWORD = "pw_zq9Secret_0123456789"


def local_or_shared(budget: RequestBudget) -> str:
    """By which rules the last requests went."""
    assert isinstance(budget, RedisBudget)
    return "local" if budget._is_unsure else "shared"


async def acquired_from_redis(budget: RequestBudget) -> None:
    """Acquire until a permit comes from Redis again."""
    async with asyncio.timeout(PATIENT):
        while True:
            (await budget.acquire(max_wait=PATIENT)).cancel()
            if local_or_shared(budget) == "shared":
                return
            await asyncio.sleep(0.05)


def permits(server: RedisServer) -> int:
    return int(server.command(f"ZCARD aifaceswap:{{{SCOPE}}}:permits").removeprefix(":"))


async def test_redis_is_down_and_comes_back(
    own_redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, one request in flight, and back to the shared limits by itself."""
    caplog.set_level("INFO", "aifaceswap")
    async with RedisCoordinator(own_redis_server.url, timeout=PATIENT) as shared:
        budget = shared.budget(SCOPE)
        (await budget.acquire()).settle()
        own_redis_server.kill()

        first = await budget.acquire()
        with pytest.raises(RateLimitError):
            await budget.acquire(max_wait=0)
        second = asyncio.ensure_future(budget.acquire())
        first.settle()
        (await second).settle()
        own_redis_server.start()
        await acquired_from_redis(budget)

    texts = [message.partition(" (")[0] for message in caplog.messages]
    assert texts == ["Redis is unreachable", "Redis is reachable again"]
    assert caplog.records[0].levelname == "WARNING"


@pytest.mark.parametrize("on_outage", ["local", "raise"])
async def test_redis_is_down_from_the_beginning(
    own_redis_server: RedisServer, on_outage: str
) -> None:
    """A client works one request at a time, or says what to do; nothing was sent then."""
    own_redis_server.kill()
    with Emulator() as emulator:
        async with (
            RedisCoordinator(
                own_redis_server.url,
                timeout=PATIENT,
                on_outage=on_outage,  # type: ignore[arg-type]
            ) as shared,
            AsyncClient(emulator.api_key, base_url=emulator.base_url, coordinator=shared) as client,
        ):
            if on_outage == "local":
                await asyncio.gather(*(client.me() for _ in range(5)))
                assert len(emulator.requests) == 5
                return
            with pytest.raises(APIConnectionError, match="Redis is unreachable") as caught:
                await client.swaps.create(
                    source_url="https://e.com/f.jpg", target_url="https://e.com/t.jpg"
                )
        assert list(emulator.requests) == []
    assert not caught.value.sent
    assert caught.value.idempotency_key
    assert "on_outage='local'" in str(caught.value)


async def test_redis_is_frozen(own_redis_server: RedisServer) -> None:
    """A call waits for the timeout and goes without it; what Redis does later leaks no permit."""
    async with RedisCoordinator(own_redis_server.url, timeout=0.3) as shared:
        budget = shared.budget(SCOPE)
        await acquired_from_redis(budget)
        own_redis_server.freeze()
        async with asyncio.timeout(PATIENT):
            (await budget.acquire()).settle()
        assert local_or_shared(budget) == "local"
        own_redis_server.thaw()
        await acquired_from_redis(budget)

        await until(lambda: permits(own_redis_server) == 0)


async def test_redis_sleeps(own_redis_server: RedisServer) -> None:
    """A slow script of somebody else: calls do not wait for its end."""
    async with RedisCoordinator(own_redis_server.url, timeout=0.3) as shared:
        budget = shared.budget(SCOPE)
        await acquired_from_redis(budget)
        with own_redis_server.start_command("DEBUG SLEEP 1"):
            while local_or_shared(budget) == "shared":
                (await budget.acquire(max_wait=PATIENT)).cancel()
            await acquired_from_redis(budget)

        await until(lambda: permits(own_redis_server) == 0)


async def test_a_response_is_reported_after_the_outage(own_redis_server: RedisServer) -> None:
    """A permit that was taken before it is free one window after, not after its lease."""
    async with RedisCoordinator(own_redis_server.url, timeout=0.3, per=600.0) as shared:
        budget = shared.budget(SCOPE)
        await acquired_from_redis(budget)
        permit = await budget.acquire()
        own_redis_server.freeze()
        permit.settle()
        await until(lambda: shared._connection.is_down)
        own_redis_server.thaw()

        name = f"aifaceswap:{{{SCOPE}}}:permits"
        latest = time.time() + 600 + PATIENT - 1
        await until(
            lambda: own_redis_server.command(f"ZCOUNT {name} -inf {latest:.0f}") == ":1",
        )


async def test_redis_is_emptied(own_redis_server: RedisServer) -> None:
    """Nothing breaks; one request goes first, and the next ones after its headers."""
    async with RedisCoordinator(own_redis_server.url, timeout=PATIENT) as shared:
        budget = shared.budget(SCOPE)
        before = await budget.acquire()
        before.settle()
        waiting = await budget.acquire()
        own_redis_server.command("FLUSHALL")
        waiting.settle()
        for _ in range(3):
            (await budget.acquire()).settle()

        await until(lambda: permits(own_redis_server) == 4)


REFUSALS: dict[str, tuple[str, ...]] = {
    "a replica": ("REPLICAOF 127.0.0.1 1",),
    "no permission": ("ACL SETUSER default -evalsha -eval",),
    "another password": ("CONFIG SET requirepass other", "CLIENT KILL TYPE normal SKIPME yes"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_redis_refuses(
    own_redis_server: RedisServer, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of memory, read-only after a failover, a new password: as if it were down."""
    url = own_redis_server.url.replace("unix://", f"unix://:{PASSWORD}@")
    own_redis_server.command(f"CONFIG SET requirepass {PASSWORD}")
    async with (
        RedisCoordinator(url, timeout=PATIENT) as shared,
        RedisCoordinator(url, timeout=PATIENT, on_outage="raise") as strict,
    ):
        for coordinator in (shared, strict):
            (await coordinator.budget(SCOPE).acquire()).cancel()
        own_redis_server.commands(f"AUTH {PASSWORD}", *REFUSALS[refusal])

        async with asyncio.timeout(PATIENT):
            while local_or_shared(shared.budget(SCOPE)) == "shared":
                (await shared.budget(SCOPE).acquire()).cancel()
        with pytest.raises(APIConnectionError, match=r"unreachable \(\w+Error: ") as caught:
            await _raised(strict.budget(SCOPE))

    assert places(caught.value, PASSWORD) == []
    assert PASSWORD not in caplog.text


async def _raised(budget: RequestBudget) -> None:
    async with asyncio.timeout(PATIENT):
        while True:
            (await budget.acquire()).cancel()


async def test_redis_is_full(
    own_redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Permits are small, and replace each other: the limits stay shared."""
    async with RedisCoordinator(own_redis_server.url, timeout=PATIENT) as shared:
        own_redis_server.command("CONFIG SET maxmemory 1")
        shared.budget(SCOPE).penalize(0.01)
        (await shared.budget(SCOPE).acquire()).cancel()
        (await shared.budget(SCOPE).acquire()).settle()

    assert permits(own_redis_server) == 1
    assert caplog.messages == []


async def test_a_blocked_event_loop_is_not_an_outage(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The response was there in time; nobody could read it."""
    async with RedisCoordinator(redis_server.url, timeout=1.5) as shared:
        budget = shared.budget(SCOPE)
        await acquired_from_redis(budget)
        caplog.clear()
        call = asyncio.ensure_future(budget.acquire())
        for _ in range(10):
            await asyncio.sleep(0)
        time.sleep(1.9)  # noqa: ASYNC251 - that is what blocks it
        await call

    assert caplog.messages == []


@pytest.mark.parametrize(
    "make",
    [lambda url: lambda: _client(url), lambda url: lambda: _client(url, decode_responses=True)],
    ids=["bytes", "strings"],
)
async def test_a_client_of_ones_own(
    redis_server: RedisServer, make: Callable[[str], Callable[[], object]]
) -> None:
    """For Sentinel, a cluster or options of one's own; it is closed with the coordinator."""
    async with RedisCoordinator(make(redis_server.url), timeout=PATIENT, requests=1) as shared:
        await shared.budget(SCOPE).acquire()
        with pytest.raises(RateLimitError):
            await shared.budget(SCOPE).acquire(max_wait=0)

    assert "connected_clients:1\r" in redis_server.info("clients")


def _client(url: str, **options: bool) -> object:
    from redis.asyncio import Redis

    return Redis.from_url(url, **options)
