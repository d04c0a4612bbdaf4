"""Leaving the block of a run in the middle: in order, whatever the reason; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from aifaceswap import AsyncClient, Client, ConfigurationError
from aifaceswap.emulator.faults import Latency, Stall
from support.bulk_runs import fault, ids, rows, run, service

Work = Callable[[], Coroutine[Any, Any, None]]


async def by_an_exception(work: Work) -> None:
    """The body raises after two seconds."""
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(2):
            await work()


async def by_a_scope(work: Work) -> None:
    """An anyio scope cancels again and again."""
    with anyio.move_on_after(2):
        await work()


async def by_a_task_group(work: Work) -> None:
    """A sibling fails."""

    async def fail() -> None:
        await asyncio.sleep(2)
        raise LookupError

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(fail)

    with pytest.raises(ExceptionGroup):
        await both()


async def by_two_cancellations(work: Work) -> None:
    """The second comes while the block is being left."""
    task = asyncio.ensure_future(work())
    await asyncio.sleep(2)
    task.cancel()
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


WAYS = [by_an_exception, by_a_scope, by_a_task_group, by_two_cancellations]


def working(client: AsyncClient, journal: Path) -> Work:
    async def work() -> None:
        async with client.swaps.bulk(rows(30), journal=journal) as outcomes:
            async for _ in outcomes:
                pass

    return work


@pytest.mark.parametrize("leave", WAYS)
async def test_posts_in_flight_are_finished_and_written_down(
    leave: Callable[[Work], Awaitable[None]], tmp_path: Path
) -> None:
    """Every swap that was created is known by its id, and the journal is usable at once."""
    journal = tmp_path / "run.sqlite"
    late = fault("POST /swaps", Latency(5))
    async with service(faults=[late]) as (emulator, client):
        await leave(working(client, journal))
        created = sorted(swap.id for swap in emulator.swaps)
        assert len(created) == 10
        assert sorted(filter(None, ids(journal))) == created
        assert no_tasks_are_left()
        emulator.clear_faults()
        outcomes = await run(client, rows(30), journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True] * 30
        assert len(emulator.swaps) == 30


@pytest.mark.parametrize("leave", WAYS)
async def test_a_post_that_stalls_is_waited_for_ten_seconds(
    leave: Callable[[Work], Awaitable[None]], tmp_path: Path
) -> None:
    """No longer; its row is resumed with its key."""
    journal = tmp_path / "run.sqlite"
    async with service(faults=[fault("POST /swaps", Stall())]) as (emulator, client):
        clock = asyncio.get_running_loop().time
        began = clock()
        await leave(working(client, journal))
        assert 11 < clock() - began < 14
        assert no_tasks_are_left()
        emulator.clear_faults()
        outcomes = await run(client, rows(30), journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True] * 30
        assert len(emulator.swaps) == 30


async def test_leaving_is_quick_if_nothing_is_in_flight(tmp_path: Path) -> None:
    """Rows that wait for the rate limiter were not sent, and are not waited for."""
    async with service(duration=1.0) as (emulator, client):
        clock = asyncio.get_running_loop().time
        async with client.swaps.bulk(rows(200), journal=tmp_path / "run.sqlite") as outcomes:
            async for outcome in outcomes:
                if outcome.row is not None and outcome.row > 50:
                    await asyncio.sleep(20)
                    break
            began = clock()
        assert clock() - began < 1
        assert len(emulator.swaps) < 200


# --- a run that is not open ------------------------------------------------------------------


async def test_a_run_must_be_opened_before_it_is_iterated() -> None:
    """Forgotten `async with` is said in so many words, and nothing is sent."""
    async with service() as (emulator, client):
        outcomes = client.swaps.bulk(rows(3))
        with pytest.raises(ConfigurationError, match="must be opened first: async with"):
            await anext(outcomes)
        with pytest.raises(ConfigurationError, match="must be opened first"):
            outcomes.stop()
        assert emulator.requests == ()


def test_a_blocking_run_must_be_opened_before_it_is_iterated() -> None:
    """The same, with `with`."""
    with (
        Client("key", base_url="http://127.0.0.1:9/api/v1") as client,
        pytest.raises(ConfigurationError, match="or with for a blocking Client"),
    ):
        next(client.swaps.bulk(rows(3)))


async def test_a_run_is_opened_only_once() -> None:
    """After its block, it has no more outcomes; another run is another call of `bulk()`."""
    async with service() as (_, client):
        run_once = client.swaps.bulk(rows(3))
        async with run_once as outcomes:
            await anext(outcomes)
        async for _outcome in outcomes:
            pass
        with pytest.raises(ConfigurationError, match="only once; call bulk"):
            await run_once.__aenter__()


def no_tasks_are_left() -> bool:
    return not [task for task in asyncio.all_tasks() if "aifaceswap/bulk" in repr(task)]
