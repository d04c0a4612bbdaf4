"""The emulator from below HTTP libraries: raw bytes over a socket."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs

from support.emulator_world import SWAP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aifaceswap.emulator import Emulator

TIMEOUT = 60.0
KEY = "Bearer key_emulator"
JSON_TYPE = "Content-Type: application/json"
BODY = json.dumps(SWAP).encode()


def raw(
    body: bytes = b"", *headers: str, method: str = "POST", path: str = "/api/v1/swaps"
) -> bytes:
    """One request with a key."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Authorization: Bearer key_emulator",
        *headers,
    ]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def creation(key: str | None = None) -> bytes:
    """A good POST /swaps."""
    keys = [] if key is None else [f"Idempotency-Key: {key}"]
    return raw(BODY, JSON_TYPE, f"Content-Length: {len(BODY)}", *keys)


async def read_result(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One whole answer: status, headers in lower case, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split(" ")[1]), headers, body


@attrs.frozen
class Wire:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(TIMEOUT):
            return await read_result(self.reader)

    async def rest(self) -> bytes:
        """Everything until the server closes the connection; a reset raises."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.read()


@asynccontextmanager
async def connected(emulator: Emulator) -> AsyncIterator[Wire]:
    """A connection to the emulator."""
    host, port = emulator.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def exchange(emulator: Emulator, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes, part by part; read one answer."""
    async with connected(emulator) as wire:
        await wire.send(*parts)
        return await wire.answer()


async def control(
    emulator: Emulator,
    method: str,
    path: str,
    value: object = None,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, Any]:
    """One request to `/_emulator/`: the status, and what the JSON says."""
    content = body if body is not None else b"" if value is None else json.dumps(value).encode()
    lines = {"Host": "127.0.0.1", "Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    request = f"{method} /_emulator/{path} HTTP/1.1\r\n{head}\r\n".encode() + content
    status, _, answer = await exchange(emulator, request)
    return status, json.loads(answer)
