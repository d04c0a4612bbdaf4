"""Rows that were sent without a response, long ago: their swaps are looked for; in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aifaceswap import AsyncClient, BulkStoppedError, SwapRequest, UnresolvedRowError
from aifaceswap.bulk._journal import State
from aifaceswap.bulk._recovery import MARK, REPLAY_WITHIN
from aifaceswap.emulator import Emulator, Idempotency
from aifaceswap.emulator.faults import Reset, Stall, Status
from support.bulk_runs import fault, ids, posts, rows, run, service, states

FORGETFUL = Idempotency(forget_after=1000.0)


def with_metadata(number: int, **metadata: Any) -> list[SwapRequest]:
    """Rows whose metadata hold their number, or this."""
    return [
        SwapRequest(
            source_url=row.source_url,
            target_url=row.target_url,
            metadata=metadata or {"order": order},
        )
        for order, row in enumerate(rows(number))
    ]


def age(journal: Path, seconds: float = REPLAY_WITHIN + 60) -> None:
    """Let the journal's rows have been sent earlier."""
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE rows SET sent_at = sent_at - ?", (seconds,))


@contextlib.asynccontextmanager
async def forgotten(
    journal: Path, requests: list[SwapRequest], *, commit: bool = True, **settings: Any
) -> AsyncIterator[tuple[Emulator, AsyncClient]]:
    """Rows were sent, no response arrived, and the service has forgotten their keys."""
    faults = [fault("POST /swaps", Stall(commit=commit))]
    async with service(faults=faults, idempotency=FORGETFUL, duration=5.0) as (emulator, client):
        async with client.swaps.bulk(requests, journal=journal, **settings):
            await asyncio.sleep(5)
        assert set(states(journal)) == {State.INTENDED}
        emulator.clear_faults()
        await asyncio.sleep(2000)
        age(journal)
        yield emulator, client


@pytest.mark.parametrize("mark", [False, True])
async def test_swaps_are_adopted_by_metadata_that_are_unique(*, mark: bool, tmp_path: Path) -> None:
    """Nothing is sent again."""
    journal = tmp_path / "run.sqlite"
    requests = rows(5) if mark else with_metadata(5)
    async with forgotten(journal, requests, mark=mark) as (emulator, client):
        sent = posts(emulator)
        outcomes = await run(client, requests, journal=journal, mark=mark)
        assert [outcome.ok for outcome in outcomes] == [True] * 5
        assert sorted(filter(None, ids(journal))) == sorted(swap.id for swap in emulator.swaps)
        assert posts(emulator) == sent
        targets = {outcome.swap.id: outcome.row for outcome in outcomes if outcome.swap}
        for swap in emulator.swaps:
            assert swap.target_url == requests[targets[swap.id] or 0].target_url


async def test_a_row_without_a_candidate_is_sent_again_with_its_key(tmp_path: Path) -> None:
    """Swaps that are provably others' are not candidates."""
    journal = tmp_path / "run.sqlite"
    async with forgotten(journal, with_metadata(3), commit=False) as (emulator, client):
        urls: Any = {"source_url": rows(1)[0].source_url, "target_url": rows(1)[0].target_url}
        await client.swaps.create(**urls, metadata={"other": "work"})
        await client.swaps.create(**urls, type="gif")
        outcomes = await run(client, with_metadata(3), journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True] * 3
        assert len(emulator.swaps) == 5


@pytest.mark.parametrize(
    "requests", [rows(3), with_metadata(3, batch="same")], ids=["no metadata", "equal metadata"]
)
async def test_nothing_is_paid_while_it_is_in_doubt(
    requests: list[SwapRequest], tmp_path: Path
) -> None:
    """The outcome names the candidates, and the row stays open."""
    journal = tmp_path / "run.sqlite"
    async with forgotten(journal, requests) as (emulator, client):
        sent = posts(emulator)
        for _ in range(2):
            outcomes = await run(client, requests, journal=journal, retry_failed="all")
            for outcome in outcomes:
                assert isinstance(outcome.error, UnresolvedRowError)
                assert set(outcome.error.candidates) == {swap.id for swap in emulator.swaps}
                assert outcome.is_open
        assert set(states(journal)) == {State.INTENDED}
        assert posts(emulator) == sent


async def test_new_rows_are_not_taken_for_old_ones(tmp_path: Path) -> None:
    """Swaps that this run creates come after the list was read."""
    journal = tmp_path / "run.sqlite"
    async with forgotten(journal, rows(1), commit=False) as (emulator, client):
        outcomes = await run(client, rows(12), journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True] * 12
        assert len(emulator.swaps) == 12


async def test_a_list_that_cannot_be_read_leaves_old_rows_open(tmp_path: Path) -> None:
    """Sending them again would be blind."""
    journal = tmp_path / "run.sqlite"
    async with forgotten(journal, with_metadata(2)) as (emulator, client):
        emulator.add_fault(fault("GET /swaps", Status(500)))
        sent = posts(emulator)
        outcomes = await run(client, with_metadata(2), journal=journal)
        assert [type(outcome.error) for outcome in outcomes] == [UnresolvedRowError] * 2
        assert posts(emulator) == sent


async def test_a_recent_row_is_simply_sent_again(tmp_path: Path) -> None:
    """The service remembers its key; the list is read for nobody."""
    journal = tmp_path / "run.sqlite"
    async with service(faults=[fault("POST /swaps", Stall())]) as (emulator, client):
        async with client.swaps.bulk(rows(3), journal=journal):
            await asyncio.sleep(5)
        emulator.clear_faults()
        outcomes = await run(client, rows(3), journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True] * 3
        assert len(emulator.swaps) == 3


async def test_a_marked_row_has_its_key_in_its_metadata() -> None:
    """Beside the caller's own."""
    requests = [*rows(1), *with_metadata(1)]
    async with service() as (emulator, client):
        outcomes = await run(client, requests, mark=True)
        found = {swap.id: swap.metadata for swap in emulator.swaps}
    for outcome, own in zip(outcomes, ({}, {"order": 0}), strict=True):
        assert outcome.swap is not None
        assert found[outcome.swap.id] == {**own, MARK: outcome.idempotency_key}


async def test_no_credits_that_the_service_repeats_do_not_block_the_row(tmp_path: Path) -> None:
    """The list shows that the lost request created nothing; a new key may be used."""
    journal = tmp_path / "run.sqlite"
    lost = fault("POST /swaps", Reset(), times=1)
    async with service(faults=[lost], credits=0) as (emulator, client):
        with pytest.raises(BulkStoppedError):
            await run(client, rows(1), journal=journal)
        assert states(journal) == [State.INTENDED]
        emulator.top_up(10)
        emulator.add_fault(fault("POST /swaps", Status(402), times=1))
        (outcome,) = await run(client, rows(1), journal=journal)
        assert outcome.ok
        assert len(emulator.swaps) == 1
