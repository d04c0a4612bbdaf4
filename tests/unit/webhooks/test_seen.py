"""Handled once: the store in memory, and one of a user's own in a database."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from aifaceswap import ConfigurationError, WebhookEvent, webhooks
from aifaceswap.webhooks import Claim, DeliveryClaim, MemorySeen, SeenStore, TokenlessSeenStore
from support.hooks import KEY, App, Message, body_of, serve_app, serve_asgi


async def state_of(seen: SeenStore, delivery: str) -> str:
    return (await seen.claim(delivery)).state


async def test_a_delivery_is_new_busy_and_done() -> None:
    """Claimed once, until it is committed."""
    seen = MemorySeen()
    claim = await seen.claim("a")

    assert (claim.state, claim.lease) == ("new", None)
    assert [await state_of(seen, "a"), await state_of(seen, "b")] == ["busy", "new"]
    assert await seen.renew("a", claim.token)
    await seen.commit("a", claim.token)
    assert await state_of(seen, "a") == "done"
    assert not await seen.renew("a", claim.token)


async def test_a_claim_that_is_released_is_new_again() -> None:
    """Its handler has failed."""
    seen = MemorySeen()
    await seen.release("a", (await seen.claim("a")).token)

    assert await state_of(seen, "a") == "new"


async def test_only_its_owner_can_change_a_claim() -> None:
    """Somebody whose claim was lost cannot end another's."""
    seen = MemorySeen()
    lost = await seen.claim("a")
    await seen.release("a", lost.token)
    await seen.claim("a")
    await seen.release("a", lost.token)
    await seen.commit("a", lost.token)

    assert not await seen.renew("a", lost.token)
    assert await state_of(seen, "a") == "busy"


async def handle(seen: SeenStore, delivery: str) -> None:
    await seen.commit(delivery, (await seen.claim(delivery)).token)


async def test_the_store_is_bounded() -> None:
    """The oldest are forgotten first; what is being handled never is."""
    seen = MemorySeen(max_deliveries=3)
    await seen.claim("busy")
    for number in range(1000):
        await handle(seen, f"tsk_{number}")

    assert len(seen) == 4
    assert await state_of(seen, "busy") == "busy"
    assert await state_of(seen, "tsk_999") == "done"
    assert await state_of(seen, "tsk_996") == "new"


async def test_the_store_can_remember_one() -> None:
    """The least that a store can hold."""
    seen = MemorySeen(max_deliveries=1)
    for name in ("a", "b"):
        await handle(seen, name)

    assert [await state_of(seen, "b"), await state_of(seen, "a")] == ["done", "new"]


async def test_the_store_forgets_in_time() -> None:
    """After its `ttl`."""
    seen = MemorySeen(ttl=0.001)
    await handle(seen, "a")
    until = time.monotonic() + 0.002
    while time.monotonic() < until:
        pass

    assert await state_of(seen, "a") == "new"
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
    """A store of a user's own with three methods, shared by several processes."""

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
    stores: list[TokenlessSeenStore] = [
        DatabaseSeen(tmp_path / "seen"),
        DatabaseSeen(tmp_path / "seen"),
    ]
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

    async def claim(self, delivery: str) -> DeliveryClaim:
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

    async def claim(self, delivery: str) -> DeliveryClaim:
        raise ConnectionError("the database is down")


class ForgetfulSeen(MemorySeen):
    """A database that goes down while a delivery is handled."""

    async def commit(self, delivery: str, token: str) -> None:
        raise ConnectionError("the database is down")


async def test_a_store_that_is_down_gets_the_delivery_again() -> None:
    """500, and nothing is handled."""
    handled: list[WebhookEvent] = []
    async with serve_app(handled.append, KEY, seen=BrokenSeen()) as receiver:
        assert (await receiver.post(body_of())).status == 500
    assert handled == []


async def test_a_commit_that_fails_gets_the_delivery_again() -> None:
    """At least once."""
    handled: list[WebhookEvent] = []
    async with serve_app(handled.append, KEY, seen=ForgetfulSeen()) as receiver:
        assert [(await receiver.post(body_of())).status for _ in range(2)] == [500, 500]
    assert len(handled) == 2


