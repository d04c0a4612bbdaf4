"""Handled once: the store in memory, and one of a user's own in a database."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from pathlib import Path

import pytest

from aifaceswap import ConfigurationError, WebhookEvent
from aifaceswap.webhooks import Claim, MemorySeen, SeenStore
from support.hooks import KEY, body_of, serve_app


async def test_a_delivery_is_new_busy_and_done() -> None:
    """Claimed once, until it is committed."""
    seen = MemorySeen()

    assert [await seen.claim("a"), await seen.claim("a"), await seen.claim("b")] == [
        "new",
        "busy",
        "new",
    ]
    await seen.commit("a")
    assert await seen.claim("a") == "done"


async def test_a_claim_that_is_released_is_new_again() -> None:
    """Its handler has failed."""
    seen = MemorySeen()
    await seen.claim("a")
    await seen.release("a")

    assert await seen.claim("a") == "new"


async def test_the_store_is_bounded() -> None:
    """The oldest are forgotten first; what is being handled never is."""
    seen = MemorySeen(max_deliveries=3)
    await seen.claim("busy")
    for number in range(1000):
        await seen.claim(f"tsk_{number}")
        await seen.commit(f"tsk_{number}")

    assert len(seen) == 4
    assert await seen.claim("busy") == "busy"
    assert await seen.claim("tsk_999") == "done"
    assert await seen.claim("tsk_996") == "new"


async def test_the_store_may_remember_one() -> None:
    """The least that a store can hold."""
    seen = MemorySeen(max_deliveries=1)
    for name in ("a", "b"):
        await seen.claim(name)
        await seen.commit(name)

    assert [await seen.claim("b"), await seen.claim("a")] == ["done", "new"]


async def test_the_store_forgets_in_time() -> None:
    """After its `ttl`."""
    seen = MemorySeen(ttl=0.001)
    await seen.claim("a")
    await seen.commit("a")
    until = time.monotonic() + 0.002
    while time.monotonic() < until:
        pass

    assert await seen.claim("a") == "new"
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_deliveries": 0}, "max_deliveries"),
        ({"max_deliveries": True}, "max_deliveries"),
        ({"ttl": 0.0}, "ttl"),
        ({"ttl": -1.0}, "ttl"),
    ],
)
def test_a_store_that_holds_nothing_is_refused(options: dict[str, int], field: str) -> None:
    """At the start."""
    with pytest.raises(ConfigurationError, match=rf"^{field}\b") as caught:
        MemorySeen(**options)
    assert caught.value.field == field


class DatabaseSeen:
    """A store of a user's own, shared by several processes."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("CREATE TABLE IF NOT EXISTS seen (name PRIMARY KEY, done)")

    async def claim(self, delivery: str) -> Claim:
        insert = "INSERT OR IGNORE INTO seen VALUES (?, 0)"
        if self.database.execute(insert, (delivery,)).rowcount:
            return "new"
        query = "SELECT done FROM seen WHERE name = ?"
        (done,) = self.database.execute(query, (delivery,)).fetchone()
        return "done" if done else "busy"

    async def commit(self, delivery: str) -> None:
        self.database.execute("UPDATE seen SET done = 1 WHERE name = ?", (delivery,))

    async def release(self, delivery: str) -> None:
        self.database.execute("DELETE FROM seen WHERE name = ?", (delivery,))


async def test_two_processes_share_a_database(tmp_path: Path) -> None:
    """What one has handled the other does not handle again."""
    handled: list[WebhookEvent] = []
    stores: list[SeenStore] = [DatabaseSeen(tmp_path / "seen"), DatabaseSeen(tmp_path / "seen")]
    statuses = []
    for store in stores:
        async with serve_app(handled.append, KEY, seen=store) as receiver:
            statuses += [(await receiver.post(body_of())).status for _ in range(2)]
    for store in stores:
        assert isinstance(store, DatabaseSeen)
        store.database.close()

    assert statuses == [204] * 4
    assert len(handled) == 1


class NotingSeen(MemorySeen):
    """Keeps the names that it is asked for."""

    names: tuple[str, ...] = ()

    async def claim(self, delivery: str) -> Claim:
        self.names += (delivery,)
        return await super().claim(delivery)


async def test_deliveries_keep_their_names() -> None:
    """They stand in users' databases; what may happen often is told apart by its bytes."""
    seen, progress = NotingSeen(), body_of("swap.progress", progress=10)
    async with serve_app(print, KEY, seen=seen) as receiver:
        for body in (body_of(), progress):
            await receiver.post(body)

    digest = hashlib.sha256(progress).hexdigest()
    assert seen.names == ("swap.completed:tsk_1", f"swap.progress:tsk_1:{digest}")


class BrokenSeen(MemorySeen):
    """A database that is down."""

    async def claim(self, delivery: str) -> Claim:
        raise ConnectionError("the database is down")


class ForgetfulSeen(MemorySeen):
    """A database that goes down while a delivery is handled."""

    async def commit(self, delivery: str) -> None:
        raise ConnectionError("the database is down")


async def test_a_store_that_is_down_gets_the_delivery_again() -> None:
    """500, and nothing is handled."""
    handled: list[WebhookEvent] = []
    async with serve_app(handled.append, KEY, seen=BrokenSeen()) as receiver:
        assert (await receiver.post(body_of())).status == 500
    assert handled == []


async def test_a_commit_that_fails_gets_the_delivery_again() -> None:
    """Rather twice than never."""
    handled: list[WebhookEvent] = []
    async with serve_app(handled.append, KEY, seen=ForgetfulSeen()) as receiver:
        assert [(await receiver.post(body_of())).status for _ in range(2)] == [500, 500]
    assert len(handled) == 2


async def test_a_request_that_is_cancelled_gives_its_claim_back() -> None:
    """A server that stops in the middle of a handler has not handled it."""
    started = asyncio.Event()
    seen = MemorySeen()

    async def handler(_: WebhookEvent) -> None:
        started.set()
        await asyncio.Event().wait()

    async with serve_app(handler, KEY, seen=seen) as receiver:
        request = asyncio.create_task(receiver.post(body_of()))
        await started.wait()
        assert len(seen) == 1
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    assert len(seen) == 0
