"""Broken responses: what an action makes of a response, and how it is written to the socket."""

from __future__ import annotations

import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, cast

from aiohttp import web

from aifaceswap.emulator._actions import Close, Headers, Oversized, Reset, Stall, Truncate
from aifaceswap.emulator._service.alterations import alter

if TYPE_CHECKING:
    import asyncio

    from aifaceswap.emulator._actions import RequestAction
    from aifaceswap.emulator._service.messages import ServerResponse

_BLANKS: Final = b" " * 65_536
_RESET: Final = struct.pack("ii", 1, 0)


class Connection(Protocol):
    """What a broken response needs of its connection."""

    transport: asyncio.Transport | None
    doomed: bool

    async def hold(self, seconds: float | None = None) -> None:
        """Wait until the connection has gone, or so long."""


class BrokenResponse(web.StreamResponse):
    """A response that is written to the socket by the rules of an action, not of HTTP."""

    def __init__(self, action: RequestAction, response: ServerResponse) -> None:
        response = alter(action, response)
        super().__init__(status=response.status or HTTPStatus.BAD_GATEWAY)
        self._action, self._response = action, response
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
                if after == "half" and self._response.status:
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
