"""Deliveries end waits: told by hand, by a `WebhookApp`, and by the emulator's own."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from aifaceswap import (
    AsyncClient,
    Client,
    InvalidRequestError,
    NotFoundError,
    Swap,
    SwapFailedError,
    WaitTimeoutError,
    WebhookEvent,
)
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.webhooks import WebhookApp, aiohttp_handler
from support.hooks import KEY, Message, body_of, serve_app, serve_asgi, serve_handler
from support.samples import URLS

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)
HOOK = "https://shop.example.com/hook"
LOST = "https://shop.example.com/lost"
HOOKED = {**URLS, "webhook_url": HOOK}
LIFE = 30.0


def now() -> float:
    return asyncio.get_running_loop().time()


def polls(emulator: Emulator) -> int:
    return sum(request.method == "GET" for request in emulator.requests)


def done(swap: Swap | str) -> WebhookEvent:
    """The delivery that a swap is done."""
    swap_id = swap.id if isinstance(swap, Swap) else swap
    ended = Swap(id=swap_id, status="done", result_url="https://example.com/r.jpg")
    return WebhookEvent(event="swap.completed", swap=ended)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Its deliveries go nowhere."""
    async with Emulator(api_key=KEY, duration=LIFE, limits=NO_LIMITS, credits=10_000) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(KEY, base_url=emulator.base_url, budget=None) as client:
        yield client


async def test_a_delivery_ends_a_wait_at_once(client: AsyncClient, emulator: Emulator) -> None:
    """Without a request."""
    swap = await client.swaps.create(**HOOKED)
    waits = [asyncio.create_task(client.swaps.wait(wanted)) for wanted in (swap, swap)]
    await asyncio.sleep(0.5)
    began, before = now(), len(emulator.requests)
    client.deliver(done(swap))
    ended = await asyncio.gather(*waits)

    assert [one.status for one in ended] == ["done", "done"]
    assert now() - began < 0.02
    assert len(emulator.requests) == before


async def test_a_delivery_of_a_failure_ends_a_wait(client: AsyncClient) -> None:
    """With the error that a poll would have given."""
    swap = await client.swaps.create(**HOOKED)
    wait = asyncio.create_task(client.swaps.wait(swap))
    await asyncio.sleep(0.5)
    failed = Swap(id=swap.id, status="failed", error={"code": "no_face", "message": "No face."})
    client.deliver(WebhookEvent(event="swap.failed", swap=failed))

    with pytest.raises(SwapFailedError, match="no_face"):
        await wait


async def test_a_delivery_may_come_before_its_wait(client: AsyncClient, emulator: Emulator) -> None:
    """A swap may end before its creation has answered."""
    swap = await client.swaps.create(**HOOKED)
    client.deliver(done(swap))
    before = len(emulator.requests)

    assert (await client.swaps.wait(swap)).status == "done"
    assert (await client.swaps.wait(swap.id)).status == "done"
    assert len(emulator.requests) == before


async def test_a_delivery_that_ends_nothing_ends_no_wait(client: AsyncClient) -> None:
    """An event of another swap, or one that says how far it is."""
    swap = await client.swaps.create(**HOOKED)
    wait = asyncio.create_task(client.swaps.wait(swap, timeout=20))
    await asyncio.sleep(0.5)
    client.deliver(done("tsk_other"))
    half = Swap(id=swap.id, status="processing", progress=50)
    client.deliver(WebhookEvent(event="swap.progress", swap=half))

    with pytest.raises(WaitTimeoutError):
        await wait


async def test_derived_clients_hear_of_it(client: AsyncClient) -> None:
    """They share their waits."""
    swap = await client.swaps.create(**HOOKED)
    wait = asyncio.create_task(client.with_options(timeout=60).swaps.wait(swap))
    await asyncio.sleep(0.5)
    began = now()
    client.with_options(timeout=10).deliver(done(swap))

    assert (await wait).status == "done"
    assert now() - began < 0.02


