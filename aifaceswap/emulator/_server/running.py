"""What a running emulator holds: its event loop, its server, its thread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import anyio.from_thread
import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from aifaceswap.emulator._server.server import Server
    from aifaceswap.emulator._server.webhook_sender import WebhookSender


@attrs.frozen(eq=False)
class Running:
    """What there is only between start and stop."""

    loop: asyncio.AbstractEventLoop
    server: Server
    sender: WebhookSender
    task: asyncio.Task[None]

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the loop: now where that is here."""
        if asyncio._get_running_loop() is self.loop:
            function()
        else:
            self.loop.call_soon_threadsafe(function)


@attrs.frozen(eq=False)
class ServerThread:
    """What there is only within a plain `with`."""

    portal: anyio.from_thread.BlockingPortal
    stack: contextlib.ExitStack


def make_origin(host: str, port: int) -> str:
    """How this machine reaches what listens there."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://{f'[{own}]' if ':' in own else own}:{port}"
