"""Webhook deliveries: signed, redirected to loopback, retried by the emulator's clock."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from aifaceswap.emulator import Emulator, VirtualClock
from aifaceswap.emulator._service.delivery_queue import sign
from support.emulator_receiver import HOOK, Receiver, create
from support.emulator_world import SWAP

if TYPE_CHECKING:
    pass


def test_the_signature_is_the_worked_example_of_the_contract() -> None:
    """HMAC-SHA256 with the API key over timestamp, dot and raw body."""
    signature = sign("key_test_123", b'{"event":"swap.completed","id":"tsk_1"}', 1_760_000_000)

    assert signature == (
        "t=1760000000,v1=cee582b09284b4f073d461a5cea4c948301100115120c7ab36c27f5d40ee6cfb"
    )


@pytest.mark.parametrize(
    ("name", "event", "status"),
    [("face.jpg", "swap.completed", "done"), ("fails.jpg", "swap.failed", "failed")],
)
async def test_the_end_of_a_swap_is_delivered(name: str, event: str, status: str) -> None:
    """One signed POST when the swap ends: the swap and the event, to the path asked for."""
    async with (
        Receiver().serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        url = f"https://example.com/{name}"
        swap_id = await create(emulator, source_url=url, metadata={"row": 1})
        emulator.advance(2.9)
        await emulator.settle()
        early = len(receiver.received)
        emulator.advance(0.1)
        await emulator.settle()
        (delivery,) = emulator.deliveries
        ((path, headers, body),) = receiver.received
    value = json.loads(body)

    assert early == 0
    assert path == "/hooks/swap%20done?shop=7&a=%2F"
    assert (value["event"], value["id"], value["status"]) == (event, swap_id, status)
    assert value["metadata"] == {"row": 1}
    assert headers["Content-Type"] == "application/json"
    assert headers["x-aifaceswap-signature"] == sign(emulator.api_key, body, 1_767_225_603)
    assert (delivery.state, delivery.swap_id, delivery.event) == ("delivered", swap_id, event)
    assert [attempt.status for attempt in delivery.attempts] == [204]


async def test_a_refused_delivery_is_sent_again_later() -> None:
    """Anything but 2xx is retried after 5, 30, 120 and 600 s: same body, fresh signature."""
    async with (
        Receiver([500, 302, 404]).serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        await create(emulator)
        counts = []
        for seconds in (3, 4.9, 0.1, 29.9, 0.1, 119.9, 0.1, 10_000):
            emulator.advance(seconds)
            await emulator.settle()
            counts.append(len(receiver.received))
        (delivery,) = emulator.deliveries

    assert counts == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [attempt.status for attempt in delivery.attempts] == [500, 302, 404, 204]
    assert len({body for _, _, body in receiver.received}) == 1
    assert len({headers["x-aifaceswap-signature"] for _, headers, _ in receiver.received}) == 4


async def test_a_delivery_is_given_up_after_five_attempts() -> None:
    """A receiver that is not there leaves a failed delivery with what went wrong."""
    async with Emulator(clock=VirtualClock(), deliver_to="http://127.0.0.1:9") as emulator:
        await create(emulator)
        for seconds in (3, 5, 30, 120, 600, 10_000):
            emulator.advance(seconds)
            await emulator.settle()
        (delivery,) = emulator.deliveries

    assert (delivery.state, len(delivery.attempts)) == ("failed", 5)
    assert all(attempt.status is None for attempt in delivery.attempts)
    assert all("ClientConnectorError" in (attempt.error or "") for attempt in delivery.attempts)


async def test_a_receiver_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time counts as a failed attempt."""
    monkeypatch.setattr("aifaceswap.emulator._server.webhook_sender.TIMEOUT", 0.05)
    async with (
        Receiver(hang=True).serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        (attempt,) = emulator.deliveries[0].attempts

    assert attempt.status is None
    assert "Timeout" in (attempt.error or "")


async def test_nothing_leaves_the_machine() -> None:
    """Without deliver_to a delivery is recorded as undeliverable, and not attempted."""
    async with Emulator(clock=VirtualClock()) as emulator:
        swap_id = await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        (delivery,) = emulator.deliveries

    assert (delivery.state, delivery.url, delivery.attempts) == ("undeliverable", None, ())
    assert (delivery.swap_id, delivery.webhook_url) == (swap_id, HOOK)


async def test_only_ended_swaps_with_a_webhook_are_delivered() -> None:
    """No webhook_url, or a swap that never ends: no delivery."""
    async with (
        Receiver().serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        await create(emulator, webhook_url=None)
        await create(emulator, source_url="https://example.com/forever.jpg")
        emulator.advance(1e6)
        await emulator.settle()

    assert (emulator.deliveries, receiver.received) == ((), [])


async def test_a_replayed_creation_is_delivered_once() -> None:
    """The same Idempotency-Key twice is one swap and one delivery."""
    async with Emulator(clock=VirtualClock()) as emulator:
        headers = {"Authorization": f"Bearer {emulator.api_key}", "Idempotency-Key": "k"}
        async with aiohttp.ClientSession(headers=headers) as http:
            for _ in range(2):
                await http.post(f"{emulator.base_url}/swaps", json={**SWAP, "webhook_url": HOOK})
        emulator.advance(3)
        await emulator.settle()

    assert len(emulator.deliveries) == 1


async def test_deliveries_are_made_in_the_order_of_their_ends() -> None:
    """An earlier end wakes the sender that slept for a later one."""
    async with (
        Receiver().serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        slow = await create(emulator, source_url="https://example.com/slow.jpg")
        quick = await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        emulator.advance(27)
        await emulator.settle()

    assert [json.loads(body)["id"] for _, _, body in receiver.received] == [quick, slow]


async def test_a_real_clock_delivers_by_itself() -> None:
    """With the default clock nobody has to advance anything."""
    async with (
        Receiver().serve() as receiver,
        Emulator(duration=0.0, deliver_to=receiver.origin) as emulator,
        asyncio.timeout(5),
    ):
        await create(emulator)
        await receiver.arrived.wait()


async def test_stopping_does_not_wait_for_deliveries() -> None:
    """A delivery under way is dropped at the stop, without a trace of a task."""
    async with Receiver(hang=True).serve() as receiver:
        before = asyncio.all_tasks()
        async with Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator:
            await create(emulator)
            emulator.advance(3)
            await receiver.arrived.wait()
            started = asyncio.get_running_loop().time()
        stopped = asyncio.get_running_loop().time()
        left = {task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)}

    assert stopped - started < 1
    assert left == set()


async def test_an_ascii_and_a_unicode_webhook_url_arrive() -> None:
    """Paths that are no ASCII are percent-encoded on the way."""
    async with (
        Receiver().serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin + "/") as emulator,
    ):
        await create(emulator, webhook_url="https://example.com/häppy?x=ü")
        await create(emulator, webhook_url="https://example.com")
        emulator.advance(3)
        await emulator.settle()

    assert sorted(path for path, _, _ in receiver.received) == ["/", "/h%C3%A4ppy?x=%C3%BC"]
