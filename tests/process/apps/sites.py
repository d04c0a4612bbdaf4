"""The apps of docs/web-apps.md, served on real sockets as their servers serve them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import types
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import attrs
import pytest
from aiohttp import web

from support.doc_pages import DOCS, blocks

PAGE = DOCS / "web-apps.md"
#: Words of each app's block on the page.
WORDS = {
    "aiohttp": "from aiohttp import web",
    "fastapi": "from fastapi import",
    "litestar": "from litestar import",
    "django": "from django",
}


def source(name: str) -> str:
    """The code of an app as it stands on the page."""
    (block,) = (block for block in blocks(PAGE) if WORDS[name] in block.text)
    return block.text


def load(name: str) -> Any:
    """The app as a module, where its framework is installed."""
    pytest.importorskip(name)
    module = sys.modules[f"shop_{name}"] = types.ModuleType(f"shop_{name}")
    # Without the future of this module's own annotations.
    code = compile(source(name), f"web-apps.md, {name}", "exec", dont_inherit=True)
    exec(code, vars(module))
    return module


@attrs.frozen
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    json: Any


class Site:
    """One app behind its server.

    Args:
        name: The framework.
        grace: Seconds that the server gives requests under way when it stops.
        settings: Further settings of the server.
    """

    def __init__(self, name: str, *, grace: float = 25.0, **settings: Any) -> None:
        self.shop = load(name)
        self._serve = _serve_aiohttp if name == "aiohttp" else _serve_asgi
        self._django = name == "django"
        self._grace, self._settings = grace, settings
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        async with contextlib.AsyncExitStack() as stack:
            app = stack.enter_context(_django_project()) if self._django else self.shop.app
            serving = self._serve(app, self._sock, self._grace, **self._settings)
            await stack.enter_async_context(serving)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """What SIGTERM makes the server do."""
        await self._stack.aclose()
        if self._django:
            # Its client closes its connections with the event loop, which goes on here.
            await self.shop.get_client().aclose()

    async def create(self, number: int, *, timeout: float = 60) -> Reply:
        """Order a swap."""
        order = {
            "number": number,
            "source_url": "https://example.com/face.jpg",
            "target_url": "https://example.com/target.jpg",
        }
        return await self._request("POST", "/swaps", timeout, json=order)

    async def show(self, swap_id: str) -> Reply:
        """Wait for a swap's end."""
        return await self._request("GET", f"/swaps/{swap_id}", 60)

    async def _request(self, method: str, path: str, timeout: float, **options: Any) -> Reply:
        patience = aiohttp.ClientTimeout(total=timeout, ceil_threshold=1e9)
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            session.request(method, self.url + path, **options) as response,
        ):
            readable = response.content_type == "application/json"
            json = await response.json() if readable else None
            return Reply(response.status, response.headers, json)


@contextlib.asynccontextmanager
async def _serve_aiohttp(
    app: web.Application, sock: socket.socket, grace: float, **settings: Any
) -> AsyncIterator[None]:
    runner = web.AppRunner(app, shutdown_timeout=grace, **settings)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _serve_asgi(
    app: Any, sock: socket.socket, grace: float, **settings: Any
) -> AsyncIterator[None]:
    uvicorn = pytest.importorskip("uvicorn")
    config = uvicorn.Config(
        app, timeout_graceful_shutdown=grace, log_config=None, ws="none", **settings
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        assert not task.done(), "the app did not start"
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.contextmanager
def _django_project() -> Iterator[Any]:
    """The project around the page's Django app."""
    settings = pytest.importorskip("django.conf").settings
    if not settings.configured:
        # Once in a process: the same as in the tests of webhooks.
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="hook_urls", LOGGING_CONFIG=None)
        pytest.importorskip("django").setup()
    override = pytest.importorskip("django.test").override_settings
    with override(ROOT_URLCONF="shop_django", MIDDLEWARE=["shop_django.Busy"]):
        yield pytest.importorskip("django.core.handlers.asgi").ASGIHandler()
