"""Credits of a run: prices are reserved before a swap is created and settled after it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import pytest

from aifaceswap import AsyncClient, BulkStoppedError, InvalidRequestError
from aifaceswap.bulk._breaker import RunStopped
from aifaceswap.bulk._credits import Credits
from support.bulk_runs import rows, run, service


async def waits(account: Credits, row: object, kind: str = "image") -> asyncio.Task[None]:
    """A row that waits for its reservation."""
    task = asyncio.ensure_future(account.reserve(row, kind))
    await asyncio.sleep(0.01)
    assert not task.done()
    return task


async def test_what_is_spent_never_passes_the_limit() -> None:
    """Reservations count as spent until they are settled."""
    account = Credits(3)
    account.start(0, {"image": 1})
    for row in range(3):
        await account.reserve(row, "image")
    fourth = await waits(account, 3)
    await account.settle(0, 1)
    await account.settle(1, 1)
    assert not fourth.done()
    await account.settle(2, 1)
    with pytest.raises(RunStopped, match="max_credits is 3, and 3 are spent"):
        await fourth


async def test_a_swap_that_was_not_created_costs_nothing() -> None:
    """Another row has its credits."""
    account = Credits(1)
    account.start(0, {"image": 1})
    await account.reserve(0, "image")
    other = await waits(account, 1)
    await account.settle(0, 0)
    await other


async def test_a_swap_of_unknown_cost_counts_as_reserved() -> None:
    """It may have been charged."""
    account = Credits(1)
    account.start(0, {"image": 1})
    await account.reserve(0, "image")
    await account.settle(0, None)
    with pytest.raises(RunStopped):
        await account.reserve(1, "image")


async def test_of_an_unknown_price_one_goes_first() -> None:
    """Its price holds for the others of its type; other types do not wait for it."""
    account = Credits(5)
    account.start(0, {"gif": 2})
    await account.reserve(0, "image")
    second = await waits(account, 1)
    await account.reserve("gif", "gif")
    await account.settle(0, 3)
    assert not second.done()
    await account.settle("gif", 2)
    with pytest.raises(RunStopped, match=r"the next image \(for 3 credits\)"):
        await second


async def test_earlier_runs_and_price_rises_count() -> None:
    """The newest price is the one that is reserved."""
    account = Credits(10)
    account.start(4, {"image": 1})
    account.learn("image", 7)
    await account.reserve(0, "image")
    await account.settle(0, 3)
    await account.reserve(1, "image")
    with pytest.raises(RunStopped):
        await asyncio.gather(account.reserve(2, "image"), account.settle(1, 3))


@pytest.mark.parametrize("most", [0, 0.5])
async def test_nothing_is_sent_without_credits(most: float) -> None:
    """Not even to learn a price, if nothing may be spent."""
    account = Credits(most)
    if most:
        account.start(0, {"image": 1})
    with pytest.raises(RunStopped):
        await account.reserve(0, "image")


async def test_a_run_stops_before_it_costs_more(tmp_path: Path) -> None:
    """Earlier runs of the journal count, and other rows than images have their own price."""
    journal = tmp_path / "run.sqlite"
    gif = attrs.evolve(rows(1)[0], type="gif")
    requests = [gif, *rows(9)]
    async with service(duration=1.0, prices={"image": 1, "gif": 4}) as (emulator, client):
        for most, swaps in ((6.5, 3), (6.5, 3), (8, 5)):
            with pytest.raises(BulkStoppedError, match=f"max_credits is {most}") as stopped:
                await run(client, requests, journal=journal, max_credits=most)
            assert stopped.value.rows_left == 10 - swaps
            assert len(emulator.swaps) == swaps
            assert 10_000 - emulator.balance <= most
        outcomes = await run(client, requests, journal=journal, max_credits=13)
        assert [outcome.ok for outcome in outcomes] == [True] * 10


@pytest.mark.parametrize("most", [-1, "3", True])
async def test_a_limit_that_is_not_a_number_is_rejected(most: object, client: AsyncClient) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidRequestError, match="max_credits must be a number of credits"):
        client.swaps.bulk([], max_credits=most)  # type: ignore[arg-type]
