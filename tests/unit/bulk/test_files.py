"""Rows with local files: published ahead, frozen, recognised and resumed; in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from aifaceswap import (
    AsyncClient,
    Budget,
    BulkStoppedError,
    Client,
    ConfigurationError,
    FileStoreError,
    InvalidRequestError,
    Outcome,
    SwapRequest,
    UnresolvedRowError,
)
from aifaceswap._api.requests import swap_body
from aifaceswap.bulk._files import WrittenPath
from aifaceswap.bulk._identity import content_identity
from aifaceswap.bulk._journal import State
from aifaceswap.emulator import Emulator
from aifaceswap.emulator.faults import Stall, Status
from aifaceswap.files._publisher import Publisher
from support.bulk_runs import fault, ids, posts, run, states
from support.journals import entries
from support.local_files import GIF, JPEG, SigningStore, touch, write_gif, write_jpeg
from support.samples import FACE, TARGET


@asynccontextmanager
async def service(
    store: Any = None, **settings: Any
) -> AsyncIterator[tuple[Emulator, AsyncClient]]:
    """An emulator with the real limits, and a client that publishes in this store."""
    settings = {"duration": 5.0, "spread": 2.0, "credits": 10_000, **settings}
    async with (
        Emulator(**settings) as emulator,
        AsyncClient(
            emulator.api_key, base_url=emulator.base_url, budget=Budget(), files=store
        ) as client,
    ):
        yield emulator, client


def files(folder: Path, number: int = 3) -> list[dict[str, Any]]:
    """Rows of one face and so many targets."""
    face = write_jpeg(folder / "face.jpg", "face")
    return [
        {"source": str(face), "target": str(write_gif(folder / f"{row}.gif", str(row)))}
        for row in range(number)
    ]


async def lose_posts(
    emulator: Emulator, client: AsyncClient, rows: Any, *, commit: bool = True, **settings: Any
) -> None:
    """A run whose POSTs get no response, whatever becomes of them, and that is left then."""
    emulator.add_fault(fault("POST /swaps", Stall(commit=commit)))
    async with client.swaps.bulk(rows, **settings):
        await asyncio.sleep(5)
    emulator.clear_faults()


def expire(journal: Path, seconds: float = 100_000.0) -> None:
    """Let the journal's rows have been sent, and their URLs signed, earlier."""
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        for number, text in connection.execute("SELECT number, files FROM rows").fetchall():
            known = json.loads(text)
            for file in known.values():
                file["expires"] -= seconds
            connection.execute(
                "UPDATE rows SET files = ?, sent_at = sent_at - 3600 WHERE number = ?",
                (json.dumps(known), number),
            )


def bodies(emulator: Emulator) -> dict[str | None, set[bytes]]:
    """The bodies of the requests to create a swap, by their idempotency keys."""
    found: dict[str | None, set[bytes]] = {}
    for request in emulator.requests:
        if request.method == "POST":
            found.setdefault(request.idempotency_key, set()).add(request.body)
    return found


# --- what a row can be -----------------------------------------------------------------------


async def test_a_file_is_whatever_create_takes(tmp_path: Path) -> None:
    """A path as text or `Path`, bytes, an open file, a URL; each row is one swap."""
    face, party = write_jpeg(tmp_path / "face.jpg"), write_gif(tmp_path / "party.gif")
    rows = [
        {"source": str(face), "target": str(party)},
        SwapRequest(source=face, target=party),
        {"source": JPEG, "target": bytearray(GIF)},
        {"source": BytesIO(JPEG), "target": TARGET},
        {"source_url": FACE, "target": party, "type": "gif"},
        {"source": FACE, "target_url": TARGET},
    ]
    async with service(SigningStore()) as (emulator, client):
        outcomes = await run(client, rows, journal=tmp_path / "run.sqlite")
        again = await run(client, rows[:3] + rows[4:], journal=tmp_path / "run.sqlite")
        swaps = {swap.id: swap for swap in emulator.swaps}
    assert [outcome.ok for outcome in outcomes] == [True] * 6
    types = [swaps[outcome.swap.id].type for outcome in outcomes if outcome.swap]
    assert types == ["gif", "gif", "gif", "image", "gif", "image"]
    assert len(swaps) == 6
    assert {outcome.idempotency_key for outcome in again} == {
        outcome.idempotency_key for outcome in outcomes
    }


