"""An ASGI app that receives webhook deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from aifaceswap.webhooks._receiver import (
    CLOSES_CONNECTION,
    EXTRA_HEADERS,
    HANDLED,
    MAX_BODY,
    READ_TIMEOUT,
    Handler,
    Listener,
    Receiver,
    TooLargeError,
    receive_in_time,
)
from aifaceswap.webhooks._seen_store import SeenStore
from aifaceswap.webhooks._signature import SIGNATURE_HEADER, TOLERANCE

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]

_SIGNATURE = SIGNATURE_HEADER.encode()


class _GoneError(Exception):
    """The sender hung up."""


class WebhookApp:
    """An ASGI app that receives webhook deliveries.

    It stands alone (``uvicorn module:app``), or as a route of Starlette, FastAPI, Litestar or
    Quart, on whatever path. Answers: 204 when the handler has returned, or had before; 400 for
    every delivery that must not be believed, without a word why; 405, 408, 413 and 415 for what
    is no delivery at all; 500 where the handler raises and 503 while it is still at work, so
    that the delivery comes again.

    Args:
        handler: Run once for each delivery, with the event: an async function, or a plain one
            that returns at once, such as ``queue.put_nowait``. The answer waits for it: leave
            long work to others. None: nothing but `client` is told.
        keys: The API keys that may sign: one, or during a rotation several.
        client: The `AsyncClient` or `Client` whose waits the deliveries end.
        seen: What remembers deliveries; None: a `MemorySeen` for this process alone.
        tolerance: Seconds that a delivery's time may be from ours, back and ahead; above 0.
        max_body: Bytes that a body may have; from 1 up.
        read_timeout: Seconds in which the whole body must have come; above 0.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        handler: Handler | None,
        keys: str | Iterable[str],
        *,
        client: Listener | None = None,
        seen: SeenStore | None = None,
        tolerance: float = TOLERANCE,
        max_body: int = MAX_BODY,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._receiver = Receiver(
            handler,
            keys,
            client=client,
            seen=seen,
            tolerance=tolerance,
            max_body=max_body,
            read_timeout=read_timeout,
        )

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one connection, as ASGI 3 says it.

        Args:
            scope: What is known of it.
            receive: Gives the next message.
            send: Takes the next message.
        """
        kind = scope["type"]
        if kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "lifespan":
            await _serve_lifespan(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close"})
        else:  # what ASGI asks of an app that is asked for something new
            raise NotImplementedError(f"WebhookApp serves no {kind!r}")

    async def _answer(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        try:
            status = await self._status(scope, receive)
        except _GoneError:
            return
        headers = _asgi_headers(status, scope.get("http_version", "1.1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    async def _status(self, scope: _Message, receive: _Receive) -> int:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        # Two of them are none: joined as HTTP says, they have two times.
        signatures = [value for name, value in scope["headers"] if name == _SIGNATURE]
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        length = headers.get(b"content-length", b"").decode("latin-1")
        refusal = self._receiver.refusal(scope["method"], encoding, length)
        if refusal is not None:
            return refusal
        reading = _read_asgi(receive, self._receiver.max_body)
        return await receive_in_time(self._receiver, reading, b",".join(signatures) or None)


async def _read_asgi(receive: _Receive, most: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        body += message.get("body", b"")
        if len(body) > most:
            raise TooLargeError
        more = message.get("more_body", False)
    return bytes(body)


def _asgi_headers(status: int, version: str) -> list[tuple[bytes, bytes]]:
    if status == HANDLED:
        return []
    headers = {**EXTRA_HEADERS.get(status, {}), "content-length": "0"}
    # From version 2 on there is no such header.
    if status in CLOSES_CONNECTION and version.startswith("1"):
        headers["connection"] = "close"
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _serve_lifespan(receive: _Receive, send: _Send) -> None:
    kind = ""
    while kind != "lifespan.shutdown":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
