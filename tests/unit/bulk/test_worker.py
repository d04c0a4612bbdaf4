"""When a row is final, and what keeps it open; in virtual time.

Every test counts what was paid: never more swaps than rows.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aifaceswap import (
    AIFaceSwapError,
    APIStatusError,
    BulkStoppedError,
    ContentRejectedError,
    InsufficientCreditsError,
    NotFoundError,
    Outcome,
    ServerError,
    WaitTimeoutError,
)
from aifaceswap.bulk._journal import State
from aifaceswap.emulator import Limits
from aifaceswap.emulator.faults import Body, Fault, RequestAction, Reset, Stall, Status, Truncate
from support.bulk_runs import NO_LIMITS, fault, ids, posts, rows, run, service, states

PAGE = "<html><title>Just a moment...</title></html>"
IN_PROGRESS = '{"error": {"code": "idempotency_in_progress", "message": "In progress."}}'


def kinds(outcomes: list[Outcome]) -> list[type[object]]:
    return [type(outcome.error) for outcome in outcomes]


# --- the POST ---


@pytest.mark.parametrize(
    "action",
    [
        Body(PAGE, status=524),
        Body(PAGE, status=520),
        Body(PAGE, status=502),
        Body(PAGE, status=503),
        Body(PAGE, status=403),
        Body(PAGE, status=302),
        Body(PAGE, status=429),
        Body(PAGE),
        Body("[]", "application/json"),
        Body(IN_PROGRESS, "application/json", status=409),
        Body('{"error": {"code": "no_face", "message": "?"}}', "application/json", status=422),
        Body('{"error": {"code": "gone", "message": "?"}}', "application/json", status=400),
        Body('{"error": {"code": "forbidden", "message": "?"}}', "application/json", status=403),
        Body('{"error": {"code": "internal_error"}}', "application/json", status=500),
        Reset(commit=True),
        Reset(commit=False),
        Truncate(),
        Stall("half"),
        Status(500),
        Status(409),
        Status(422, code="no_face"),
    ],
    ids=str,
)
async def test_a_post_without_proof_leaves_the_row_open(
    action: RequestAction, tmp_path: Path
) -> None:
    """It is resumed with the same key, and `retry_failed` pays nothing for it."""
    journal = tmp_path / "run.sqlite"
    faults = [fault("POST /swaps", action, times=7)]
    async with service(faults=faults, duration=1.0, spread=0.0) as (emulator, client):
        requests = rows(2)
        for retry_failed in (False, True, False, True):
            await run(client, requests, journal=journal, retry_failed=retry_failed)
        outcomes = await run(client, requests, journal=journal, retry_failed=True)
        assert [outcome.ok for outcome in outcomes] == [True, True]
        assert len(emulator.swaps) == 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [("nsfw", ContentRejectedError), ("unreachable", AIFaceSwapError)],
)
async def test_a_documented_code_makes_a_row_final(
    name: str, kind: type[AIFaceSwapError], tmp_path: Path
) -> None:
    """The service was asked once; nothing was created, and nothing is sent again."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        (outcome,) = await run(client, rows(1, at_0=name), journal=journal)
        assert isinstance(outcome.error, kind)
        assert states(journal) == [State.FAILED]
        sent = posts(emulator)
        await run(client, rows(1, at_0=name), journal=journal)
        assert posts(emulator) == sent == 1


async def test_a_rejection_after_an_attempt_that_was_lost_proves_nothing(tmp_path: Path) -> None:
    """The swap of the first attempt exists; the same key finds it."""
    journal = tmp_path / "run.sqlite"
    faults = [
        Fault("POST /swaps", Reset(commit=True)),
        Fault("POST /swaps", Status(422, code="nsfw_content_detected")),
    ]
    async with service(faults=faults, duration=1.0) as (emulator, client):
        (outcome,) = await run(client, rows(1), journal=journal)
        assert isinstance(outcome.error, ContentRejectedError)
        assert states(journal) == [State.INTENDED]
        (outcome,) = await run(client, rows(1), journal=journal, retry_failed="all")
        assert outcome.ok
        assert len(emulator.swaps) == 1