async def test_the_bytes_of_a_target_say_what_it_is(tmp_path: Path) -> None:
    """Not its name; a type that is given stays."""
    party, photo = write_gif(tmp_path / "party.jpg"), write_jpeg(tmp_path / "photo.gif")
    rows = [
        {"source": JPEG, "target": party},
        {"source": JPEG, "target": photo},
        {"source": JPEG, "target": party, "type": "image"},
    ]
    async with service(SigningStore()) as (emulator, client):
        assert all(outcome.ok for outcome in await run(client, rows))
        assert sorted(swap.type for swap in emulator.swaps) == ["gif", "image", "image"]


async def test_the_emulator_itself_is_a_store(tmp_path: Path) -> None:
    """Nothing needs to be set up; URLs and files can stand side by side."""
    rows = [*files(tmp_path, 15), {"source": str(tmp_path / "face.jpg"), "target_url": TARGET}]
    async with service() as (emulator, client):
        outcomes = await run(client, rows, journal=tmp_path / "run.sqlite")
        assert [outcome.ok for outcome in outcomes] == [True] * 16
        assert len(emulator.swaps) == 16


def test_the_blocking_client_takes_files(tmp_path: Path) -> None:
    """From a generator, which it reads in the calling thread."""
    with (
        Emulator(duration=0.0) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url) as client,
        client.swaps.bulk(iter(files(tmp_path, 2))) as outcomes,
    ):
        assert [outcome.ok for outcome in outcomes] == [True, True]


# --- which row is which ----------------------------------------------------------------------


def test_rows_of_urls_are_recognised_as_ever() -> None:
    """By journals of earlier releases: another digest would be another swap."""
    request = SwapRequest(
        source="https://example.com/a.jpg",
        target_url="https://example.com/b.jpg",
        metadata={"b": 1.0, "a": "é"},
    )
    assert request.source is None
    assert content_identity(swap_body(request)).hex() == "34f43dbdfe364ff00c1ed3250b086dca"
    plain = SwapRequest(source_url="https://example.com/a.jpg", target=request.target_url)
    assert content_identity(swap_body(plain)).hex() == "06494bf4cf36e950da548fd4734034ed"


async def test_a_changed_file_is_a_new_row(tmp_path: Path) -> None:
    """A file that is only written again is not; the old row stays, and is never paid again."""
    rows = files(tmp_path)
    journal = tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        first = await run(client, rows, journal=journal)
        touch(tmp_path / "0.gif")
        write_gif(tmp_path / "1.gif", "another")
        outcomes = await run(client, rows, journal=journal)
        old = [outcome for outcome in outcomes if outcome.row is None]
        new = [outcome for outcome in outcomes if outcome.row is not None]
        keys = [outcome.idempotency_key for outcome in first]
        assert [outcome.idempotency_key for outcome in old] == keys[1:2]
        assert [outcome.idempotency_key in keys for outcome in new] == [True, False, True]
        for content in ("1", "another"):
            write_gif(tmp_path / "1.gif", content)
            assert len(await run(client, rows, journal=journal)) == 4
        assert len(emulator.swaps) == 4


async def test_a_missing_file_is_an_error_only_where_it_is_needed(tmp_path: Path) -> None:
    """Rows that have finished, or were sent, need none."""
    rows = files(tmp_path)
    journal = tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await run(client, rows[:1], journal=journal)
        await lose_posts(emulator, client, rows[:2], journal=journal)
        assert states(journal) == [State.DONE, State.INTENDED]
        for name in ("face.jpg", "0.gif", "1.gif", "2.gif"):
            (tmp_path / name).unlink()
        outcomes = await run(client, rows, journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True, True, False]
        assert isinstance(outcomes[2].error, InvalidRequestError)
        assert "No such file" in str(outcomes[2].error)
        assert not outcomes[2].is_open
        assert len(emulator.swaps) == 2


