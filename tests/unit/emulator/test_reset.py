"""reset(): as if freshly started, on the same port, with requests and deliveries in flight."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any, cast

import pytest

from aifaceswap import Client
from aifaceswap.emulator import Clock, Emulator, Fault, Limits, RealClock, VirtualClock, faults
from support.emulator_receiver import Receiver, create
from support.emulator_wire import BODY, JSON_TYPE, connected, creation, exchange, raw
from support.emulator_world import SWAP


async def use(emulator: Emulator) -> list[Any]:
    """Do something of everything; what was seen of it."""
    emulator.add_key("key_b", Limits(per_minute=1))
    emulator.top_up(5)
    await create(emulator, source_url="https://example.com/fails.jpg")
    await exchange(emulator, creation("k"))
    emulator.advance(3)
    await emulator.settle()
    seen: list[Any] = [emulator.requests, emulator.swaps, emulator.deliveries, emulator.faults]
    seen += [emulator.balance, emulator.clock.now()]
    _, headers, _ = await exchange(emulator, raw(method="GET", path="/api/v1/me"))
    return [repr(seen), headers]


async def test_a_reset_emulator_is_as_a_fresh_one() -> None:
    """The same steps give the same answers, ids included; nothing of before is left."""
    script = [Fault("GET /me", faults.Status(503), nth=2)]
    async with Emulator(clock=VirtualClock(), faults=script) as emulator:
        origin, first = emulator.origin, await use(emulator)
        emulator.add_fault(Fault("*", faults.Status(500), times=None))
        emulator.revoke_key(emulator.api_key)
        emulator.reset()

        assert (emulator.requests, emulator.swaps, emulator.deliveries) == ((), (), ())
        assert (emulator.balance, emulator.clock.now()) == (1000, VirtualClock().now())
        assert [(record.seen, record.applied) for record in emulator.faults] == [(0, 0)]
        assert emulator.origin == origin
        assert await use(emulator) == first


async def test_settings_hold_until_the_next_reset() -> None:
    """Faults, credits, limits, duration and receiver in place of the constructor's."""
    limits = Limits(per_minute=1)
    async with Receiver().serve() as receiver, Emulator(clock=VirtualClock()) as emulator:
        emulator.reset(
            faults=[Fault("GET /nothing", faults.Status(500))],
            credits=2,
            limits=limits,
            duration=1,
            deliver_to=receiver.origin,
        )
        await create(emulator)
        emulator.advance(1)
        await emulator.settle()
        assert len(receiver.received) == 1
        assert (await exchange(emulator, creation()))[0] == 429
        assert (emulator.balance, len(emulator.faults)) == (1, 1)

        emulator.reset()
        await create(emulator)
        await create(emulator)
        emulator.advance(2.9)
        assert [swap.status for swap in emulator.swaps] == ["processing"] * 2
        emulator.advance(0.1)
        await emulator.settle()
        assert len(receiver.received) == 1
        assert (emulator.balance, emulator.faults) == (998, ())


