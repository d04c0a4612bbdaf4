"""Bulk runs: slots, outcomes, stops and resuming; in virtual time."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from aifaceswap import (
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    Budget,
    BulkProgress,
    BulkStoppedError,
    Client,
    ContentRejectedError,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    Outcome,
    SwapFailedError,
    SwapRequest,
)
from aifaceswap._api.requests import swap_body
from aifaceswap.bulk._identity import content_identity
from aifaceswap.bulk._journal import JournalEntry, State
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import Fault, Status
from support.journals import entries, opened, owner_of_client

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)
SOURCE = "https://example.com/face.jpg"


def rows(number: int, **special: str) -> list[SwapRequest]:
    """So many rows; `special` gives the source's file name of some, as `at_3="nsfw"`."""
    names = {int(name[3:]): value for name, value in special.items()}
    return [
        SwapRequest(
            source_url=f"https://example.com/{names.get(row, 'face')}.jpg",
            target_url=f"https://example.com/{row}/target.jpg",
        )
        for row in range(number)
    ]


def intended(request: SwapRequest) -> JournalEntry:
    """A row whose key and body were written, and no more."""
    body = swap_body(request)
    return JournalEntry(0, State.INTENDED, "key-0", body, content_identity(body))


@asynccontextmanager
async def service(**settings: Any) -> AsyncIterator[tuple[Emulator, AsyncClient]]:
    settings = {"duration": 30.0, "spread": 15.0, "credits": 10_000, **settings}
    async with (
        Emulator(**settings) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=Budget()) as client,
    ):
        yield emulator, client


async def run(client: AsyncClient, requests: Any, **settings: Any) -> list[Outcome]:
    async with client.swaps.bulk(requests, **settings) as outcomes:
        return [outcome async for outcome in outcomes]


async def test_every_row_has_one_swap_and_one_outcome(tmp_path: Path) -> None:
    """Within the service's real limits, without a single 429, pictures included."""
    async with service() as (emulator, client):
        outcomes = await run(client, rows(60), download_to=tmp_path / "out")
    assert sorted(outcome.row or 0 for outcome in outcomes) == list(range(60))
    assert all(outcome.ok for outcome in outcomes)
    assert len({outcome.swap.id for outcome in outcomes if outcome.swap}) == 60
    assert len(emulator.swaps) == 60
    assert [request for request in emulator.requests if request.status == 429] == []
    assert len(os.listdir(tmp_path / "out")) == 60
    for outcome in outcomes:
        assert outcome.path is not None
        assert outcome.path.read_bytes()[:2] == b"\xff\xd8"
        assert outcome.path.name.startswith(f"{outcome.row:06d}-")


