"""An ASGI app under uvicorn in a process of its own: `python -m bench.receiver bare h11 1`.

It prints its port, answers each line on stdin with the seconds of CPU time it has used, and
ends with stdin.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from aifaceswap import WebhookEvent, webhooks
from bench.harness import API_KEY, pin

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def read_body(receive: Receive) -> bytes:
    """All of a request's body."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def bare(_: Message, receive: Receive, send: Send) -> None:
    """Reads the body and answers 200: the least that a receiver does."""
    await read_body(receive)
    await answer(send)


async def working(scope: Message, receive: Receive, send: Send) -> None:
    """Does what no receiver can leave out: one hmac, and json.loads."""
    body = await read_body(receive)
    stamp, _, signature = _signature(scope)[2:].partition(b",v1=")
    digest = hmac.digest(API_KEY.encode(), stamp + b"." + body, "sha256")
    assert hmac.compare_digest(digest.hex().encode(), signature)
    json.loads(body)
    await answer(send)


async def parsing(scope: Message, receive: Receive, send: Send) -> None:
    """Calls `parse()`, and nothing else."""
    webhooks.parse(await read_body(receive), _signature(scope), API_KEY)
    await answer(send)


def _signature(scope: Message) -> bytes:
    found: bytes = dict(scope["headers"])[webhooks.SIGNATURE_HEADER.encode()]
    return found


async def answer(send: Send) -> None:
    """200, and nothing more."""
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})


async def _handle(event: WebhookEvent) -> None:
    """What an app would do."""


APPS: dict[str, Any] = {
    "bare": bare,
    "hmac and json.loads": working,
    "parse()": parsing,
    "WebhookApp": webhooks.WebhookApp(_handle, [API_KEY]),
}


def main(name: str, http: str, core: str) -> None:
    pin(json.loads(core))
    settings: Any = {"http": http, "log_level": "warning", "access_log": False, "lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(APPS[name], **settings))
    listener = socket.create_server(("127.0.0.1", 0))
    report = threading.Thread(target=_report, args=(server, listener.getsockname()[1]))
    report.start()
    asyncio.run(server.serve(sockets=[listener]))


def _report(server: uvicorn.Server, port: int) -> None:
    print(port, flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    server.should_exit = True


if __name__ == "__main__":
    main(*sys.argv[1:])