async def test_equal_rows_are_counted(tmp_path: Path) -> None:
    """Also when the files of some have changed since, and others are gone."""
    row, journal = files(tmp_path, 1)[0], tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await run(client, [row] * 3, journal=journal)
        assert len(emulator.swaps) == 3
        await run(client, [row] * 4, journal=journal)
        assert len(emulator.swaps) == 4
        write_gif(tmp_path / "0.gif", "another")
        assert len(await run(client, [row] * 2, journal=journal)) == 6
        assert len(emulator.swaps) == 6
        (tmp_path / "0.gif").unlink()
        outcomes = await run(client, [row] * 3, journal=journal)
        assert sum(outcome.ok for outcome in outcomes) == 6
        assert len(emulator.swaps) == 6


async def test_a_name_of_the_callers_own_stands_for_a_row(tmp_path: Path) -> None:
    """Whatever becomes of its file."""
    (row,), journal = files(tmp_path, 1), tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await run(client, [{**row, "row_id": "a"}], journal=journal)
        write_gif(tmp_path / "0.gif", "another")
        (outcome,) = await run(client, [{**row, "row_id": "a"}], journal=journal)
        assert outcome.ok
        assert len(emulator.swaps) == 1


async def test_a_path_counts_as_it_is_written(tmp_path: Path) -> None:
    """In a file of rows, which can be moved with its pictures."""
    journal = tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        for folder in (tmp_path / "here", tmp_path / "there"):
            write_jpeg(folder / "face.jpg")
            rows = [{"source": WrittenPath("face.jpg", folder), "target_url": TARGET}]
            (outcome,) = await run(client, rows, journal=journal)
            assert outcome.ok
        assert len(emulator.swaps) == 1
    assert repr(rows[0]["source"]) == repr(str(folder / "face.jpg"))


# --- frozen ----------------------------------------------------------------------------------


async def test_a_resumed_row_sends_the_bytes_that_were_written_down(tmp_path: Path) -> None:
    """Another process signs other URLs, and a key belongs to one body."""
    rows, journal = files(tmp_path), tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await lose_posts(emulator, client, rows, journal=journal)
        written = {entry.key: {entry.body} for entry in entries(journal)}
        outcomes = await run(client, rows, journal=journal)
        assert [outcome.ok for outcome in outcomes] == [True] * 3
        assert bodies(emulator) == written
        assert len(emulator.swaps) == 3
    for entry in entries(journal):
        known = json.loads(entry.files or "")
        assert set(known) == {"source", "target"}
        target = (tmp_path / f"{entry.number}.gif").stat()
        assert known["target"]["size"] == target.st_size
        assert known["target"]["mtime_ns"] == target.st_mtime_ns
        assert len(known["target"]["sha256"]) == 64
        assert known["target"]["path"] == str(tmp_path / f"{entry.number}.gif")


@pytest.mark.parametrize("commit", [True, False])
async def test_expired_urls_are_not_sent_again_blindly(*, commit: bool, tmp_path: Path) -> None:
    """The list of swaps decides: the row's swap is taken, or the row is signed again."""
    rows, journal = files(tmp_path), tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await lose_posts(emulator, client, rows, commit=commit, journal=journal, mark=True)
        before = bodies(emulator)
        await asyncio.sleep(3600)
        expire(journal)
        outcomes = await run(client, rows, journal=journal, mark=True)
        assert [outcome.ok for outcome in outcomes] == [True] * 3
        assert len(emulator.swaps) == 3
        after = bodies(emulator)
        assert len(after) == (3 if commit else 6)
        assert all(len(sent) == 1 for sent in after.values())
        assert {key: after[key] for key in before} == before
        assert {outcome.idempotency_key for outcome in outcomes} <= after.keys() - (
            set() if commit else before.keys()
        )


async def test_expired_urls_in_doubt_are_left_open(tmp_path: Path) -> None:
    """Swaps without metadata may be anybody's; nothing is paid."""
    rows, journal = files(tmp_path), tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await lose_posts(emulator, client, rows, journal=journal)
        await asyncio.sleep(3600)
        expire(journal)
        sent = posts(emulator)
        for outcome in await run(client, rows, journal=journal):
            assert isinstance(outcome.error, UnresolvedRowError)
            assert "URLs of its files have expired" in str(outcome.error)
            assert outcome.is_open
        assert posts(emulator) == sent
        assert set(states(journal)) == {State.INTENDED}