async def test_a_folder_may_have_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A path is bytes to the system; the journal keeps them, and a run again gives them back."""
    folder = tmp_path / os.fsdecode(b"\xff")
    async with service() as (_, client):
        for _again in range(2):
            (outcome,) = await run(
                client, rows(1), journal=tmp_path / "run.sqlite", download_to=folder
            )
            assert outcome.path is not None
            assert outcome.path.parent == folder
            assert outcome.path.exists()


async def test_a_row_that_fails_is_an_outcome() -> None:
    """Refused, failed on the way, or not even a request: the others go on."""
    requests: list[Any] = rows(6, at_1="nsfw", at_3="fails")
    requests[4] = {"source_url": "http://example.com", "target_url": SOURCE}
    requests[5] = {"source": SOURCE}
    async with service() as (_, client):
        outcomes = {outcome.row: outcome for outcome in await run(client, requests)}
    kinds = {row: type(outcome.error) for row, outcome in outcomes.items()}
    assert kinds == {
        0: type(None),
        1: ContentRejectedError,
        2: type(None),
        3: SwapFailedError,
        4: InvalidRequestError,
        5: InvalidRequestError,
    }
    assert outcomes[3].swap is not None
    assert outcomes[1].idempotency_key is not None


async def test_rows_are_read_as_they_are_needed() -> None:
    """From any iterable or async iterable, never far ahead of what is in flight."""
    read = 0

    def endless() -> Iterator[SwapRequest]:
        nonlocal read
        while True:
            read += 1
            yield rows(1)[0]

    async def few() -> AsyncIterator[dict[str, str]]:
        for _ in range(3):
            yield {"source_url": SOURCE, "target_url": SOURCE}

    async with service() as (_, client):
        async with client.swaps.bulk(endless()) as outcomes:
            async for _ in outcomes:
                break
        assert read <= 2 * 10 + 1
        assert len(await run(client, few())) == 3


async def test_swaps_of_others_hold_slots() -> None:
    """What the key has unfinished at the beginning counts against its ten."""
    async with service() as (emulator, client):
        for row in rows(7):
            await client.swaps.create(source_url=row.source_url, target_url=row.target_url)
        outcomes = await run(client, rows(20))
    assert all(outcome.ok for outcome in outcomes)
    assert [request for request in emulator.requests if request.status == 429] == []


async def test_a_run_begins_where_the_swaps_of_others_cannot_be_listed() -> None:
    """Slots are only guessed better by the list."""
    refused = Fault("GET /swaps", Status(400))
    async with service(faults=[refused]) as (emulator, client):
        outcomes = await run(client, rows(12))
    assert [outcome.ok for outcome in outcomes] == [True] * 12
    assert emulator.requests[0].status == 400


async def test_a_swap_that_ended_while_nobody_ran_is_known_by_its_creation(tmp_path: Path) -> None:
    """The same key again is answered with the finished swap: no wait is needed."""
    request = rows(1)[0]
    async with service() as (emulator, client):
        async with opened(tmp_path / "run.sqlite") as journal:
            await journal.write(intended(request))
        urls: Any = {"source_url": request.source_url, "target_url": request.target_url}
        await client.swaps.wait(await client.swaps.create(**urls, idempotency_key="key-0"))
        before = len(emulator.requests)
        (outcome,) = await run(client, [request], journal=tmp_path / "run.sqlite")
        assert outcome.ok
        assert [each.method for each in emulator.requests[before:]] == ["GET", "POST"]
    assert len(emulator.swaps) == 1


async def test_leaving_early_loses_nothing(tmp_path: Path) -> None:
    """What was begun goes on in the next run: each row is one swap all the same."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        async with client.swaps.bulk(rows(40), journal=journal) as outcomes:
            first = [await anext(outcomes) for _ in range(5)]
        assert [task for task in asyncio.all_tasks() if "AsyncBulk" in repr(task)] == []
        begun = len(emulator.swaps)
        rest = await run(client, rows(40), journal=journal)
        assert begun < 40
        assert len(emulator.swaps) == 40
    ids = {outcome.row: outcome.swap.id for outcome in [*first, *rest] if outcome.swap}
    assert set(ids) == {*range(40)}
    assert len(set(ids.values())) == 40


async def test_finished_rows_are_yielded_again_from_the_journal(tmp_path: Path) -> None:
    """As they were, errors included, without a request; or left out."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        requests = rows(6, at_1="nsfw", at_3="fails")
        first = await run(client, requests, journal=journal, download_to=tmp_path / "out")
        swaps = len(emulator.swaps)
        again = await run(client, requests, journal=journal, download_to=tmp_path / "out")
        assert await run(client, requests, journal=journal, skip_finished=True) == []
        assert len(emulator.swaps) == swaps

    def told(outcome: Outcome) -> tuple[Any, ...]:
        error = outcome.error
        swap_id = outcome.swap.id if outcome.swap else None
        return (
            outcome.row,
            outcome.idempotency_key,
            swap_id,
            outcome.path,
            type(error),
            str(error),
        )

    assert sorted(map(told, first), key=str) == sorted(map(told, again), key=str)


async def test_failed_rows_are_done_again_as_new_swaps_when_asked(tmp_path: Path) -> None:
    """With fresh keys; what was done stays done."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        first = await run(client, rows(4, at_2="fails"), journal=journal)
        again = await run(client, rows(4, at_2="fails"), journal=journal, retry_failed=True)
        assert len(emulator.swaps) == 5
    old, new = ({o.row: o.idempotency_key for o in outcomes} for outcomes in (first, again))
    assert old[2] != new[2]
    assert old[0] == new[0]


async def test_equal_rows_are_two_swaps(tmp_path: Path) -> None:
    """A row's identity is its place, not its content."""
    async with service() as (emulator, client):
        same = [rows(1)[0]] * 3
        await run(client, same, journal=tmp_path / "run.sqlite")
        await run(client, same, journal=tmp_path / "run.sqlite")
    assert len(emulator.swaps) == 3


