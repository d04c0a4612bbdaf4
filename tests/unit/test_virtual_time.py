"""The virtual-time loop of the tests themselves."""

from __future__ import annotations

import asyncio
import time

import anyio
import anyio.to_thread
import pytest

from aifaceswap import AsyncClient
from aifaceswap.emulator import DEFAULT_API_KEY, Emulator, Limits
from support.virtual_time import VirtualTimeLoop, run_virtual

HOUR = 3600.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def now() -> float:
    return asyncio.get_running_loop().time()


async def elapsed(seconds: float) -> float:
    before = now()
    await asyncio.sleep(seconds)
    return now() - before


def test_an_hour_takes_a_moment() -> None:
    """A sleep of an hour is an hour by the loop and a moment in reality."""
    began = time.perf_counter()

    assert run_virtual(elapsed, HOUR) == pytest.approx(HOUR, abs=0.001)
    assert time.perf_counter() - began < 1.0


async def test_timers_fire_in_order() -> None:
    """Tasks wake in the order of their timers, each at its own time."""
    began, woken = now(), []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((seconds, round(now() - began, 3)))

    async with asyncio.TaskGroup() as group:
        for seconds in (30.0, 10.0, 0.5):
            group.create_task(sleeper(seconds))

    assert woken == [(0.5, 0.5), (10.0, 10.0), (30.0, 30.0)]


async def test_threads_are_waited_for() -> None:
    """No time passes and no timeout fires while threads are at work."""
    began = now()
    async with asyncio.timeout(0.02):
        await asyncio.to_thread(time.sleep, 0.05)
        await anyio.to_thread.run_sync(time.sleep, 0.05)

    assert now() - began < 0.01


async def test_a_timeout_fires_when_nothing_happens() -> None:
    """A timeout around what never comes fires at its time."""
    began = now()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(300):
            await asyncio.Event().wait()

    assert now() - began == pytest.approx(300, abs=0.001)


async def test_code_that_spins_until_a_moment_ends() -> None:
    """Time moves with each turn of the loop, too."""
    until = now() + 0.001
    while now() < until:
        await asyncio.sleep(0)


async def test_sockets_are_real() -> None:
    """Bytes go over loopback before any timer is skipped to."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    began = now()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, asyncio.timeout(0.5):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()

    assert now() - began < 0.1


async def test_the_emulator_and_the_client_share_it() -> None:
    """A swap of 30 s ends after 30 s and little more, by the clock of both."""
    began = now()
    async with (
        Emulator(duration=30, limits=Limits(None, None, None)) as emulator,
        AsyncClient(DEFAULT_API_KEY, base_url=emulator.base_url, budget=None) as client,
    ):
        swap = await client.swaps.run(
            source_url="https://example.com/face.jpg", target_url="https://example.com/target.jpg"
        )

    assert swap.is_finished
    assert 30 <= now() - began < 40


def test_time_never_goes_back() -> None:
    """A later loop goes on where an earlier one ended."""

    async def end() -> float:
        await asyncio.sleep(HOUR)
        return now()

    async def begin() -> float:
        return now()

    assert run_virtual(end) <= run_virtual(begin)


def test_its_end_waits_for_the_executor() -> None:
    """Closing a loop that has used threads gives no warning of a timeout."""

    async def leave_one_running() -> None:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)

    run_virtual(leave_one_running)
