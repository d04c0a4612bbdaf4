"""Broken responses: what an action makes of a response, and how it is written to the socket."""

from __future__ import annotations

import json
import socket
import struct
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import attrs
from aiohttp import web

from aifaceswap.emulator._service.api import encode
from aifaceswap.emulator._service.messages import ServerResponse
from aifaceswap.emulator._times import http_date, iso
from aifaceswap.emulator.faults import (
    Body,
    ClockSkew,
    Close,
    Headers,
    Oversized,
    Reset,
    Stall,
    Truncate,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from aifaceswap.emulator.faults import RequestAction

_BLANKS: Final = b" " * 65_536
_RESET: Final = struct.pack("ii", 1, 0)


class Connection(Protocol):
    """What a broken response needs of its connection."""

    transport: asyncio.Transport | None
    doomed: bool

    async def hold(self, seconds: float | None = None) -> None:
        """Wait until the connection has gone, or so long."""


def alter(action: RequestAction, response: ServerResponse) -> ServerResponse:
    """The response as the action changes it, where it does."""
    match action:
        case Body(text, content_type, status):
            changed = _replace(response.headers, {"Content-Type": content_type})
            return ServerResponse(status or response.status, changed, text.encode())
        case Headers(changes, removed):
            return attrs.evolve(response, headers=_replace(response.headers, changes, removed))
        case ClockSkew(seconds):
            return _skew(response, seconds)
        case _:
            return response


def _replace(
    headers: tuple[tuple[str, str], ...], changes: Mapping[str, str], removed: tuple[str, ...] = ()
) -> tuple[tuple[str, str], ...]:
    gone = {name.lower() for name in (*changes, *removed)}
    kept = (header for header in headers if header[0].lower() not in gone)
    return (*kept, *changes.items())


def _skew(response: ServerResponse, seconds: float) -> ServerResponse:
    def shift(name: str, value: str) -> str:
        if name == "Date":
            return http_date(parsedate_to_datetime(value).timestamp() + seconds)
        return str(int(value) + round(seconds)) if name == "x-ratelimit-reset" else value

    headers = tuple((name, shift(name, value)) for name, value in response.headers)
    if dict(headers).get("Content-Type") != "application/json":
        return attrs.evolve(response, headers=headers)
    return ServerResponse(
        response.status, headers, encode(skew_swaps(json.loads(response.body), seconds))
    )


def skew_swaps(value: Any, seconds: float) -> Any:
    """A swap, or a page of them, with another `created_at`."""
    if "created_at" in value:
        return {
            **value,
            "created_at": iso(datetime.fromisoformat(value["created_at"]).timestamp() + seconds),
        }
    if "data" in value:
        return {**value, "data": [skew_swaps(swap, seconds) for swap in value["data"]]}
    return value


class BrokenResponse(web.StreamResponse):
    """A response that is written to the socket by the rules of an action, not of HTTP."""

    def __init__(self, action: RequestAction, response: ServerResponse) -> None:
        super().__init__(status=response.status)
        self._action, self._response = action, alter(action, response)
        self._stays_open = False

    @property
    def keep_alive(self) -> bool:
        """Whether aiohttp leaves the connection open."""
        return self._stays_open

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write everything that is to be written."""
        connection = cast("Connection", request.protocol)
        body = b"" if request.method == "HEAD" else self._response.body
        write = request.writer.write
        match self._action:
            case Reset():
                _reset(connection)
            case Stall(after):
                if after == "half":
                    await write(self._head(len(body)) + body[: len(body) // 2])
                await connection.hold()
            case Truncate(keep):
                await write(self._head(len(body)) + body[: int(len(body) * keep)])
            case Oversized(size):
                missing = max(0, size - len(body))
                await write(self._head(len(body) + missing) + body)
                for start in range(0, missing, len(_BLANKS)):
                    await write(_BLANKS[: missing - start])
            case action:
                head = self._head(len(self._response.body))
                connection.doomed = isinstance(action, Close)
                self._stays_open = request.keep_alive and b"\r\ncontent-length:" in head.lower()
                await write(head + body)

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing more."""

    def _head(self, length: int) -> bytes:
        status, headers = self._response.status, self._response.headers
        if not _sets_length(self._action):
            headers = (*headers, ("Content-Length", str(length)))
        phrase = HTTPStatus(status).phrase if status in _KNOWN else ""
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


_KNOWN: Final = frozenset(map(int, HTTPStatus))


def _sets_length(action: RequestAction) -> bool:
    """Whether the action has a word of its own about Content-Length."""
    if not isinstance(action, Headers):
        return False
    return "content-length" in {name.lower() for name in (*action.set, *action.remove)}


def _reset(connection: Connection) -> None:
    transport = connection.transport
    if transport is not None:
        raw: socket.socket = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()


class Silence(web.StreamResponse):
    """No response, on a connection that is closed."""

    @property
    def keep_alive(self) -> bool:
        """No."""
        return False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing."""