async def test_a_changed_row_is_a_new_row(tmp_path: Path) -> None:
    """The others are done; what the old one was stays in the journal."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        await run(client, rows(3), journal=journal)
        outcomes = await run(client, rows(3, at_1="other"), journal=journal)
    assert {outcome.row for outcome in outcomes} == {0, 1, 2, None}
    assert len(emulator.swaps) == 4
    assert [entry.state for entry in entries(journal)] == [State.DONE] * 4


async def test_a_row_that_has_become_invalid_is_not_sent(tmp_path: Path) -> None:
    """No row after it is taken for a new one."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        await run(client, rows(4), journal=journal)
        changed: list[Any] = [*rows(1), {"source_url": "no"}, *rows(4)[2:]]
        outcomes = {each.row: each for each in await run(client, changed, journal=journal)}
    assert {row: outcome.ok for row, outcome in outcomes.items()} == {
        0: True,
        1: False,
        2: True,
        3: True,
        None: True,
    }
    assert len(emulator.swaps) == 4


async def test_others_who_take_slots_on_the_way_fail_no_row() -> None:
    """The service refuses for a while; the run stands back and goes on."""
    async with service() as (emulator, client):

        async def others() -> None:
            async with AsyncClient(
                emulator.api_key, base_url=emulator.base_url, budget=None, max_retries=30
            ) as other:
                patient = other.with_options(deadline=3600)
                for row in rows(6):
                    await patient.swaps.create(source_url=row.source_url, target_url=row.target_url)

        beside = asyncio.create_task(asyncio.wait_for(others(), 3600))
        outcomes = await run(client, rows(40))
        await beside
    assert all(outcome.ok for outcome in outcomes)
    assert len(emulator.swaps) == 46
    assert any(request.status == 429 for request in emulator.requests)


async def test_a_run_does_not_wait_for_swaps_of_others() -> None:
    """They hold slots, and nothing else."""
    async with service(duration=5.0, spread=0.0) as (_, client):
        forever = "https://example.com/forever.jpg"
        await client.swaps.create(source_url=forever, target_url=SOURCE)
        began = asyncio.get_running_loop().time()
        assert all(outcome.ok for outcome in await run(client, rows(3)))
        assert asyncio.get_running_loop().time() - began < 30


async def test_journaled_rows_beyond_a_shorter_input_are_finished(tmp_path: Path) -> None:
    """They may be paid."""
    journal = tmp_path / "run.sqlite"
    async with service() as (_, client):
        async with client.swaps.bulk(rows(10), journal=journal) as outcomes:
            await anext(outcomes)
        outcomes_again = await run(client, [], journal=journal)
    assert len(outcomes_again) >= 9
    assert {outcome.row for outcome in outcomes_again} == {None}
    assert all(outcome.ok for outcome in outcomes_again)


async def test_no_credits_stop_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    """The error says how many rows are left; after a top-up the run goes on with fresh keys."""
    journal = tmp_path / "run.sqlite"
    async with service(credits=12) as (emulator, client):
        with pytest.raises(BulkStoppedError, match=r"8 rows that are left") as caught:
            await run(client, rows(20), journal=journal)
        assert isinstance(caught.value.__cause__, InsufficientCreditsError)
        assert caught.value.rows_left == 8
        emulator.top_up(100)
        outcomes_again = await run(client, rows(20), journal=journal)
        assert all(outcome.ok for outcome in outcomes_again)
        assert len(outcomes_again) == len(emulator.swaps) == 20


