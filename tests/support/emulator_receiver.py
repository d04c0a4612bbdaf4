"""A webhook receiver on loopback, and swaps that are delivered to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import attrs
from aiohttp import web

from support.emulator_world import SWAP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aifaceswap.emulator import Emulator

HOOK = "https://shop.example.com/hooks/swap%20done?shop=7&a=%2F"


@attrs.define
class Receiver:
    """A webhook receiver on loopback that answers as told."""

    statuses: list[int] = attrs.field(factory=list)
    hang: bool = False
    origin: str = ""
    received: list[tuple[str, dict[str, str], bytes]] = attrs.field(factory=list, init=False)
    arrived: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.received.append((request.path_qs, dict(request.headers), await request.read()))
        self.arrived.set()
        if self.hang:
            await asyncio.Event().wait()
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": "https://example.com/"})

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Receiver]:
        runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def create(emulator: Emulator, **fields: object) -> str:
    """Create a swap with a webhook; its id."""
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    body = {**SWAP, "webhook_url": HOOK, **fields}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{emulator.base_url}/swaps", json=body) as answer,
    ):
        assert answer.status == 201
        return str((await answer.json())["id"])
