"""Webhook deliveries: verify and parse them, sign them, receive them in a server.

A view needs only `parse`. `WebhookApp` is an ASGI app, `aiohttp_handler` makes a handler for
aiohttp.web. Both limit the size of a body and the time to read it, and handle each delivery
once::

    from aifaceswap import webhooks

    app = webhooks.WebhookApp(handler, keys=[api_key])  # uvicorn, or mounted in another app

The key that signs deliveries *is* the API key: anyone who can verify a delivery can spend credits.
"""

from __future__ import annotations

from aifaceswap.errors import WebhookVerificationError, WebhookVerificationReason
from aifaceswap.models import WebhookEvent
from aifaceswap.webhooks._aiohttp import aiohttp_handler
from aifaceswap.webhooks._asgi import WebhookApp
from aifaceswap.webhooks._receiver import Handler
from aifaceswap.webhooks._seen_store import (
    Claim,
    DeliveryClaim,
    MemorySeen,
    SeenStore,
    TokenlessSeenStore,
)
from aifaceswap.webhooks._signature import SIGNATURE_HEADER, parse, sign, verify

__all__ = [
    "SIGNATURE_HEADER",
    "Claim",
    "DeliveryClaim",
    "Handler",
    "MemorySeen",
    "SeenStore",
    "TokenlessSeenStore",
    "WebhookApp",
    "WebhookEvent",
    "WebhookVerificationError",
    "WebhookVerificationReason",
    "aiohttp_handler",
    "parse",
    "sign",
    "verify",
]
