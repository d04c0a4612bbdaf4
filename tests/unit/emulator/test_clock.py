"""The clocks."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, cast

import pytest

from aifaceswap.emulator import RealClock, VirtualClock
from aifaceswap.emulator._times import iso
from support.virtual_time import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_a_virtual_clock_stands_still() -> None:
    """Time passes only by advance(), and adds up exactly."""
    clock = VirtualClock(start=1000.0)
    for seconds in (0.1,) * 10 + (2.01,) * 100:
        clock.advance(seconds)

    assert clock.now() == 1202.0


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    """One advance() past several wakes them in order, the others sleep on."""
    clock, woken = VirtualClock(start=0.0), list[float]()

    async def sleep(when: float) -> None:
        await clock.sleep_until(when)
        woken.append(when)

    tasks = [asyncio.create_task(sleep(when)) for when in (3, 1, 2, 9, 0)]
    await asyncio.sleep(0)
    clock.advance(5)
    await asyncio.gather(*tasks[:3])

    assert woken == [0, 1, 2, 3]
    assert not tasks[3].done()
    clock.advance(4)
    await tasks[3]


async def test_a_cancelled_sleeper_is_no_trouble() -> None:
    """Advancing past a sleep that was cancelled does nothing."""
    clock = VirtualClock(start=0.0)
    task = asyncio.create_task(clock.sleep_until(1))
    await asyncio.sleep(0)
    task.cancel()
    clock.advance(5)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_advancing_from_many_threads_loses_nothing() -> None:
    """advance() is safe from any thread, and wakes sleepers in their own loop."""
    clock = VirtualClock(start=0.0)
    # In debug mode a loop refuses calls from other threads that are not meant for them.
    asyncio.get_running_loop().set_debug(True)

    def advance() -> None:
        for _ in range(500):
            clock.advance(0.001)

    sleepers = [asyncio.create_task(clock.sleep_until(when)) for when in (0.5, 1.0, 2.0)]
    await asyncio.sleep(0)
    threads = [threading.Thread(target=advance) for _ in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*sleepers)
    for thread in threads:
        thread.join()

    assert clock.now() == 2.0


async def test_a_real_clock_wakes_sleepers_when_it_jumps() -> None:
    """In order of time and in their own loop; who has not slept long enough sleeps on."""
    clock = RealClock()
    began = clock.now()
    sleepers = [asyncio.create_task(clock.sleep_until(began + when)) for when in (100, 5000)]
    await asyncio.sleep(0)
    await asyncio.to_thread(clock.advance, 1000)
    await sleepers[0]

    assert clock.now() >= began + 1000
    assert not sleepers[1].done()
    sleepers[1].cancel()


def test_a_real_clock_jumps_before_it_is_used() -> None:
    """An emulator that starts later has the time that it was set to."""
    clock = RealClock()
    clock.advance(1000)

    assert clock.now() >= time.time() + 900


async def test_a_sleeper_of_a_closed_loop_is_forgotten() -> None:
    """advance() goes past sleepers whose loop has gone."""
    clock = VirtualClock(start=0.0)

    async def leave() -> None:
        task = asyncio.create_task(clock.sleep_until(1))
        await asyncio.sleep(0)
        task.cancel()

    await asyncio.to_thread(asyncio.run, leave())
    clock.advance(2)

    assert clock.now() == 2.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: VirtualClock().advance(-1),
            ValueError,
            "seconds must be at least 0 and at most 1e12; got -1",
        ),
        (lambda: VirtualClock().advance(float("nan")), ValueError, "seconds must be a finite"),
        (
            lambda: VirtualClock().advance(cast("float", "1")),
            TypeError,
            "seconds must be a number; got '1'",
        ),
        (lambda: VirtualClock(start=float("inf")), ValueError, "start must be a finite number"),
        (
            lambda: RealClock(speed=0),
            ValueError,
            "speed must be greater than 0 and at most 1e.06; got 0",
        ),
        (lambda: RealClock(speed=True), TypeError, "speed must be a number; got True"),
    ],
)
def test_impossible_times_are_refused(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    """Errors name the argument, the value and what would be right."""
    with pytest.raises(error, match=message):
        make()


async def test_a_real_clock_starts_at_the_wall_clock() -> None:
    """now() is unix time, before and after it is bound to a loop."""
    clock = RealClock()
    before = clock.now()
    clock.bind(asyncio.get_running_loop())

    assert abs(time.time() - before) < 1
    assert before <= clock.now() < before + 1


def test_an_event_loop_with_virtual_time_drives_a_real_clock() -> None:
    """Its sleeps are the loop's timers: an hour passes at once; speed divides the wait."""
    clock = RealClock(speed=2.0)

    async def sleep() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        clock.bind(loop)
        start, loop_start = clock.now(), loop.time()
        await clock.sleep_until(start + 3600)
        return clock.now() - start, loop.time() - loop_start

    started = time.monotonic()
    passed, waited = run_virtual(sleep)

    assert 3600 <= passed < 3605
    assert 1800 <= waited < 1803
    assert time.monotonic() - started < 5


def test_a_real_clock_never_goes_back_between_loops() -> None:
    """Bound to a second loop it goes on from where it was."""
    clock = RealClock(speed=1000.0)
    readings = []

    async def read() -> None:
        clock.bind(asyncio.get_running_loop())
        readings.append(clock.now())
        await clock.sleep_until(clock.now() + 1)
        readings.append(clock.now())

    asyncio.run(read())
    asyncio.run(read())

    assert sorted(readings) == readings


def test_iso_times_have_milliseconds() -> None:
    """created_at is ISO 8601 in UTC with milliseconds and Z."""
    assert iso(1_767_225_600.25) == "2026-01-01T00:00:00.250Z"