async def test_impossible_settings_leave_everything_as_it_was() -> None:
    """The message names the argument."""
    async with Emulator(clock=VirtualClock(), spread=2) as emulator:
        await create(emulator)
        for settings, message in (
            ({"credits": -1}, "credits must be at least 0; got -1"),
            ({"limits": 7}, "limits must be a Limits"),
            ({"faults": [7]}, r"faults\[0\] must be a Fault"),
            ({"duration": 1}, "spread must be at most duration"),
            ({"deliver_to": "http://example.com"}, "deliver_to must be an http"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                emulator.reset(**cast("Any", settings))
        assert len(emulator.swaps) == 1


async def test_a_request_in_flight_leaves_no_trace() -> None:
    """Half of it came before the reset: it is answered, and the fresh state knows nothing of it."""
    async with Emulator(clock=VirtualClock()) as emulator, connected(emulator) as wire:
        await wire.send(raw(BODY[:10], JSON_TYPE, f"Content-Length: {len(BODY)}"))
        for _ in range(50):
            await asyncio.sleep(0)
        emulator.reset()
        await wire.send(BODY[10:])
        assert (await wire.answer())[0] == 201
        assert (emulator.swaps, emulator.requests, emulator.balance) == ((), (), 1000)
        await wire.send(creation())
        assert (await wire.answer())[0] == 201
        assert len(emulator.swaps) == 1


@pytest.mark.parametrize("action", [faults.Stall(), faults.Stall("half"), faults.Latency(60)])
async def test_a_request_that_is_held_is_cut_off(action: faults.Stall | faults.Latency) -> None:
    """No test waits for the faults of the one before."""
    async with (
        Emulator(clock=VirtualClock(), faults=[Fault("*", action)]) as emulator,
        connected(emulator) as wire,
    ):
        await wire.send(creation())
        while not emulator.requests:
            await asyncio.sleep(0)
        emulator.reset()
        try:
            rest = await wire.rest()
        except ConnectionResetError:
            rest = b""
        assert b'"created_at"' not in rest or not rest.endswith(b"}")


async def test_deliveries_of_before_are_broken_off() -> None:
    """One under way does not end up in the fresh record; the planned ones are forgotten."""
    async with (
        Receiver(hang=True).serve() as receiver,
        Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator,
    ):
        await create(emulator)
        emulator.advance(3)
        await receiver.arrived.wait()
        await create(emulator)
        emulator.reset()
        receiver.hang = False
        async with asyncio.timeout(5):  # half of what a receiver has for its answer
            await emulator.settle()
        emulator.advance(1000)
        await emulator.settle()
        assert (emulator.deliveries, len(receiver.received)) == ((), 1)

        swap_id = await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        assert [delivery.swap_id for delivery in emulator.deliveries] == [swap_id]


def test_resets_from_another_thread_under_fire() -> None:
    """Clients hammer while the emulator is reset again and again: no answer is broken."""
    with (
        Emulator(clock=VirtualClock(), limits=Limits(None, None, None)) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url, budget=None, max_retries=0) as client,
    ):
        stop, made, failures = threading.Event(), list[str](), list[BaseException]()

        def hammer() -> None:
            while not stop.is_set():
                try:
                    swap = client.swaps.create(
                        source_url=SWAP["source_url"], target_url=SWAP["target_url"]
                    )
                except BaseException as error:
                    failures.append(error)
                    return
                made.append(swap.id)

        threads = [threading.Thread(target=hammer) for _ in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(made) < 100 and not failures and time.monotonic() < deadline:
            emulator.reset()
        stop.set()
        for thread in threads:
            thread.join()
        emulator.reset()
        assert (failures, emulator.swaps) == ([], ())


async def test_an_emulator_that_does_not_run_can_be_reset() -> None:
    """Before the start and after the end; it keeps its clock's start."""
    emulator = Emulator(clock=VirtualClock(start=5.0))
    emulator.top_up(5)
    emulator.advance(7)
    emulator.reset()
    assert (emulator.balance, emulator.clock.now()) == (1000, 5.0)
    async with emulator:
        await create(emulator)
    emulator.reset()
    async with emulator:
        assert emulator.swaps == ()


async def test_a_real_clock_is_back_at_the_wall_clock() -> None:
    """Whatever speed it had."""
    async with Emulator(clock=RealClock(speed=1e6)) as emulator:
        await asyncio.sleep(0.01)
        assert emulator.clock.now() - time.time() > 3600
        emulator.reset()
        assert emulator.clock.now() - time.time() < 1e6

    clock = RealClock()
    Emulator(clock=clock).reset()
    assert abs(clock.now() - time.time()) < 5


async def test_a_clock_of_ones_own_need_not_know_of_resets() -> None:
    """restart() is optional, as bind() is."""

    class Still(Clock):
        def now(self) -> float:
            return 7.0

        async def sleep_until(self, when: float) -> None:
            await asyncio.Event().wait()

        def advance(self, seconds: float) -> None:
            raise NotImplementedError

    async with Emulator(clock=Still()) as emulator:
        emulator.reset()
        _, _, body = await exchange(emulator, creation())
    assert json.loads(body)["created_at"] == "1970-01-01T00:00:07.000Z"
