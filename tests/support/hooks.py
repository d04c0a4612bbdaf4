"""Deliveries as the service sends them, and servers that receive them, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import attrs
from aiohttp import web

from aifaceswap import webhooks

KEY = "key_test_123"
OTHER_KEY = "key_test_456"
NOW = 1_760_000_000
HEADER = webhooks.SIGNATURE_HEADER
SWAP: dict[str, Any] = {
    "id": "tsk_1",
    "type": "image",
    "status": "done",
    "credit_cost": 1,
    "progress": 100,
    "created_at": "2026-01-01T00:00:00Z",
    "result_url": "https://example.com/r.jpg?signature=1",
    "error": None,
    "metadata": {"row": 1},
    "webhook_url": "https://shop.example.com/hooks/swap",
}

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]


def body_of(event: str = "swap.completed", **fields: object) -> bytes:
    """The body of a delivery."""
    return json.dumps({"event": event, **SWAP, **fields}).encode()


def signed(body: bytes, key: str = KEY, **headers: str) -> dict[str, str]:
    """The headers of a delivery that was signed just now."""
    return {HEADER: webhooks.sign(body, key), **headers}


@attrs.frozen
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class Receiver:
    """A server that receives webhooks, and what is known of where."""

    port: int

    async def post(
        self,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        path: str = "/hook",
        chunked: bool = False,
    ) -> Reply:
        """Send a request as a service does, signed unless headers are given."""
        given = signed(body) if headers is None else headers
        if chunked:
            framing, sent = "Transfer-Encoding: chunked", _chunked(body)
        else:
            framing, sent = f"Content-Length: {len(body)}", body
        lines = [f"{name}: {value}" for name, value in given.items()]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", framing, *lines])
        return await self.raw(head.encode("latin-1") + b"\r\n\r\n" + sent)

    async def raw(self, data: bytes) -> Reply:
        """Send these bytes and read the answer; the connection stays open meanwhile."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            return Reply(int(head[0].split()[1]), headers, body)
        finally:
            writer.close()

    async def hang_up(self, data: bytes) -> None:
        """Send these bytes and go away."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def _chunked(body: bytes) -> bytes:
    parts = [body[at : at + 4096] for at in range(0, len(body), 4096)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@contextlib.asynccontextmanager
async def serve_asgi(app: App) -> AsyncIterator[Receiver]:
    """Serve an ASGI app: what uvicorn does, as far as webhooks need it."""
    tasks: set[asyncio.Task[None]] = set()
    errors: list[BaseException] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _serve_connection(app, reader, writer)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            errors.append(error)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield Receiver(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert errors == []


async def _serve_connection(
    app: App, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    method, path, _ = head[0].decode().split(" ")
    pairs = (line.partition(b": ") for line in head[1:] if line)
    headers = [(name.lower(), value) for name, _, value in pairs]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "headers": headers,
    }
    body = _body(reader, dict(headers))

    async def receive() -> Message:
        try:
            chunk = await anext(body, None)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            lines = [b"%b: %b" % pair for pair in message["headers"]]
            writer.write(b"\r\n".join([b"HTTP/1.1 %d X" % message["status"], *lines, b"", b""]))
        else:
            writer.write(message.get("body", b""))
            await writer.drain()

    await app(scope, receive, send)


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> AsyncIterator[bytes]:
    if headers.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        return
    left = int(headers.get(b"content-length", b"0"))
    while left:
        chunk = await reader.read(min(left, 65_536))
        if not chunk:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(chunk)
        yield chunk


@contextlib.asynccontextmanager
async def serve_aiohttp(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Receiver]:
    """Serve one handler for all methods with aiohttp.web."""
    app = web.Application()
    app.router.add_route("*", "/hook", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Receiver(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serve_app(*args: Any, **options: Any) -> AsyncIterator[Receiver]:
    """Serve a `WebhookApp`."""
    async with serve_asgi(webhooks.WebhookApp(*args, **options)) as receiver:
        yield receiver


@contextlib.asynccontextmanager
async def serve_handler(*args: Any, **options: Any) -> AsyncIterator[Receiver]:
    """Serve an `aiohttp_handler`."""
    async with serve_aiohttp(webhooks.aiohttp_handler(*args, **options)) as receiver:
        yield receiver