async def test_no_credits_after_an_attempt_that_was_lost_keep_the_key(tmp_path: Path) -> None:
    """The last credits may have been spent on this very row."""
    journal = tmp_path / "run.sqlite"
    faults = [Fault("POST /swaps", Reset(commit=True)), Fault("POST /swaps", Status(402))]
    async with service(faults=faults, duration=1.0, credits=1) as (emulator, client):
        with pytest.raises(BulkStoppedError) as stopped:
            await run(client, rows(1), journal=journal)
        assert isinstance(stopped.value.__cause__, InsufficientCreditsError)
        assert states(journal) == [State.INTENDED]
        (outcome,) = await run(client, rows(1), journal=journal)
        assert outcome.ok
        assert len(emulator.swaps) == 1


async def test_rows_that_fail_for_their_content_are_retried_only_when_asked(
    tmp_path: Path,
) -> None:
    """They would fail again; a swap that failed for another reason may not."""
    journal = tmp_path / "run.sqlite"
    requests = rows(3, at_0="nsfw", at_1="fails")
    async with service(duration=1.0) as (emulator, client):
        await run(client, requests, journal=journal)
        sent = posts(emulator)
        await run(client, requests, journal=journal, retry_failed=True)
        assert posts(emulator) == sent + 1
        await run(client, requests, journal=journal, retry_failed="all")
        assert posts(emulator) == sent + 3


# --- the polls ---


@pytest.mark.parametrize(
    "action",
    [
        Body(PAGE, status=403),
        Body(PAGE, status=404),
        Body(PAGE, status=405),
        Body(PAGE, status=410),
        Body(PAGE, status=520),
        Body(PAGE, status=524),
        Body(PAGE),
        Body("[]", "application/json"),
        Status(400),
        Status(404),
        Status(409),
        Status(500),
        Reset(),
    ],
    ids=str,
)
async def test_a_poll_that_fails_ends_no_row(action: RequestAction, tmp_path: Path) -> None:
    """Neither on the list nor on a single swap; the swap is running and paid."""
    journal = tmp_path / "run.sqlite"
    faults = [fault("GET /swaps*", action, nth=2, times=3)]
    async with service(faults=faults, limits=NO_LIMITS) as (emulator, client):
        outcomes = await run(client, rows(3), journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True] * 3
        assert len(emulator.swaps) == 3


async def test_polls_that_fail_for_good_leave_rows_open_and_keep_their_ids(tmp_path: Path) -> None:
    """The outcome has the paid swap; the next run waits for it, and pays nothing."""
    journal = tmp_path / "run.sqlite"
    async with service(duration=5.0) as (emulator, client):
        broken = emulator.add_fault(fault("GET /swaps*", Status(404)))
        outcomes = await run(client, rows(3), journal=journal, timeout=3000.0)
        assert kinds(outcomes) == [NotFoundError] * 3
        created = {swap.id for swap in emulator.swaps}
        assert {outcome.swap.id for outcome in outcomes if outcome.swap} == created
        assert states(journal) == [State.CREATED] * 3
        assert set(ids(journal)) == created
        emulator.remove_fault(broken)
        outcomes = await run(client, rows(3), journal=journal, retry_failed="all")
        assert [outcome.ok for outcome in outcomes] == [True] * 3
        assert len(emulator.swaps) == 3


async def test_a_key_that_is_revoked_in_mid_run_ends_no_row(tmp_path: Path) -> None:
    """Running swaps stay open with their ids."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        async with client.swaps.bulk(rows(3), journal=journal) as outcomes:
            while len(emulator.swaps) < 3:
                await asyncio.sleep(1)
            emulator.revoke_key(emulator.api_key)
            with pytest.raises(BulkStoppedError):
                [outcome async for outcome in outcomes]
        assert states(journal) == [State.CREATED] * 3
        assert None not in ids(journal)


# --- what never ends ---


async def test_a_swap_that_never_finishes_ends_its_row_after_the_timeout(tmp_path: Path) -> None:
    """The run continues meanwhile, and the next one waits for the swap again."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        clock = asyncio.get_running_loop().time
        began = clock()
        outcomes = await run(client, rows(30, at_4="forever"), journal=journal)
        assert [outcome.row for outcome in outcomes if not outcome.ok] == [4]
        assert isinstance(outcomes[4].error, WaitTimeoutError)
        assert outcomes[4].swap is not None
        assert 900 < clock() - began < 1000
        assert states(journal).count(State.CREATED) == 1
        assert len(emulator.swaps) == 30