async def test_a_revoked_key_stops_the_run(tmp_path: Path) -> None:
    """With a good key it goes on: no swap was made twice."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        seen = 0

        def revoke(progress: BulkProgress) -> None:
            nonlocal seen
            seen = progress.done
            if seen == 5:
                emulator.revoke_key(emulator.api_key)

        with pytest.raises(BulkStoppedError) as caught:
            await run(client, rows(30), journal=journal, on_progress=revoke)
        assert isinstance(caught.value.__cause__, AuthenticationError)
        assert caught.value.rows_left == 30 - seen


async def test_the_days_requests_stop_the_run_beyond_the_wait_that_is_allowed(
    tmp_path: Path,
) -> None:
    """Or are waited for, where that is allowed."""
    limits = Limits(per_minute=None, per_day=15)
    journal = tmp_path / "run.sqlite"
    async with service(limits=limits, duration=5.0, spread=0.0) as (emulator, client):
        with pytest.raises(BulkStoppedError, match=r"rate_limited_daily"):
            await run(client, rows(30), journal=journal)
        settings = {"journal": journal, "skip_finished": True, "max_wait": 90_000}
        await run(client.with_options(deadline=90_000), rows(30), **settings)
    assert len(emulator.swaps) == 30


async def test_stop_finishes_what_is_under_way(tmp_path: Path) -> None:
    """No further row is begun, and the iteration ends by itself."""
    async with service() as (emulator, client):
        outcomes = []
        async with client.swaps.bulk(rows(40), journal=tmp_path / "run.sqlite") as run:
            async for outcome in run:
                outcomes.append(outcome)
                run.stop()
        assert len(outcomes) == len(emulator.swaps) < 40
        assert all(outcome.ok for outcome in outcomes)


async def test_progress_is_told() -> None:
    """From nothing to everything, never more in flight than there are slots."""
    told: list[BulkProgress] = []
    async with service() as (_, client):
        await run(client, rows(15, at_3="nsfw"), on_progress=told.append)
    last = told[-1]
    assert (last.total, last.read, last.done, last.failed, last.in_flight) == (15, 15, 14, 1, 0)
    assert max(progress.in_flight for progress in told) == 10


async def test_a_picture_that_cannot_be_fetched_fails_its_row(tmp_path: Path) -> None:
    """Its swap is kept; a run again fetches it without paying twice."""
    refused = Fault("GET /results/*", Status(400), times=2)
    async with service(faults=[refused]) as (emulator, client):
        settings: dict[str, Any] = {"journal": tmp_path / "run.sqlite", "download_to": tmp_path}
        (failed,) = await run(client, rows(1), **settings)
        assert isinstance(failed.error, BadRequestError)
        assert failed.swap is not None
        (done,) = await run(client, rows(1), **settings)
    assert done.path is not None
    assert len(emulator.swaps) == 1


async def test_a_folder_that_is_gone_stops_the_run(tmp_path: Path) -> None:
    """Where no picture can be written, no more swaps are paid for."""
    folder = tmp_path / "out"
    async with service() as (emulator, client):

        def remove(progress: BulkProgress) -> None:
            if progress.done == 1:
                shutil.rmtree(folder, ignore_errors=True)

        with pytest.raises(BulkStoppedError, match="run them again") as caught:
            await run(client, rows(100), download_to=folder, on_progress=remove)
        assert isinstance(caught.value.__cause__, OSError)
        assert len(emulator.swaps) < 100


async def test_a_failure_that_cannot_be_written_down_stops_the_run(tmp_path: Path) -> None:
    """What the journal does not hold has not happened: the next run finds it again."""
    journal, (request,) = tmp_path / "run.sqlite", rows(1, at_0="fails")
    async with service() as (_, client):
        urls: Any = {"source_url": request.source_url, "target_url": request.target_url}
        swap = await client.swaps.create(**urls, idempotency_key="key-0")
        created = attrs.evolve(intended(request), state=State.CREATED, swap_id=swap.id)
        async with opened(journal, owner=owner_of_client(client)) as begun:
            await begun.write(attrs.evolve(created, key_id=begun.key_id, sent_at=1.0))
        async with client.swaps.bulk([request], journal=journal) as outcomes:
            assert outcomes._journal is not None
            outcomes._journal._file.connection.execute("PRAGMA query_only = ON")
            with pytest.raises(JournalError, match="readonly"):
                await anext(outcomes)
        (outcome,) = await run(client, [request], journal=journal)
    assert isinstance(outcome.error, SwapFailedError)


async def test_rows_left_of_an_input_without_end_are_not_counted() -> None:
    """Nobody knows how many there are."""
    async with service() as (emulator, client):
        emulator.revoke_key(emulator.api_key)
        with pytest.raises(BulkStoppedError, match="For the rows that are left") as caught:
            await run(client, iter(rows(3)))
    assert caught.value.rows_left is None


async def test_an_error_of_the_users_own_callback_comes_out_as_it_is() -> None:
    """The run ends; the error is not taken for one of a row."""

    def broken(progress: BulkProgress) -> None:
        if progress.done == 2:
            raise RuntimeError("the window is gone")

    async with service() as (_, client):
        with pytest.raises(RuntimeError, match="the window is gone"):
            await run(client, rows(20), on_progress=broken)


async def test_an_error_of_the_users_own_rows_comes_out_as_it_is() -> None:
    """After everything that was begun has ended."""

    def broken() -> Iterator[SwapRequest]:
        yield from rows(3)
        raise RuntimeError("the file is gone")

    async with service() as (emulator, client):
        with pytest.raises(RuntimeError, match="the file is gone"):
            await run(client, broken())
    assert len(emulator.swaps) == 3


async def test_an_expired_result_is_fetched_anew(tmp_path: Path) -> None:
    """A run that is resumed days later has URLs that are no longer signed."""
    journal = tmp_path / "run.sqlite"
    async with service(result_ttl=60.0) as (_, client):
        await run(client, rows(3), journal=journal)
        await asyncio.sleep(3600)
        outcomes = await run(client, rows(3), journal=journal, download_to=tmp_path / "out")
        assert all(outcome.ok for outcome in outcomes)
        assert len(os.listdir(tmp_path / "out")) == 3


async def test_a_journal_is_used_by_one_run_at_a_time(tmp_path: Path) -> None:
    """The second is told so, and the first goes on."""
    journal = tmp_path / "run.sqlite"
    async with service() as (_, client), client.swaps.bulk(rows(3), journal=journal) as outcomes:
        with pytest.raises(JournalError, match="in use by another run"):
            await run(client, rows(3), journal=journal)
        assert len([outcome async for outcome in outcomes]) == 3


async def test_closing_waits_for_a_write_that_was_cancelled(tmp_path: Path) -> None:
    """A thread goes on where its task was cancelled; the file must not be closed under it."""
    for number in range(100):
        entry = JournalEntry(number, State.INTENDED, "key", bytes(100_000), b"%d" % number)
        async with opened(tmp_path / "run.sqlite") as journal:
            write = asyncio.create_task(journal.write(entry))
            for _ in range(number):
                await asyncio.sleep(0)
            write.cancel()
            await asyncio.gather(write, return_exceptions=True)
    assert {entry.body for entry in entries(tmp_path / "run.sqlite")} == {bytes(100_000)}


@pytest.mark.parametrize("kind", ["text", "another database", "another version", "damaged"])
async def test_what_is_no_usable_journal_is_left_alone(kind: str, tmp_path: Path) -> None:
    """The error says what it is; not a byte of it changes."""
    path = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        if kind == "text":
            path.write_text("source,target\n" * 200)
        elif kind == "another database":
            with sqlite3.connect(path) as other:
                other.execute("CREATE TABLE mine (x)")
            other.close()
        else:
            await run(
                client, rows(300, **{f"at_{row}": "instant" for row in range(300)}), journal=path
            )
            with sqlite3.connect(path) as ours:
                ours.execute("PRAGMA journal_mode = DELETE")
                ours.execute("PRAGMA user_version = 99")
                if kind == "damaged":
                    ours.execute("PRAGMA user_version = 2")
            ours.close()
        if kind == "damaged":
            data = bytearray(path.read_bytes())
            data[4096:] = b"\x5a" * (len(data) - 4096)
            path.write_bytes(data)
        before = path.read_bytes()
        swaps = len(emulator.swaps)
        words = {
            "text": "is not a journal",
            "another database": "not the journal of a bulk run",
            "another version": "version 99",
            "damaged": "cannot be used as a journal|malformed",
        }
        with pytest.raises(JournalError, match=words[kind]):
            await run(client, rows(300), journal=path)
        assert len(emulator.swaps) == swaps
    assert path.read_bytes()[4096:] == before[4096:]


async def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    """Nothing is sent that could not be written down before."""
    journal = tmp_path / "run.sqlite"
    async with service(limits=NO_LIMITS) as (emulator, client):
        async with client.swaps.bulk(rows(400), journal=journal, concurrency=50) as outcomes:
            assert outcomes._journal is not None
            outcomes._journal._file.connection.execute("PRAGMA max_page_count = 16")
            with pytest.raises(JournalError, match="the disk is full"):
                async for _ in outcomes:
                    pass
        sent = len(emulator.swaps)
        assert sent < 400
        rest = await run(client, rows(400), journal=journal, concurrency=50)
        assert len(rest) == len(emulator.swaps) == 400


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "10"])
async def test_a_concurrency_of_nothing_is_refused(concurrency: Any, client: AsyncClient) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidRequestError, match="concurrency"):
        client.swaps.bulk([], concurrency=concurrency)


def test_the_blocking_client_runs_in_bulk_too(tmp_path: Path) -> None:
    """The same, without a word of async."""
    with (
        Emulator(duration=0.1, limits=NO_LIMITS) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url, budget=None) as client,
    ):
        with client.swaps.bulk(rows(12, at_3="nsfw"), journal=tmp_path / "run.sqlite") as outcomes:
            ended = {outcome.row: outcome.ok for outcome in outcomes}
        assert ended == {row: row != 3 for row in range(12)}
        with client.swaps.bulk(rows(12, at_3="nsfw")) as outcomes:
            next(outcomes)
            outcomes.stop()
            assert len(list(outcomes)) <= 12
