"""An ASGI app that receives webhook deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from aifaceswap.webhooks._receiver import (
    CLOSES_CONNECTION,
    EXTRA_HEADERS,
    MAX_BODY,
    NO_CONTENT,
    READ_TIMEOUT,
    Handler,
    Receiver,
    RejectedError,
    WaitingClient,
    check_handler,
    too_large,
)
from aifaceswap.webhooks._seen_store import SeenStore, TokenlessSeenStore
from aifaceswap.webhooks._signature import SIGNATURE_HEADER, TOLERANCE, wrap_keys

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]

_SIGNATURE = SIGNATURE_HEADER.encode()


class _GoneError(Exception):
    """The sender closed the connection."""


class WebhookApp:
    """An ASGI app that receives webhook deliveries.

    It runs alone (``uvicorn module:app``), or as a route of Starlette, FastAPI, Litestar or
    Quart, on any path. Responses: 204 after the handler has returned, now or for an earlier
    attempt; 400 if verification failed, whatever the reason; 405, 408, 413 and 415 for requests
    that cannot be deliveries; 500 if the handler raises and 503 while it is still running, so
    that the delivery is sent again.

    Args:
        handler: Called once for each delivery, with the event: an async function, or a plain one
            that returns at once, such as ``queue.put_nowait``. The response waits for it: leave
            long work to others. None: only `client` receives deliveries.
        keys: The API keys that may sign: one, or several during a rotation.
        client: The `AsyncClient` or `Client` whose waits the deliveries end.
        seen: The store that remembers deliveries; None: a `MemorySeen` for this process alone.
        tolerance: Seconds that a delivery's time may differ from ours, back and ahead; above 0.
        max_body: Maximum size of a body in bytes; 1 or more.
        read_timeout: Seconds in which the complete body must arrive; above 0.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        handler: Handler | None,
        keys: str | Iterable[str],
        *,
        client: WaitingClient | None = None,
        seen: SeenStore | TokenlessSeenStore | None = None,
        tolerance: float = TOLERANCE,
        max_body: int = MAX_BODY,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        secrets = wrap_keys(keys)
        del keys
        check_handler(handler, client)
        self._receiver = Receiver(
            handler,
            secrets,
            client=client,
            seen=seen,
            tolerance=tolerance,
            max_body=max_body,
            read_timeout=read_timeout,
        )

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one connection, as ASGI 3 defines it.

        Args:
            scope: The connection's scope.
            receive: Returns the next message.
            send: Sends a message.
        """
        kind = scope["type"]
        if kind == "http":
            await self._respond(scope, receive, send)
        elif kind == "lifespan":
            await _serve_lifespan(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close"})
        else:  # as ASGI demands for a type of connection that an app does not know
            raise NotImplementedError(f"WebhookApp serves HTTP and lifespan; got {kind!r}")

    async def _respond(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        try:
            status = await self._status(scope, receive)
        except _GoneError:
            return
        headers = _asgi_headers(status, scope.get("http_version", "1.1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    async def _status(self, scope: _Message, receive: _Receive) -> int:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        # Two of them are invalid: joined as HTTP says, they have two times.
        signatures = [value for name, value in scope["headers"] if name == _SIGNATURE]
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        length = headers.get(b"content-length", b"").decode("latin-1")
        receiver = self._receiver
        try:
            receiver.check_head(scope["method"], encoding, length)
            body = await receiver.read(_read_asgi(receive, receiver.max_body))
        except RejectedError as error:
            return error.verdict.status
        return (await receiver.receive(body, b",".join(signatures) or None)).status


async def _read_asgi(receive: _Receive, most: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        body += message.get("body", b"")
        if len(body) > most:
            raise too_large()
        more = message.get("more_body", False)
    return bytes(body)


def _asgi_headers(status: int, version: str) -> list[tuple[bytes, bytes]]:
    if status == NO_CONTENT:
        return []
    headers = {**EXTRA_HEADERS.get(status, {}), "content-length": "0"}
    # HTTP/2 and later have no such header.
    if status in CLOSES_CONNECTION and version.startswith("1"):
        headers["connection"] = "close"
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _serve_lifespan(receive: _Receive, send: _Send) -> None:
    kind = ""
    while kind != "lifespan.shutdown":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