async def test_ten_swaps_that_never_finish_do_not_block_the_run(tmp_path: Path) -> None:
    """The service has given them up, and no longer counts them: probes find that out."""
    journal = tmp_path / "run.sqlite"
    stuck = {f"at_{row}": "forever" for row in range(10)}
    async with service(limits=Limits(concurrent=20)) as (emulator, client):
        outcomes = await run(client, rows(25, **stuck), journal=journal, timeout=100.0)
        assert [outcome.ok for outcome in outcomes] == [False] * 10 + [True] * 15
        assert len(emulator.swaps) == 25


async def test_ten_swaps_that_stick_and_count_stop_the_run_in_time(tmp_path: Path) -> None:
    """Where the service does count them, the run says so instead of standing still."""
    journal = tmp_path / "run.sqlite"
    stuck = {f"at_{row}": "forever" for row in range(10)}
    async with service() as (emulator, client):
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(BulkStoppedError, match="rate_limited_concurrent"):
            await run(client, rows(12, **stuck), journal=journal, timeout=100.0, max_wait=60.0)
        assert clock() - began < 200
        assert posts(emulator) < 30
        assert len(emulator.swaps) == 10


async def test_stuck_swaps_of_others_do_not_block_the_run() -> None:
    """Nor for the time of one timeout."""
    async with service(limits=Limits(concurrent=20)) as (emulator, client):
        forever: Any = {
            "source_url": "https://example.com/forever.jpg",
            "target_url": "https://example.com/t.jpg",
        }
        for _ in range(10):
            await client.swaps.create(**forever)
        outcomes = await run(client, rows(5), timeout=100.0)
        assert [outcome.ok for outcome in outcomes] == [True] * 5
        assert len(emulator.swaps) == 15


async def test_the_oldest_unfinished_swap_is_shown() -> None:
    """Its id and its age; whoever watches sees what the run waits for."""
    seen: list[tuple[str | None, float]] = []
    async with service(duration=5.0, spread=0.0) as (emulator, client):
        await run(
            client,
            rows(12, at_0="forever"),
            timeout=100.0,
            on_progress=lambda progress: seen.append((progress.oldest_id, progress.oldest_seconds)),
        )
        stuck = next(swap.id for swap in emulator.swaps if swap.status != "done")
    assert (stuck, 5) in [(swap_id, int(seconds)) for swap_id, seconds in seen]
    assert seen[-1] == (None, 0.0)


@pytest.mark.parametrize("action", [Status(500), Status(503), Body(PAGE, status=403), Stall()])
async def test_a_list_that_always_fails_is_not_needed(action: RequestAction) -> None:
    """Swaps are polled one by one."""
    async with service(faults=[fault("GET /swaps", action)], limits=NO_LIMITS) as (_, client):
        outcomes = await run(client, rows(3), timeout=800.0)
    assert [outcome.ok for outcome in outcomes] == [True] * 3


# --- the result ---


async def test_a_row_with_an_unusable_link_is_an_outcome_and_stays_open(tmp_path: Path) -> None:
    """The run continues; when the service has a good link, the next run downloads it."""
    settings: dict[str, Any] = {"journal": tmp_path / "run.sqlite", "download_to": tmp_path / "out"}
    async with service(faults=[fault("GET /results/*", Status(404), times=4)]) as (
        emulator,
        client,
    ):
        (outcome,) = await run(client, rows(1), **settings)
        assert isinstance(outcome.error, APIStatusError)
        assert outcome.swap is not None
        assert states(settings["journal"]) == [State.AWAITING_DOWNLOAD]
        (outcome,) = await run(client, rows(1), **settings, retry_failed="all")
        assert isinstance(outcome.error, APIStatusError)
        (outcome,) = await run(client, rows(1), **settings)
        assert outcome.path is not None
        assert len(emulator.swaps) == 1