class LeasedSeen(MemorySeen):
    """A store on a network, whose claims expire unless they are renewed."""

    def __init__(self, lease: float = 6.0, latency: float = 0.01) -> None:
        super().__init__()
        self.lease, self.latency = lease, latency
        self.expires: dict[str, float] = {}
        self.calls: list[str] = []
        self.is_down = False

    async def _travel(self, call: str) -> None:
        await asyncio.sleep(self.latency)
        self.calls.append(call)
        if self.is_down:
            raise ConnectionError("the store is down")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def claim(self, delivery: str) -> DeliveryClaim:
        await self._travel("claim")
        if self.expires.get(delivery, self._now()) < self._now():
            self._claimed.pop(delivery, None)
        claim = await super().claim(delivery)
        if claim.state == "new":
            self.expires[delivery] = self._now() + self.lease
        return attrs.evolve(claim, lease=self.lease)

    async def commit(self, delivery: str, token: str) -> None:
        await self._travel("commit")
        await super().commit(delivery, token)

    async def release(self, delivery: str, token: str) -> None:
        await self._travel("release")
        await super().release(delivery, token)

    async def renew(self, delivery: str, token: str) -> bool:
        await self._travel("renew")
        self.expires[delivery] = self._now() + self.lease
        return await super().renew(delivery, token)


async def test_a_handler_that_takes_longer_than_the_lease_keeps_its_claim() -> None:
    """The claim is renewed while it runs, and no longer."""
    seen, handled = LeasedSeen(), list[str]()

    async def handler(event: WebhookEvent) -> None:
        handled.append(event.swap.id)
        await asyncio.sleep(20)

    async with serve_app(handler, KEY, seen=seen) as receiver:
        first = asyncio.create_task(receiver.post(body_of()))
        await asyncio.sleep(15)
        assert (await receiver.post(body_of())).status == 503
        assert (await first).status == 204
        await asyncio.sleep(60)
        assert (await receiver.post(body_of())).status == 204

    assert handled == ["tsk_1"]
    assert seen.calls.count("renew") in {9, 10}


async def test_a_claim_that_was_lost_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The handler goes on; whoever has the claim now is not disturbed by its end."""
    seen = LeasedSeen()

    async def handler(event: WebhookEvent) -> None:
        seen._claimed["swap.completed:tsk_1"] = "another's"
        await asyncio.sleep(5)

    async with serve_app(handler, KEY, seen=seen) as receiver:
        assert (await receiver.post(body_of())).status == 204

    assert await state_of(seen, "swap.completed:tsk_1") == "busy"
    assert "has expired while it is handled" in caplog.text


async def test_a_renewal_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """A store that is away for a moment costs no claim."""
    seen = LeasedSeen()

    async def handler(_: WebhookEvent) -> None:
        seen.is_down = True
        await asyncio.sleep(3)
        seen.is_down = False
        await asyncio.sleep(20)

    async with serve_app(handler, KEY, seen=seen) as receiver:
        assert (await receiver.post(body_of())).status == 204

    assert await state_of(seen, "swap.completed:tsk_1") == "done"
    assert "could not be renewed: ConnectionError" in caplog.text


def limited(app: App, seconds: float) -> App:
    """A middleware that cuts requests off with a scope of anyio."""

    async def middleware(scope: Message, receive: Any, send: Any) -> None:
        with anyio.move_on_after(seconds):
            await app(scope, receive, send)
            return
        await send(
            {"type": "http.response.start", "status": 504, "headers": [(b"content-length", b"0")]}
        )
        await send({"type": "http.response.body"})

    return middleware


async def test_a_handler_that_is_cut_off_gives_its_claim_back() -> None:
    """A cancelled scope cancels every await in it, but not the release."""
    seen, calls = LeasedSeen(latency=1.0), list[str]()

    async def handler(event: WebhookEvent) -> None:
        calls.append(event.swap.id)
        await asyncio.sleep(10 if len(calls) == 1 else 0)

    app = limited(webhooks.WebhookApp(handler, KEY, seen=seen), 5)
    async with serve_asgi(app) as receiver:
        assert (await receiver.post(body_of())).status == 504
        assert (await receiver.post(body_of())).status == 204

    assert len(calls) == 2


async def test_a_request_that_is_cancelled_twice_gives_its_claim_back() -> None:
    """As by a server that shuts down in a hurry."""
    seen, started = LeasedSeen(), asyncio.Event()

    async def handler(_: WebhookEvent) -> None:
        started.set()
        await asyncio.Event().wait()

    receive = webhooks.WebhookApp(handler, KEY, seen=seen)._receiver.receive
    request = asyncio.create_task(receive(body_of(), webhooks.sign(body_of(), KEY)))
    await started.wait()
    request.cancel()
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.sleep(1)

    assert await state_of(seen, "swap.completed:tsk_1") == "new"


async def test_a_release_that_hangs_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    """The request ends within seconds; its claim expires by itself."""
    seen = LeasedSeen()

    async def handler(_: WebhookEvent) -> None:
        seen.latency = 3600
        raise ZeroDivisionError

    async with serve_app(handler, KEY, seen=seen) as receiver:
        began = asyncio.get_running_loop().time()
        assert (await receiver.post(body_of())).status == 500
        assert asyncio.get_running_loop().time() - began < 10

    assert "could not be released: TimeoutError" in caplog.text


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
