"""Sample values that many tests use."""

from __future__ import annotations

from typing import Any, Final

from aifaceswap import AsyncClient, Swap, WebhookEvent
from support.scripted import ScriptedServer

FACE: Final = "https://example.com/face.jpg"
TARGET: Final = "https://example.com/target.jpg"
KEY: Final = "key_test_123"

#: The arguments of `create()` and `run()` that are required.
URLS: Final[dict[str, Any]] = {"source_url": FACE, "target_url": TARGET}


def client_of(server: ScriptedServer, **options: Any) -> AsyncClient:
    """A client of a scripted server, without a rate limiter unless one is given."""
    return AsyncClient(KEY, base_url=server.base_url, **{"budget": None, **options})


def done(swap: Swap | str) -> Swap:
    """The swap when it has finished."""
    swap_id = swap.id if isinstance(swap, Swap) else swap
    return Swap(id=swap_id, status="done", result_url="https://example.com/r.jpg")


def delivery(swap: Swap | str) -> WebhookEvent:
    """The delivery of its end."""
    return WebhookEvent(event="swap.completed", swap=done(swap))