async def test_a_store_that_refuses_the_link_does_not_stop_the_run(tmp_path: Path) -> None:
    """401 of a store says nothing about the API key."""
    refused = fault("GET /results/*", Status(401), times=2)
    async with service(faults=[refused], limits=NO_LIMITS) as (_, client):
        outcomes = await run(client, rows(3), concurrency=1, download_to=tmp_path)
    assert [outcome.ok for outcome in outcomes] == [False, True, True]


# --- what every row would meet ---


@pytest.mark.parametrize(
    "action",
    [
        Body(PAGE, status=302),
        Body(PAGE, status=403),
        Body(PAGE, status=502),
        Body(PAGE, status=521),
        Body(PAGE),
        Status(503, retry_after=40),
        Status(503, code="maintenance"),
        Reset(commit=False),
        Status(429, code="rate_limited", retry_after=20),
    ],
    ids=str,
)
async def test_an_outage_pauses_the_run_and_fails_no_row(
    action: RequestAction, tmp_path: Path
) -> None:
    """It lasts for many requests; then the same rows are sent."""
    async with service(faults=[fault("POST /swaps", action, times=15)]) as (emulator, client):
        outcomes = await run(client, rows(20), journal=tmp_path / "run.sqlite", max_wait=2000.0)
        assert [outcome.ok for outcome in outcomes] == [True] * 20
        assert len(emulator.swaps) == 20


@pytest.mark.parametrize(
    ("action", "most"),
    [
        (Status(503, code="api_temporarily_disabled", retry_after=900), 10),
        (Body(PAGE, status=403), 120),
        (Body(PAGE, status=302), 120),
        (Reset(commit=False), 150),
        (Status(500), 150),
        (Status(404), 12),
        (Body(PAGE, status=405), 12),
        (Body(PAGE, status=301), 12),
    ],
    ids=str,
)
async def test_an_outage_without_end_stops_the_run_with_every_row_open(
    action: RequestAction, most: int, tmp_path: Path
) -> None:
    """After `max_wait`, or at once where waiting is of no use; then it is simply resumed."""
    journal = tmp_path / "run.sqlite"
    async with service() as (emulator, client):
        broken = emulator.add_fault(fault("POST /swaps", action))
        clock = asyncio.get_running_loop().time
        began = clock()
        outcomes: list[Outcome] = []
        with pytest.raises(BulkStoppedError) as stopped:
            async with client.swaps.bulk(rows(300), journal=journal) as bulk:
                outcomes.extend([outcome async for outcome in bulk])
        assert isinstance(stopped.value.__cause__, AIFaceSwapError)
        assert clock() - began < 450
        assert posts(emulator) <= most
        assert set(states(journal)) == {State.INTENDED}
        assert stopped.value.rows_left is not None
        emulator.remove_fault(broken)
        done = await run(client, rows(30), journal=journal)
        assert [outcome.ok for outcome in done] == [True] * 30
        assert len(emulator.swaps) == 30


async def test_one_poisonous_row_does_not_stop_the_others(tmp_path: Path) -> None:
    """A row for which the service always fails is its own outcome."""
    poison = rows(1, at_0="fails-the-service")[0]
    faults = [fault("POST /swaps", Status(500), times=3)]
    async with service(faults=faults) as (emulator, client):
        outcomes = await run(client, [poison, *rows(9)], concurrency=1)
        assert [type(outcome.error) for outcome in outcomes[:2]] == [ServerError, type(None)]
        assert len(emulator.swaps) == 9


async def test_a_limit_that_others_use_up_stops_the_run_in_time() -> None:
    """A small `max_wait` bounds it, and few requests are wasted."""
    full = fault("POST /swaps", Status(429, code="rate_limited_concurrent", retry_after=1))
    async with service(faults=[full]) as (emulator, client):
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(BulkStoppedError, match="rate_limited_concurrent"):
            await run(client, rows(3), max_wait=3.0)
        assert clock() - began < 10
        assert posts(emulator) < 15
