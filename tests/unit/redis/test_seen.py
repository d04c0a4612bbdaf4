"""Each delivery is handled once by all workers."""

from __future__ import annotations

import asyncio

import pytest
import redis

from aifaceswap import APIConnectionError, ConfigurationError, WebhookEvent, webhooks
from aifaceswap.webhooks import WebhookApp
from support.redis_server import RedisServer
from support.redis_workers import LONG, coordinator
from support.samples import KEY

BODY = b'{"event":"swap.completed","id":"tsk_1"}'
NAME = "swap.completed:tsk_1"


async def test_claims_belong_to_their_tokens(redis_server: RedisServer) -> None:
    """Only the owner releases, commits and renews."""
    async with coordinator(redis_server) as one, coordinator(redis_server) as two:
        store, other = one.seen(), two.seen()
        claim = await store.claim(NAME)
        assert (claim.state, claim.lease) == ("new", 60.0)
        assert (await other.claim(NAME)).state == "busy"
        await other.release(NAME, "another's")
        await other.commit(NAME, "another's")
        assert not await other.renew(NAME, "another's")
        assert (await other.claim(NAME)).state == "busy"
        assert await store.renew(NAME, claim.token)
        await store.release(NAME, claim.token)

        again = await other.claim(NAME)
        assert again.state == "new"
        await other.commit(NAME, again.token)
        assert (await store.claim(NAME)).state == "done"
        assert not await other.renew(NAME, again.token)


async def test_a_claim_that_is_not_renewed_expires(redis_server: RedisServer) -> None:
    """Its worker was killed. One that was only slow can still commit."""
    async with coordinator(redis_server) as shared:
        store = shared.seen(lease=0.1)
        slow = await store.claim(NAME)
        async with asyncio.timeout(LONG):
            while (claim := await store.claim(NAME)).state != "new":
                await asyncio.sleep(0.01)
        await store.release(NAME, slow.token)
        await store.release(NAME, claim.token)
        await store.commit(NAME, slow.token)

        assert (await store.claim(NAME)).state == "done"


async def test_names_expire(redis_server: RedisServer) -> None:
    """A claim with its lease, a delivery that was handled after a day."""
    async with coordinator(redis_server) as shared:
        store = shared.seen(lease=30, ttl=100)
        await store.claim("claimed")
        await store.commit("done", (await store.claim("done")).token)

    with redis.Redis.from_url(redis_server.url) as server:
        assert 0 < server.ttl("aifaceswap:seen:claimed") <= 30
        assert 30 < server.ttl("aifaceswap:seen:done") <= 100


async def test_two_workers_get_the_same_delivery(redis_server: RedisServer) -> None:
    """At the same moment, and again later: one handles it."""
    handled: list[WebhookEvent] = []

    async def handle(event: WebhookEvent) -> None:
        await asyncio.sleep(0.1)
        handled.append(event)

    async with coordinator(redis_server) as one, coordinator(redis_server) as two:
        apps = [WebhookApp(handle, KEY, seen=shared.seen()) for shared in (one, two)]

        async def deliver() -> list[int]:
            header = webhooks.sign(BODY, KEY)
            received = (app._receiver.receive(BODY, header) for app in apps)
            return sorted([verdict.status for verdict in await asyncio.gather(*received)])

        assert await deliver() == [204, 503]
        assert await deliver() == [204, 204]
    assert len(handled) == 1


@pytest.mark.parametrize("on_outage", ["local", "raise"])
async def test_an_outage(own_redis_server: RedisServer, on_outage: str) -> None:
    """Each worker remembers its own deliveries, or handles none."""
    async with coordinator(own_redis_server, timeout=0.3, on_outage=on_outage) as shared:
        store = shared.seen()
        claim = await store.claim("in progress")
        own_redis_server.kill()
        assert await store.renew("in progress", claim.token)
        await store.commit("in progress", claim.token)

        if on_outage == "raise":
            with pytest.raises(APIConnectionError, match="Redis is unreachable"):
                await store.claim(NAME)
        else:
            claim = await store.claim(NAME)
            assert claim.state == "new"
            assert (await store.claim(NAME)).state == "busy"
            await store.commit(NAME, claim.token)
            assert (await store.claim(NAME)).state == "done"


@pytest.mark.parametrize("name", ["lease", "ttl"])
async def test_what_is_not_a_time(redis_server: RedisServer, name: str) -> None:
    """It is rejected by its name."""
    async with coordinator(redis_server) as shared:
        with pytest.raises(ConfigurationError) as caught:
            shared.seen(**{name: 0.0})
        assert caught.value.field == name
