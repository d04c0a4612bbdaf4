"""Faults of webhook deliveries, and deliveries that are made again on demand."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from aifaceswap import AsyncClient, WebhookVerificationError, webhooks
from aifaceswap.emulator import Emulator, Fault, VirtualClock, faults
from support.emulator_receiver import HOOK, Receiver, create
from support.emulator_world import SWAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aifaceswap.emulator.faults import WebhookAction

ENDS = 1_767_225_603


def ids(receiver: Receiver) -> list[str]:
    return [json.loads(body)["id"] for _, _, body in receiver.received]


def verify(delivery: tuple[str, dict[str, str], bytes], key: str, now: float) -> Any:
    _, headers, body = delivery
    return webhooks.parse(body, headers["x-aifaceswap-signature"], [key], now=now)


async def deliver(
    *script: Fault, count: int = 1, seconds: Sequence[float] = (3,)
) -> tuple[Receiver, Emulator, list[str]]:
    """Create swaps, let them end, and go on by these seconds; what arrived, and the ids."""
    async with (
        Receiver().serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin, faults=script) as emulator,
    ):
        created = []
        for _ in range(count):
            created.append(await create(emulator))
            emulator.advance(0.001)
        for each in seconds:
            emulator.advance(each)
            await emulator.settle()
    return receiver, emulator, created


async def test_a_duplicate_arrives_twice() -> None:
    """The same bytes with the same signature, and one attempt on the record."""
    receiver, emulator, _ = await deliver(Fault("webhook", faults.Duplicate()))
    first, second = receiver.received
    (delivery,) = emulator.deliveries

    assert first[2] == second[2]
    assert first[1]["x-aifaceswap-signature"] == second[1]["x-aifaceswap-signature"]
    assert (delivery.state, len(delivery.attempts)) == ("delivered", 1)
    assert delivery.attempts[0].fault == faults.Duplicate()


async def test_a_late_delivery_comes_by_the_emulators_clock() -> None:
    """Not before its time, once, and with the signature of that moment."""
    script = Fault("webhook", faults.Late(600), times=None)
    receiver, emulator, _ = await deliver(script, seconds=(3, 599.9, 0.1, 10_000))
    (delivery,) = emulator.deliveries

    assert len(receiver.received) == 1
    assert delivery.attempts[0].at == pytest.approx(ENDS + 600, abs=0.01)
    assert verify(receiver.received[0], emulator.api_key, ENDS + 600)
    assert emulator.faults[0].applied == 1


async def test_a_reordered_delivery_comes_after_the_next() -> None:
    """The first of three arrives second; the last of all would wait for ever."""
    receiver, emulator, created = await deliver(
        Fault("webhook", faults.Reorder()), count=3, seconds=(3,)
    )
    assert ids(receiver).index(created[0]) > 0
    assert sorted(ids(receiver)) == sorted(created)

    receiver, emulator, _ = await deliver(Fault("webhook", faults.Reorder()), seconds=(3, 10_000))
    assert (receiver.received, emulator.deliveries[0].state) == ([], "pending")


async def test_a_bad_signature_is_refused_and_the_next_is_right() -> None:
    """Each attempt meets faults on its own: a retry of the delivery is signed well."""
    receiver = Receiver([400])
    async with (
        receiver.serve(),
        Emulator(
            clock=VirtualClock(),
            deliver_to=receiver.origin,
            faults=[Fault("webhook", faults.BadSignature())],
        ) as emulator,
    ):
        await create(emulator)
        for seconds in (3, 5):
            emulator.advance(seconds)
            await emulator.settle()
    first, second = receiver.received

    with pytest.raises(WebhookVerificationError):
        verify(first, emulator.api_key, ENDS)
    assert verify(second, emulator.api_key, ENDS + 5).swap.status == "done"


async def test_a_dropped_delivery_never_comes() -> None:
    """Its sender believes that it arrived."""
    receiver, emulator, created = await deliver(
        Fault("webhook", faults.Drop()), count=2, seconds=(3, 10_000)
    )

    assert ids(receiver) == created[1:]
    assert [delivery.state for delivery in emulator.deliveries] == ["dropped", "delivered"]
    assert emulator.deliveries[0].attempts == ()


@pytest.mark.parametrize("seconds", [-301, 301])
async def test_a_clock_that_is_wrong_makes_a_delivery_stale(seconds: float) -> None:
    """The signature is good, of another time."""
    receiver, emulator, _ = await deliver(Fault("webhook", faults.ClockSkew(seconds)))
    (delivery,) = receiver.received

    with pytest.raises(WebhookVerificationError, match="300"):
        verify(delivery, emulator.api_key, ENDS)
    event = verify(delivery, emulator.api_key, ENDS + seconds)
    assert event.swap.created_at.timestamp() == ENDS - 3 + seconds


async def test_only_the_event_that_is_meant_is_struck() -> None:
    """`webhook swap.failed` leaves completed swaps alone."""
    async with (
        Receiver().serve() as receiver,
        Emulator(
            clock=VirtualClock(),
            deliver_to=receiver.origin,
            faults=[Fault("webhook swap.failed", faults.Drop(), times=None)],
        ) as emulator,
    ):
        good = await create(emulator)
        await create(emulator, source_url="https://example.com/fails.jpg")
        emulator.advance(3)
        await emulator.settle()

    assert ids(receiver) == [good]
    assert (emulator.faults[0].seen, emulator.faults[0].applied) == (1, 1)


@pytest.mark.parametrize(
    "action", [faults.Drop(), faults.BadSignature(), faults.Late(3600), faults.Reorder()], ids=repr
)
async def test_a_wait_ends_without_the_delivery(action: WebhookAction) -> None:
    """Whatever becomes of its delivery, a swap is waited for to its end."""
    async with (
        Receiver().serve() as receiver,
        Emulator(
            duration=0.0, deliver_to=receiver.origin, faults=[Fault("webhook", action)]
        ) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url) as client,
    ):
        swap = await client.swaps.run(
            source_url=SWAP["source_url"], target_url=SWAP["target_url"], webhook_url=HOOK
        )

    assert swap.status == "done"


# --- redeliver() ---------------------------------------------------------------------------


async def test_a_delivery_is_made_again_on_demand() -> None:
    """Failed or delivered: one more attempt, at once, with the same body."""
    async with (
        Receiver([500] * 5).serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        await create(emulator)
        for seconds in (3, 5, 30, 120, 600):
            emulator.advance(seconds)
            await emulator.settle()
        (failed,) = emulator.deliveries
        emulator.redeliver(failed.id)
        await emulator.settle()
        emulator.redeliver(failed.id)
        await emulator.settle()
        (delivered,) = emulator.deliveries

    assert (failed.state, len(failed.attempts)) == ("failed", 5)
    assert (delivered.state, len(delivered.attempts)) == ("delivered", 7)
    assert len({body for _, _, body in receiver.received}) == 1


async def test_a_dropped_delivery_can_be_redelivered() -> None:
    """What a fault has lost is found again."""
    async with (
        Receiver().serve() as receiver,
        Emulator(
            clock=VirtualClock(),
            deliver_to=receiver.origin,
            faults=[Fault("webhook", faults.Drop())],
        ) as emulator,
    ):
        swap_id = await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        emulator.redeliver(emulator.deliveries[0].id)
        await emulator.settle()

    assert ids(receiver) == [swap_id]


async def test_a_delivery_of_a_stopped_emulator_waits_for_its_start() -> None:
    """What is asked for while nothing runs is not forgotten."""
    async with Receiver().serve() as receiver:
        emulator = Emulator(clock=VirtualClock(), deliver_to=receiver.origin)
        async with emulator:
            swap_id = await create(emulator)
            emulator.advance(3)
            await emulator.settle()
        emulator.redeliver(emulator.deliveries[0].id)
        assert emulator.deliveries[0].state == "pending"
        async with emulator:
            await emulator.settle()

    assert ids(receiver) == [swap_id, swap_id]


async def test_a_pending_delivery_is_not_made_twice_as_often() -> None:
    """An attempt on demand takes the place of the one that was planned."""
    async with (
        Receiver([500, 500]).serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        emulator.redeliver(emulator.deliveries[0].id)
        await emulator.settle()
        for _ in range(3):
            emulator.advance(1000)
            await emulator.settle()

    assert len(receiver.received) == 3


async def test_a_delivery_under_way_is_redelivered_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on demand arrives while another hangs: when that fails, it is not tried again."""
    monkeypatch.setattr("aifaceswap.emulator._server.webhook_sender.TIMEOUT", 0.5)
    async with (
        Receiver(hang=True).serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        await create(emulator)
        emulator.advance(3)
        await receiver.arrived.wait()
        receiver.hang = False
        emulator.redeliver(emulator.deliveries[0].id)
        async with asyncio.timeout(60):
            while len(emulator.deliveries[0].attempts) < 2:
                await asyncio.sleep(0)
        emulator.advance(1000)
        await emulator.settle()
        (delivery,) = emulator.deliveries

    assert (delivery.state, len(receiver.received)) == ("delivered", 2)
    assert [attempt.status for attempt in delivery.attempts] == [204, None]


async def test_what_cannot_be_redelivered_is_an_error() -> None:
    """No such delivery, or nowhere to deliver it to."""
    async with Emulator(clock=VirtualClock()) as emulator:
        await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        with pytest.raises(KeyError, match="dlv_1"):
            emulator.redeliver("dlv_1")
        with pytest.raises(ValueError, match="undeliverable: give deliver_to"):
            emulator.redeliver(emulator.deliveries[0].id)


def test_redelivery_wakes_an_emulator_in_another_thread() -> None:
    """From any thread."""
    with Emulator(clock=VirtualClock(), deliver_to="http://127.0.0.1:9") as emulator:
        asyncio.run(create(emulator))
        emulator.advance(3)
        emulator.settle_blocking()
        emulator.redeliver(emulator.deliveries[0].id)
        emulator.settle_blocking()

        assert len(emulator.deliveries[0].attempts) == 2
