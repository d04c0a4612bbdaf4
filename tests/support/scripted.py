"""A TCP server that does what a healthy server never does, one step for each request."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

import attrs

SWAP = {
    "id": "tsk_1",
    "type": "image",
    "status": "queued",
    "credit_cost": 1,
    "progress": 0,
    "created_at": "2026-01-01T00:00:00Z",
    "result_url": None,
    "error": None,
    "metadata": None,
    "webhook_url": None,
}


@attrs.frozen
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Step = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class ScriptedServer:
    """Answers the first request by the first step and so on; the last step is repeated.

    Each step writes what it likes; the connection stays open unless the step closes it.
    """

    def __init__(self, *script: Step, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self.requests: list[Received] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        origin = "https://localhost" if self._tls else "http://127.0.0.1"
        self.base_url = f"{origin}:{self.port}/api/v1"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def keys(self) -> list[str | None]:
        """The idempotency key of each request."""
        return [request.headers.get("idempotency-key") for request in self.requests]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                request = await _read_request(reader)
                step = self._script[min(len(self.requests), len(self._script) - 1)]
                self.requests.append(request)
                await step(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


def answer(
    status: int = 200,
    body: bytes | object = SWAP,
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
) -> Step:
    """RawResponse with this status, body (bytes, or what is written as JSON) and headers."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {
        "Content-Type": "application/json",
        "Content-Length": str(len(raw) if length is None else length),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + raw)

    return step


def refusal(status: int, code: str, headers: Mapping[str, str] | None = None) -> Step:
    """RawResponse with the documented error envelope."""
    envelope = {"error": {"code": code, "message": "No.", "request_id": "req_1"}}
    return answer(status, envelope, headers)


def raw(data: bytes) -> Step:
    """Write these bytes and close the connection."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return step


async def reset(_: Received, writer: asyncio.StreamWriter) -> None:
    """Reset the connection, as a server does that dies after it has committed."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def stall(_: Received, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()
