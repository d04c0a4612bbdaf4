"""Clients that share a `RedisCoordinator`."""

from __future__ import annotations

from typing import Any

import pytest

from aifaceswap import AsyncClient, Budget, Client, ConfigurationError
from aifaceswap.emulator import Emulator
from aifaceswap.redis import RedisCoordinator
from support.leaks import places
from support.redis_server import RedisServer


@pytest.mark.parametrize("client", [AsyncClient, Client])
async def test_a_budget_beside_a_coordinator(
    client: type[AsyncClient | Client], redis_server: RedisServer
) -> None:
    """Each would limit the requests: only one of them can be given."""
    for budget in (None, Budget()):
        with pytest.raises(ConfigurationError, match="budget must be left out") as caught:
            client("key", budget=budget, coordinator=RedisCoordinator(redis_server.url))
        assert caught.value.field == "budget"


@pytest.mark.parametrize("client", [AsyncClient, Client])
@pytest.mark.parametrize("wrong", ["redis://:pw_zq9Secret_0123456789@localhost", object(), 3])
def test_what_is_not_a_coordinator(client: type[AsyncClient | Client], wrong: Any) -> None:
    """It is rejected at once, and not shown: it may be a URL with a password."""
    with pytest.raises(ConfigurationError, match="must be a Coordinator") as caught:
        client("key", coordinator=wrong)

    assert caught.value.field == "coordinator"
    assert places(caught.value, "pw_zq9Secret_0123456789") == []


async def test_calls_take_their_permits_from_redis(redis_server: RedisServer) -> None:
    """A call works as without a coordinator, and leaves keys of its scope that expire."""
    shared = RedisCoordinator(redis_server.url)
    with Emulator() as emulator:
        async with AsyncClient(
            emulator.api_key, base_url=emulator.base_url, coordinator=shared
        ) as client:
            assert (await client.me()).credits.total > 0
            assert client.budget is not None
    await shared.aclose()

    assert redis_server.command("DBSIZE") != ":0"