async def test_expired_urls_of_a_missing_file_leave_the_row_open(tmp_path: Path) -> None:
    """In the input or in the journal alone; when the file is back, the row is sent."""
    rows, journal = files(tmp_path, 2), tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await lose_posts(emulator, client, rows, commit=False, journal=journal)
        await asyncio.sleep(3600)
        expire(journal)
        (tmp_path / "0.gif").rename(tmp_path / "away")
        outcomes = await run(client, rows[:1], journal=journal)
        assert {outcome.row for outcome in outcomes} == {0, None}
        for outcome in outcomes:
            assert isinstance(outcome.error, InvalidRequestError)
            assert outcome.is_open
        assert posts(emulator) == 2
        (tmp_path / "away").rename(tmp_path / "0.gif")
        assert all(outcome.ok for outcome in await run(client, rows, journal=journal))
        assert len(emulator.swaps) == 2


async def test_urls_that_end_soon_are_replaced_before_they_are_sent(tmp_path: Path) -> None:
    """A row that waits for a slot longer than its URLs last is signed again."""
    store = SigningStore(expires_in=600.0)
    async with service(store) as (emulator, client):
        (outcome,) = await run(client, files(tmp_path, 1), journal=tmp_path / "run.sqlite")
        assert outcome.ok
        assert len(store.published) == 4
        assert "sig=2" in emulator.swaps[0].source_url


async def test_a_failed_row_is_published_again_for_its_next_swap(tmp_path: Path) -> None:
    """With other URLs, under another key."""
    rows, journal = files(tmp_path), tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        emulator.add_fault(
            fault("POST /swaps", Status(400, code="source_unreachable", commit=False))
        )
        first = await run(client, rows, journal=journal)
        assert not any(outcome.is_open for outcome in first)
        emulator.clear_faults()
        (tmp_path / "2.gif").unlink()
        again = await run(client, rows, journal=journal, retry_failed=True)
        assert [outcome.ok for outcome in again] == [True, True, False]
        assert isinstance(again[2].error, InvalidRequestError)
        assert states(journal) == [State.DONE, State.DONE, State.FAILED]
        sent = bodies(emulator)
        assert len(sent) == 5
        assert len({body for each in sent.values() for body in each}) == 5


async def test_a_file_that_changes_during_the_run_is_not_sent(tmp_path: Path) -> None:
    """The row was recognised by what was in it."""
    rows, journal = files(tmp_path, 1), tmp_path / "run.sqlite"
    store = SigningStore()
    async with service(store) as (emulator, client):
        emulator.add_fault(fault("POST /swaps", Status(422, code="odd", commit=False)))
        await run(client, rows, journal=journal)
        emulator.clear_faults()
        with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
            connection.execute("UPDATE rows SET state = ?", (State.FAILED,))
        path = tmp_path / "0.gif"
        found = path.stat()
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        (outcome,) = await run(client, rows, journal=journal, retry_failed="all")
        assert "must not change while a run reads it" in str(outcome.error)
        assert len(emulator.swaps) == 0


# --- bad files and bad stores ----------------------------------------------------------------


async def test_a_bad_file_is_the_outcome_of_its_row(tmp_path: Path) -> None:
    """The others go on; corrected, it is sent by the next run."""
    rows = files(tmp_path, 4)
    journal = tmp_path / "run.sqlite"
    (tmp_path / "1.gif").write_bytes(b"")
    (tmp_path / "2.gif").write_bytes(b"<html>not found</html>")
    rows[3]["target"] = str(tmp_path)
    for settings in ({"journal": journal}, {}):
        async with service(SigningStore()) as (emulator, client):
            outcomes = await run(client, rows, **settings)
            assert [outcome.ok for outcome in outcomes] == [True, False, False, False]
            for outcome, text in zip(
                outcomes[1:], ("empty", "begins with", "regular"), strict=True
            ):
                assert isinstance(outcome.error, InvalidRequestError)
                assert text in str(outcome.error)
                assert outcome.idempotency_key is None
                assert not outcome.is_open
            assert len(emulator.swaps) == 1
    assert states(journal) == [State.DONE]


