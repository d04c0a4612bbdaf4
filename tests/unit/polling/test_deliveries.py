"""Whether deliveries are reliable: by those of the swaps that this process waited for."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import attrs
import pytest

from aifaceswap import AsyncClient, Swap, WebhookEvent
from aifaceswap._polling.deliveries import DeliveryTracker
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.webhooks import WebhookApp
from support.hooks import serve_asgi
from support.samples import KEY, URLS

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)


def done(number: int) -> Swap:
    return Swap(id=f"tsk_{number}", status="done", result_url="https://example.com/r.jpg")


def finish(tracker: DeliveryTracker, number: int, *, delivered: bool) -> None:
    """A swap that was waited for finishes, with or without its delivery."""
    if delivered:
        tracker.record_delivered(done(number))
    tracker.record_awaited(f"tsk_{number}")


def test_the_last_eight_must_have_arrived() -> None:
    """One that is missing makes them unreliable until eight in a row have arrived."""
    tracker = DeliveryTracker()
    for number in range(8):
        assert not tracker.are_reliable
        finish(tracker, number, delivered=True)
    assert tracker.are_reliable
    finish(tracker, 8, delivered=False)
    for number in range(9, 17):
        assert not tracker.are_reliable
        finish(tracker, number, delivered=True)
    assert tracker.are_reliable


def test_a_delivery_may_be_late() -> None:
    """It arrives after a poll has seen the end."""
    tracker = DeliveryTracker()
    for number in range(8):
        finish(tracker, number, delivered=number != 3)
    assert not tracker.are_reliable
    tracker.record_delivered(done(3))
    assert tracker.are_reliable


def test_deliveries_of_others_prove_nothing() -> None:
    """With several workers behind one port they arrive at any of them."""
    tracker = DeliveryTracker()
    for number in range(2000):
        tracker.record_delivered(done(number))
    assert not tracker.are_reliable


def test_what_another_process_polled_is_not_a_delivery() -> None:
    """The wait ends by it, and the delivery is still missing."""
    tracker = DeliveryTracker()
    for number in range(8):
        tracker.record_finished(done(number))
        assert tracker.final_swap(f"tsk_{number}") == done(number)
        tracker.record_awaited(f"tsk_{number}")
    assert not tracker.are_reliable
    for number in range(8):
        tracker.record_delivered(done(number))
    assert tracker.are_reliable


def test_expected_deliveries_are_reliable_until_one_is_missed() -> None:
    """The caller's word counts as much as eight deliveries."""
    tracker = DeliveryTracker()
    tracker.expect()
    assert tracker.are_reliable
    finish(tracker, 0, delivered=False)
    assert not tracker.are_reliable
    tracker.record_delivered(done(0))
    assert tracker.are_reliable


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_one_of_several_workers_hardly_ever_relies_on_them(workers: int) -> None:
    """A delivery goes to any of them, so that few of a worker's own arrive there."""
    random_worker = random.Random(workers)
    tracker = DeliveryTracker()
    relied = 0
    for number in range(10_000):
        finish(tracker, number, delivered=random_worker.randrange(workers) == 0)
        relied += tracker.are_reliable
    assert relied <= 10_000 * 2 / workers**8 + 20


@attrs.frozen
class AnyOf:
    """One port for several workers: each delivery goes to one of them by chance."""

    workers: list[AsyncClient]
    random: random.Random

    def deliver(self, event: WebhookEvent) -> None:
        self.random.choice(self.workers).deliver(event)


async def slowest_run(workers: int, seconds: float, webhook_url: str | None) -> float:
    """What the slowest of many runs took, over workers that share one port."""
    port = AnyOf([], random.Random(7))
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(serve_asgi(WebhookApp(None, KEY, client=port)))
        emulator = await stack.enter_async_context(
            Emulator(
                api_key=KEY,
                duration=seconds,
                spread=0.2,
                limits=NO_LIMITS,
                credits=1e6,
                deliver_to=f"http://127.0.0.1:{receiver.port}",
            )
        )
        for _ in range(workers):
            client = AsyncClient(KEY, base_url=emulator.base_url, budget=None)
            port.workers.append(await stack.enter_async_context(client))

        async def run(client: AsyncClient, number: int) -> float:
            clock = asyncio.get_running_loop().time
            longest = 0.0
            await asyncio.sleep(number * 0.7)
            for _ in range(4):
                began = clock()
                await client.swaps.run(**URLS, webhook_url=webhook_url)
                longest = max(longest, clock() - began)
            return longest

        runs = [run(client, number) for client in port.workers for number in range(3)]
        return max(await asyncio.gather(*runs))


@pytest.mark.parametrize("seconds", [3.0, 30.0])
async def test_several_workers_take_no_longer_than_without_webhooks(seconds: float) -> None:
    """Two seconds at most, although three of four deliveries go elsewhere."""
    without = await slowest_run(4, seconds, None)
    assert await slowest_run(4, seconds, "https://shop.example.com/hook") <= without + 2
