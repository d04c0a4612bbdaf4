"""The recipes of the page about webhooks, each in its own framework where that is installed."""

from __future__ import annotations

import http.client
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from aifaceswap import WebhookEvent
from support.hooks import HEADER, KEY, body_of, serve_app, serve_asgi, signed

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
BLOCK = re.compile(r"^```py(?:thon)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BODY = body_of()


def recipe(words: str, *, until: str | None = None, **names: object) -> dict[str, Any]:
    """What the block with these words in it defines, where these names stand for the reader's."""
    (block,) = (block for block in BLOCK.findall(PAGE.read_text("utf-8")) if words in block)
    namespace: dict[str, Any] = {"__name__": "recipe", **names}
    exec(block.partition(until)[0] if until else block, namespace)
    return namespace


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIFACESWAP_API_KEY", KEY)


class Work:
    """The reader's own work, that fails when told."""

    def __init__(self) -> None:
        self.events: list[WebhookEvent] = []
        self.fails = False

    def handle(self, event: WebhookEvent) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.events.append(event)

    async def handle_async(self, event: WebhookEvent) -> None:
        self.handle(event)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def django_urls(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A Django without a project: one URL configuration, filled by the test."""
    django, settings = pytest.importorskip("django"), pytest.importorskip("django.conf").settings
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="hook_urls", LOGGING_CONFIG=None)
        django.setup()
    urls = types.ModuleType("hook_urls")
    monkeypatch.setitem(sys.modules, "hook_urls", urls)
    pytest.importorskip("django.urls").clear_url_caches()
    return urls


def django_view(urls: Any, words: str, handle: object) -> None:
    view = recipe(words, handle=handle)["swap_ended"]
    urls.urlpatterns = [pytest.importorskip("django.urls").path("hook", view)]


def test_a_sync_view_of_django(django_urls: Any, work: Work) -> None:
    """Believed, forged, no POST, and work that fails."""
    django_view(django_urls, "\ndef swap_ended(request: HttpRequest)", work.handle)
    make = pytest.importorskip("django.test").Client
    client = make(raise_request_exception=False, enforce_csrf_checks=True)

    def post(body: bytes, headers: Mapping[str, str]) -> int:
        reply = client.post("/hook", body, content_type="application/json", headers=dict(headers))
        return int(reply.status_code)

    assert post(BODY, signed(BODY)) == 204
    assert [post(BODY, {}), post(BODY + b" ", signed(BODY)), post(b"", {HEADER: "\xff"})] == [
        400
    ] * 3
    assert client.get("/hook").status_code == 405
    work.fails = True
    assert post(BODY, signed(BODY)) == 500
    assert len(work.events) == 1


async def test_an_async_view_of_django(django_urls: Any, work: Work) -> None:
    """The same, awaited."""
    django_view(django_urls, "async def swap_ended", work.handle_async)
    make = pytest.importorskip("django.test").AsyncClient
    client = make(raise_request_exception=False, enforce_csrf_checks=True)

    async def post(body: bytes, headers: Mapping[str, str]) -> int:
        reply = await client.post(
            "/hook", body, content_type="application/json", headers=dict(headers)
        )
        return int(reply.status_code)

    assert await post(BODY, signed(BODY)) == 204
    assert await post(BODY, {}) == 400
    assert await post(BODY + b" ", signed(BODY)) == 400
    assert (await client.get("/hook")).status_code == 405
    work.fails = True
    assert await post(BODY, signed(BODY)) == 500
    assert len(work.events) == 1


def test_a_view_of_flask(work: Work) -> None:
    """Believed, forged, no POST, too large, and work that fails."""
    pytest.importorskip("flask")
    app = recipe("from flask import", handle=work.handle)["app"]
    client = app.test_client()

    def post(body: bytes, headers: Mapping[str, str]) -> int:
        return int(client.post("/hooks/swap", data=body, headers=dict(headers)).status_code)

    assert post(BODY, signed(BODY)) == 204
    assert [post(BODY, {}), post(BODY + b" ", signed(BODY))] == [400] * 2
    assert post(b"x" * (1024 * 1024 + 1), signed(BODY)) == 413
    assert client.get("/hooks/swap").status_code == 405
    work.fails = True
    assert post(BODY, signed(BODY)) == 500
    assert len(work.events) == 1


async def test_a_route_of_fastapi() -> None:
    """The app is the endpoint: without a slash at its end, whatever the method."""
    pytest.importorskip("fastapi")
    app = recipe("WebhookApp(jobs.put_nowait")["app"]
    async with serve_asgi(recipe("from fastapi import", app=app)["api"]) as receiver:
        assert (await receiver.post(BODY, path="/hooks/swap")).status == 204
        assert (await receiver.post(BODY, {}, path="/hooks/swap")).status == 400
        assert (await receiver.post(BODY, path="/hooks/swap", method="PUT")).status == 405
        assert (await receiver.post(BODY, path="/elsewhere")).status == 404


@pytest.fixture
def plain() -> Iterator[dict[str, Any]]:
    namespace = recipe("class Hook", until="# What the service does")
    yield namespace
    namespace["server"].shutdown()
    namespace["server"].server_close()


def test_a_server_without_a_framework(plain: dict[str, Any]) -> None:
    """Believed, forged, too large, without a length, and cut short."""

    def post(body: bytes, headers: Mapping[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", plain["server"].server_port)
        try:
            connection.putrequest("POST", "/hooks/swap")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            if connection.sock is not None:
                connection.sock.sendall(body)
                connection.sock.shutdown(1)
            return connection.getresponse().status
        finally:
            connection.close()

    length = {"Content-Length": str(len(BODY))}
    assert post(BODY, signed(BODY, **length)) == 204
    assert post(BODY, length) == 400
    assert post(BODY[:-1], signed(BODY, **length)) == 400
    assert post(b"", signed(BODY)) == 411
    assert post(b"", signed(BODY, **{"Content-Length": str(1024 * 1024 + 1)})) == 413
    assert post(b"", signed(BODY, **{"Content-Length": "9" * 5000})) == 413
    assert [event.swap.id for event in plain["handled"]] == ["tsk_1"]


async def test_a_store_in_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New, busy, done; released; and free again when whoever claimed it has died."""
    monkeypatch.chdir(tmp_path)
    store = recipe("class DatabaseSeen", until="seen = DatabaseSeen(")["DatabaseSeen"]
    first, second = store("seen.sqlite"), store("seen.sqlite")

    claims = [await first.claim("a"), await second.claim("a")]
    assert [claim.state for claim in claims] == ["new", "busy"]
    await first.release("a", claims[0].token)
    lost = await second.claim("a")
    assert await second.renew("a", lost.token)
    second.database.execute("UPDATE seen SET expires = 0")
    found = await first.claim("a")
    assert (lost.state, found.state) == ("new", "new")
    assert not await second.renew("a", lost.token)
    await first.commit("a", found.token)
    first.database.execute("UPDATE seen SET expires = 0")
    assert (await second.claim("a")).state == "done"

    events: list[WebhookEvent] = []
    for seen in (first, second):
        async with serve_app(events.append, KEY, seen=seen) as receiver:
            assert (await receiver.post(BODY)).status == 204
        seen.database.close()
    assert len(events) == 1
