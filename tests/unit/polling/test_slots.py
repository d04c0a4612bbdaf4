"""Slots of one process: `swaps.slot()` without a coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from aifaceswap import AsyncClient, Client, ConcurrencyLimitError, InvalidRequestError, Swap
from aifaceswap._polling import slots
from aifaceswap.emulator import Emulator, Limits
from support.samples import URLS, delivery
from support.virtual_time import VirtualTimeLoop


@pytest.fixture
async def service() -> AsyncIterator[Emulator]:
    """Swaps of 30 s, ten of which may be unfinished."""
    limits = Limits(per_minute=None, per_day=None)
    async with Emulator(duration=30, limits=limits, credits=100_000) as emulator:
        yield emulator


@pytest.fixture
async def client(service: Emulator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.api_key, base_url=service.base_url, budget=None) as client:
        yield client


async def create(client: AsyncClient, key: str) -> Swap:
    """A job that does not wait for its swap."""
    async with client.swaps.slot(key):
        return await client.swaps.create(**URLS, idempotency_key=key)


async def is_free(client: AsyncClient) -> bool:
    try:
        async with client.swaps.slot("free?", max_wait=0):
            return True
    except ConcurrencyLimitError:
        return False


async def test_jobs_wait_for_slots(client: AsyncClient, service: Emulator) -> None:
    """Thirty jobs, ten at a time: the service refuses none, whoever waits for their swaps."""

    async def job(number: int) -> Swap:
        key = f"job-{number}"
        async with client.swaps.slot(key):
            return await client.swaps.run(**URLS, idempotency_key=key)

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(job(number) for number in range(15)))
    await asyncio.gather(*(create(client, f"more-{number}") for number in range(15)))
    seconds = asyncio.get_running_loop().time() - began

    assert 429 not in [request.status for request in service.requests]
    assert len(service.swaps) == 30
    assert seconds < 150


async def test_who_sees_the_end_frees_the_slot(client: AsyncClient) -> None:
    """A wait, a delivery, a poll, a list, and a client with other options."""
    swaps = [await create(client, f"{number}") for number in range(10)]
    assert not await is_free(client)
    client.deliver(delivery(swaps[0]))
    assert await is_free(client)
    await create(client, "again")
    await asyncio.sleep(31)
    assert not await is_free(client)
    await client.swaps.get(swaps[1].id)
    assert await is_free(client)
    await create(client, "wait")
    await client.with_options(max_retries=0).swaps.wait(swaps[2].id)
    assert await is_free(client)
    await create(client, "list")
    await client.swaps.list()
    async with AsyncExitStack() as stack:
        for number in range(8):
            await stack.enter_async_context(client.swaps.slot(f"new-{number}", max_wait=0))
        assert not await is_free(client)


async def test_a_slot_is_kept_for_as_long_as_its_block_runs(client: AsyncClient) -> None:
    """Also if the swap is created after minutes."""
    async with AsyncExitStack() as stack:
        for number in range(10):
            await stack.enter_async_context(client.swaps.slot(f"{number}"))
        await asyncio.sleep(600)
        assert not await is_free(client)
        await client.swaps.create(**URLS, idempotency_key="0")
    async with AsyncExitStack() as stack:
        for number in range(9):
            await stack.enter_async_context(client.swaps.slot(f"b{number}", max_wait=0))
        assert not await is_free(client)


async def test_a_swap_that_never_finishes(client: AsyncClient) -> None:
    """Its slot is free again after 15 minutes: the service may have forgotten the swap."""
    await asyncio.gather(*(create(client, f"{number}") for number in range(10)))
    assert not await is_free(client)
    await asyncio.sleep(901)
    assert await is_free(client)


async def test_creating_without_a_slot_counts_nothing(client: AsyncClient) -> None:
    """Who uses no slots pays nothing for them."""
    await asyncio.gather(*(client.swaps.create(**URLS) for _ in range(10)))
    assert await is_free(client)


@pytest.mark.parametrize(
    ("key", "max_wait", "field"),
    [("", None, "idempotency_key"), ("key", -1, "max_wait"), ("key", "x", "max_wait")],
)
async def test_wrong_arguments(
    client: AsyncClient, key: str, max_wait: float | None, field: str
) -> None:
    """They are rejected before the block is entered."""
    with pytest.raises(InvalidRequestError) as caught:
        client.swaps.slot(key, max_wait=max_wait)
    assert caught.value.field == field


def test_clients_of_one_key_share_them() -> None:
    """In all threads; another key has its own."""
    slots.forget_local()
    with Emulator(duration=600, credits=1000) as service:
        clients = [
            Client(key, base_url=service.base_url, budget=None)
            for key in (service.api_key, service.api_key, "another_key")
        ]
        for number in range(10):
            with clients[0].swaps.slot(f"{number}"):
                clients[0].swaps.create(**URLS, idempotency_key=f"{number}")
        with (
            pytest.raises(ConcurrencyLimitError, match="no slot is free after 0 s"),
            clients[1].swaps.slot("key", max_wait=0),
        ):
            raise AssertionError
        with clients[2].swaps.slot("key", max_wait=0):
            pass
        for client in clients:
            client.close()


async def test_those_who_wait_come_first(client: AsyncClient) -> None:
    """In the order in which they came."""
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    order = []

    async def job(number: int) -> None:
        async with client.swaps.slot(f"job-{number}"):
            order.append(number)

    swaps = [await create(client, f"{number}") for number in range(10)]
    jobs = [asyncio.create_task(job(number)) for number in range(3)]
    await asyncio.sleep(1)
    client.deliver(delivery(swaps[0]))
    await asyncio.gather(*jobs)
    assert order == [0, 1, 2]