async def test_a_store_that_fails_pauses_the_run(tmp_path: Path) -> None:
    """The rows are published when it works again; none fails."""
    store = SigningStore()
    store.errors = [FileStoreError("the bucket does not respond")] * 20
    reasons = set[str]()
    async with service(store) as (emulator, client):
        outcomes = await run(
            client,
            files(tmp_path, 12),
            journal=tmp_path / "run.sqlite",
            on_progress=lambda progress: reasons.add(str(progress.paused)),
        )
        assert [outcome.ok for outcome in outcomes] == [True] * 12
        assert len(emulator.swaps) == 12
    assert reasons == {"None", "the bucket does not respond"}


async def test_a_store_that_fails_for_too_long_stops_the_run(tmp_path: Path) -> None:
    """Every row stays open; rows with URLs are sent meanwhile."""
    store, journal = SigningStore(), tmp_path / "run.sqlite"
    store.errors = [FileStoreError("no such bucket")] * 1000
    rows = [{"source_url": FACE, "target_url": TARGET}, *files(tmp_path, 30)]
    async with service(store) as (emulator, client):
        with pytest.raises(BulkStoppedError, match="no such bucket") as caught:
            await run(client, rows, journal=journal, max_wait=60.0)
        assert caught.value.rows_left == 30
        assert isinstance(caught.value.__cause__, FileStoreError)
        assert states(journal) == [State.DONE]
        store.errors.clear()
        assert all(outcome.ok for outcome in await run(client, rows, journal=journal))
        assert len(emulator.swaps) == 31


async def test_a_store_that_is_set_up_wrongly_stops_the_run_at_once(tmp_path: Path) -> None:
    """E.g. without credentials: waiting changes nothing."""
    store = SigningStore()
    store.errors = [ConfigurationError("no credentials", field="files")] * 9
    async with service(store) as (emulator, client):
        with pytest.raises(BulkStoppedError, match="no credentials") as caught:
            await run(client, files(tmp_path))
        assert isinstance(caught.value.__cause__, ConfigurationError)
        assert posts(emulator) == 0


async def test_without_a_store_the_run_stops_and_says_what_to_set(tmp_path: Path) -> None:
    """Rows that have finished need none."""
    rows, journal = files(tmp_path, 2), tmp_path / "run.sqlite"
    async with service(SigningStore()) as (emulator, client):
        await run(client, rows[:1], journal=journal)
        client._resources.publishing._publisher = Publisher(None, is_local=True)
        with pytest.raises(BulkStoppedError, match="set AIFACESWAP_FILES or pass files="):
            await run(client, rows, journal=journal)
        assert len(await run(client, rows[:1], journal=journal)) == 1
        assert len(emulator.swaps) == 1


# --- ahead of the POST -----------------------------------------------------------------------


async def test_uploads_hold_no_slot_and_are_bounded(tmp_path: Path) -> None:
    """While they hang, rows of URLs go on, and only some rows are read ahead."""
    store = SigningStore()
    store.gate = asyncio.Event()
    rows = [*files(tmp_path, 12), *[{"source_url": FACE, "target_url": TARGET}] * 12]
    done = list[Outcome]()
    async with service(store) as (_, client):
        async with client.swaps.bulk(rows, concurrency=3) as outcomes:
            for _ in range(12):
                done.append(await anext(outcomes))
            assert {outcome.row for outcome in done} == set(range(12, 24))
            store.gate.set()
            done += [outcome async for outcome in outcomes]
        assert all(outcome.ok for outcome in done)
        store.gate.clear()
        async with client.swaps.bulk(files(tmp_path, 40)):
            await asyncio.sleep(100)
            assert store.running == 6
        assert len(store.published) == 24
    assert store.most_running == 6


async def test_a_run_that_stops_does_not_wait_for_uploads(tmp_path: Path) -> None:
    """They have begun nothing that counts."""
    store = SigningStore()
    async with service(store) as (emulator, client):
        async with client.swaps.bulk(files(tmp_path, 30), journal=tmp_path / "run.sqlite") as bulk:
            first = await anext(bulk)
            store.gate = asyncio.Event()
            bulk.stop()
            outcomes = [first, *[outcome async for outcome in bulk]]
        assert all(outcome.ok for outcome in outcomes)
        assert len(outcomes) == len(emulator.swaps) == len(ids(tmp_path / "run.sqlite")) < 30