@pytest.mark.parametrize("event", [b"{}", {"event": "swap.completed"}, None])
async def test_only_what_was_parsed_is_taken_in(client: AsyncClient, event: Any) -> None:
    """A body that nobody has verified must not end a wait."""
    with pytest.raises(InvalidRequestError, match="event"):
        client.deliver(event)


def test_a_blocking_client_is_told_from_another_thread() -> None:
    """As in a Flask app: one thread waits, another receives."""
    with (
        Emulator(api_key=KEY, duration=3600, limits=NO_LIMITS) as emulator,
        Client(KEY, base_url=emulator.base_url) as client,
    ):
        swap = client.swaps.create(**HOOKED)
        ended: list[Swap] = []
        waiting = threading.Thread(target=lambda: ended.append(client.swaps.wait(swap)))
        waiting.start()
        client.deliver(done(swap))
        waiting.join(10)

    assert [one.status for one in ended] == ["done"]


@pytest.mark.parametrize("serve", [serve_app, serve_handler])
async def test_a_server_tells_its_client(client: AsyncClient, serve: Any) -> None:
    """A verified delivery ends the wait; a forged one does not."""
    swap = await client.swaps.create(**HOOKED)
    async with serve(None, KEY, client=client) as receiver:
        wait = asyncio.create_task(client.swaps.wait(swap))
        assert (await receiver.post(body_of(id=swap.id), {})).status == 400
        assert not wait.done()
        assert (await receiver.post(body_of(id=swap.id))).status == 204

        assert (await wait).status == "done"


@pytest.mark.parametrize("make", [WebhookApp, aiohttp_handler])
async def test_a_server_promises_no_deliveries(
    client: AsyncClient, emulator: Emulator, make: Any
) -> None:
    """Another worker behind the same port may get them: they have to prove themselves."""
    make(None, KEY, client=client)
    began = now()
    await client.swaps.run(**HOOKED)

    assert now() - began <= LIFE * 1.25


async def test_waits_end_also_where_the_handler_fails(client: AsyncClient) -> None:
    """The delivery itself was right."""
    swap = await client.swaps.create(**HOOKED)

    def handler(_: WebhookEvent) -> None:
        raise ZeroDivisionError

    async with serve_app(handler, KEY, client=client) as receiver:
        wait = asyncio.create_task(client.swaps.wait(swap))
        assert (await receiver.post(body_of(id=swap.id))).status == 500
        assert (await wait).status == "done"


# --- how often the client polls while deliveries come --------------------------------------


@attrs.frozen
class World:
    """An emulator that delivers to a `WebhookApp` that tells a client."""

    emulator: Emulator
    client: AsyncClient


@attrs.define
class Relay:
    """The emulator needs the receiver's port first, the client the emulator's."""

    client: AsyncClient | None = None

    def deliver(self, event: WebhookEvent) -> None:
        assert self.client is not None
        self.client.deliver(event)

    def expect_deliveries(self) -> None: ...


@pytest.fixture
async def world() -> AsyncIterator[World]:
    relay = Relay()
    hook = WebhookApp(None, KEY, client=relay)

    async def app(scope: Message, receive: Any, send: Any) -> None:
        # What goes to `/lost` is posted nowhere: 405, however often it is tried.
        lost = scope["path"] == "/lost"
        await hook({**scope, "method": "GET"} if lost else scope, receive, send)

    async with (
        serve_asgi(app) as receiver,
        Emulator(
            api_key=KEY,
            duration=LIFE,
            limits=NO_LIMITS,
            credits=10_000,
            deliver_to=f"http://127.0.0.1:{receiver.port}",
        ) as emulator,
        AsyncClient(KEY, base_url=emulator.base_url, budget=None) as client,
    ):
        relay.client = client
        yield World(emulator, client)


async def test_a_thousand_runs_need_no_poll(world: World) -> None:
    """Where deliveries are expected, and come."""
    world.client.expect_deliveries()
    ended = await asyncio.gather(*(world.client.swaps.run(**HOOKED) for _ in range(1000)))

    assert {swap.status for swap in ended} == {"done"}
    assert polls(world.emulator) <= 20


