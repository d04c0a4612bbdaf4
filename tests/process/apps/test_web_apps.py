"""One client inside each web framework: the apps of docs/web-apps.md do what the page says."""

from __future__ import annotations

import asyncio
import os

import aiohttp
import pytest

from aifaceswap import AsyncClient
from aifaceswap.budget import shared_budget
from aifaceswap.emulator import Emulator
from aifaceswap.emulator.faults import Fault, Latency, Status
from process.apps.sites import WORDS, Reply, Site

everywhere = pytest.mark.parametrize("name", WORDS)

LOST = (aiohttp.ClientError, TimeoutError)


def now() -> float:
    return asyncio.get_running_loop().time()


def polls(emulator: Emulator) -> int:
    return sum(request.method == "GET" for request in emulator.requests)


async def hang_up(site: Site, number: int, seconds: float = 1.0) -> None:
    """Order a swap and go away while the handler is at work."""
    with pytest.raises(TimeoutError):
        await site.create(number, timeout=seconds)


async def use_up(emulator: Emulator) -> None:
    """Take every permit of the budget that the app's client shares."""
    budget = shared_budget(emulator.base_url, emulator.api_key)
    for _ in range(60):
        (await budget.acquire(max_wait=0)).settle()


# --- start and use -------------------------------------------------------------------------


@everywhere
async def test_an_order_is_made_and_shown(name: str, emulator: Emulator) -> None:
    """Created, waited for, and the same order is the same swap."""
    async with Site(name) as site:
        made = await site.create(7)
        shown = await site.show(made.json["id"])
        again = await site.create(7)
    assert (made.status, shown.status, again.status) == (202, 200, 202)
    assert shown.json["status"] == "done"
    assert shown.json["result_url"].startswith("http")
    (swap,) = emulator.swaps
    assert swap.id == made.json["id"] == again.json["id"]
    assert swap.idempotency_key == "order-7"


@everywhere
async def test_a_hundred_handlers_share_their_looks(name: str, emulator: Emulator) -> None:
    """They cost no more requests than the waits of one."""
    async with Site(name) as site:
        made = await asyncio.gather(*(site.create(number) for number in range(20)))
        before = polls(emulator)
        shown = await asyncio.gather(*(site.show(one.json["id"]) for one in made for _ in range(5)))
    assert {(one.status, one.json["status"]) for one in shown} == {(200, "done")}
    assert polls(emulator) - before <= 5


async def test_a_dependency_of_fastapi_is_overridden(emulator: Emulator) -> None:
    """Another client takes the place of the app's."""

    async def get_another() -> AsyncClient:
        return another

    async with AsyncClient("key_another") as another, Site("fastapi") as site:
        site.shop.app.dependency_overrides[site.shop.get_client] = get_another
        assert (await site.create(7)).status == 500
    assert [request.status for request in emulator.requests] == [401]


# --- limits --------------------------------------------------------------------------------


@everywhere
async def test_a_full_budget_is_answered_at_once(name: str, emulator: Emulator) -> None:
    """503 with Retry-After, within `max_wait`, to fifty at once; nothing is sent or queued."""
    async with Site(name) as site:
        await use_up(emulator)
        await asyncio.sleep(50)
        began = now()
        replies = await asyncio.gather(*(site.create(number) for number in range(50)))
        assert now() - began < 0.5
        assert {reply.status for reply in replies} == {503}
        assert {int(reply.headers["Retry-After"]) for reply in replies} <= {9, 10, 11}
        assert emulator.requests == ()
        await asyncio.sleep(11)
        assert (await site.create(7)).status == 202


@everywhere
async def test_a_429_is_answered_at_once(name: str, emulator: Emulator) -> None:
    """Its Retry-After is passed on, also to those who come while it lasts."""
    emulator.add_fault(Fault("POST /swaps", Status(429, retry_after=10)))
    async with Site(name) as site:
        began = now()
        replies = [await site.create(1), await site.create(2)]
        assert now() - began < 0.5
        assert [reply.status for reply in replies] == [503, 503]
        assert [reply.headers["Retry-After"] for reply in replies] == ["10", "10"]
        assert len(emulator.requests) == 1


# --- shutdown ------------------------------------------------------------------------------


@everywhere
async def test_a_call_under_way_is_finished(name: str, emulator: Emulator) -> None:
    """The server stops when its answer has gone out."""
    emulator.add_fault(Fault("POST /swaps", Latency(5)))
    async with Site(name) as site:
        order = asyncio.create_task(site.create(7))
        while not emulator.swaps:
            await asyncio.sleep(0.01)
        await site.stop()
        assert (await order).status == 202
    assert len(emulator.swaps) == 1


@everywhere
async def test_a_call_that_is_cut_off_loses_nothing(name: str, emulator: Emulator) -> None:
    """The swap exists once; after the restart the same order finds it."""
    emulator.add_fault(Fault("POST /swaps", Latency(15)))
    async with Site(name, grace=1) as site:
        order = asyncio.create_task(_outcome(site, 7))
        while not emulator.swaps:
            await asyncio.sleep(0.01)
        began = now()
        await site.stop()
        assert now() - began < 10
        reply = await order
    async with Site(name) as site:
        found = await site.create(7)
    assert [swap.id for swap in emulator.swaps] == [found.json["id"]]
    # Most often it is lost; Django's view may still find the answer by a second attempt.
    assert reply is None or reply.status == 500 or reply.json["id"] == found.json["id"]


async def _outcome(site: Site, number: int) -> Reply | None:
    try:
        return await site.create(number)
    except LOST:
        return None


# --- callers who hang up -------------------------------------------------------------------


@everywhere
async def test_a_caller_who_hangs_up_leaves_nothing_behind(name: str, emulator: Emulator) -> None:
    """No swap is made twice, no permit stays taken, no connection open."""
    emulator.add_fault(Fault("POST /swaps", Latency(5), times=30))
    settings = {"handler_cancellation": True} if name == "aiohttp" else {}
    async with Site(name, **settings) as site:
        before = _open_files()
        await asyncio.gather(*(hang_up(site, number) for number in range(30)))
        await asyncio.sleep(90)
        assert _open_files() <= before
        await use_up(emulator)
        await asyncio.sleep(90)
        made = await asyncio.gather(*(site.create(number) for number in range(30)))
    assert len(emulator.swaps) == len({one.json["id"] for one in made}) == 30


def _open_files() -> int:
    """How many this process has, its connections included."""
    return len(os.listdir("/dev/fd"))


@everywhere
async def test_what_a_lost_caller_does_to_the_handler(name: str, emulator: Emulator) -> None:
    """As the page's table says."""
    cancelled = {"aiohttp": True, "django": True}.get(name, False)
    settings = {"handler_cancellation": True} if name == "aiohttp" else {}
    emulator.add_fault(Fault("POST /swaps", Status(503, retry_after=5)))
    async with Site(name, **settings) as site:
        await hang_up(site, 7)
        await asyncio.sleep(30)
    assert len(emulator.swaps) == (0 if cancelled else 1)