async def test_polls_cease_while_deliveries_keep_coming(world: World) -> None:
    """Eight of a process's own in a row prove them."""
    counts = []
    for _ in range(10):
        before = polls(world.emulator)
        await world.client.swaps.run(**HOOKED)
        counts.append(polls(world.emulator) - before)

    assert counts[0] > 3
    assert counts[-2:] == [0, 0]


async def test_swaps_without_a_webhook_are_polled_as_ever(world: World) -> None:
    """Nobody will tell of them."""
    world.client.expect_deliveries()
    fields = {**HOOKED, "webhook_url": None}
    began = now()
    await world.client.swaps.run(**fields)

    assert now() - began <= LIFE * 1.25
    assert polls(world.emulator) > 3


async def test_who_shows_progress_is_shown_it(world: World) -> None:
    """A wait with `on_update` is polled; the delivery ends it all the same."""
    world.client.expect_deliveries()
    swap = await world.client.swaps.create(**HOOKED)
    shown: list[float] = []
    began = now()
    await world.client.swaps.wait(swap, on_update=lambda seen: shown.append(seen.progress or 0))

    assert shown == sorted(shown)
    assert 3 < polls(world.emulator) < LIFE
    assert now() - began <= LIFE + 0.1


async def test_a_missed_delivery_is_noticed_and_polls_come_back(
    client: AsyncClient, emulator: Emulator
) -> None:
    """The first is found when it is overdue, the next ones as if there were no deliveries."""
    client.expect_deliveries()
    took = []
    for _ in range(3):
        began = now()
        assert (await client.swaps.run(**HOOKED)).status == "done"
        took.append(now() - began)

    assert LIFE <= took[0] <= LIFE * 2
    assert max(took[1:]) <= LIFE * 1.25


async def test_a_delivery_that_was_only_late_is_relied_on(
    client: AsyncClient, emulator: Emulator
) -> None:
    """It came, after a poll had found the end."""
    client.expect_deliveries()
    swap = await client.swaps.run(**HOOKED)
    client.deliver(done(swap))
    before = polls(emulator)
    began = now()
    await client.swaps.run(**HOOKED)

    assert now() - began == pytest.approx(45, abs=0.2)
    assert polls(emulator) - before == 1


async def test_one_delivery_ten_times_proves_no_more_than_once(
    client: AsyncClient, emulator: Emulator
) -> None:
    """Polls continue as ever."""
    for _ in range(10):
        client.deliver(done("tsk_other"))
    await client.swaps.run(**HOOKED)

    assert polls(emulator) > 3


async def test_old_deliveries_are_forgotten(client: AsyncClient) -> None:
    """The newest thousand are remembered for waits that begin after them."""
    for number in range(1001):
        client.deliver(done(f"tsk_{number}"))

    assert (await client.swaps.wait("tsk_1")).status == "done"
    with pytest.raises(NotFoundError):
        await client.swaps.wait("tsk_0")


async def test_one_missed_among_many_is_found(world: World) -> None:
    """Two seconds after swaps usually finish; the others need no poll."""
    world.client.expect_deliveries()
    await world.client.swaps.run(**HOOKED)
    swaps = await asyncio.gather(*(world.client.swaps.create(**HOOKED) for _ in range(20)))
    missed = await world.client.swaps.create(**{**HOOKED, "webhook_url": LOST})
    before, began = polls(world.emulator), now()

    ended = await asyncio.gather(*(world.client.swaps.wait(one) for one in [*swaps, missed]))

    assert {swap.status for swap in ended} == {"done"}
    assert now() - began <= LIFE + 2.2
    assert polls(world.emulator) - before <= 3


async def test_a_slow_swap_is_polled_now_and_then(world: World) -> None:
    """Each time that its delivery is overdue."""
    world.client.expect_deliveries()
    await world.client.swaps.run(**HOOKED)
    slow = {**HOOKED, "source_url": "https://example.com/slow.jpg"}
    assert (await world.client.swaps.run(**slow, timeout=400)).status == "done"
    looks = [request.at for request in world.emulator.requests if request.method == "GET"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]

    assert 2 <= len(looks) <= 6
    assert min(gaps) >= LIFE
