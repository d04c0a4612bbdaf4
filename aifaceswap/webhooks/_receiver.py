"""Receives webhook deliveries, whichever server they arrive at."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeAlias

from aifaceswap import _validation
from aifaceswap.errors import (
    ConfigurationError,
    WebhookVerificationError,
)
from aifaceswap.models import WebhookEvent
from aifaceswap.webhooks._seen_store import MemorySeen, SeenStore
from aifaceswap.webhooks._signature import (
    check,
    read,
    signing_keys,
)

Handler: TypeAlias = Callable[[WebhookEvent], Awaitable[object] | object]
"""What is run for a delivery: an async function, or a plain one that returns at once."""

#: Bytes that a delivery may have.
MAX_BODY: Final = 1024 * 1024

#: Seconds in which a delivery's body must have come.
READ_TIMEOUT: Final = 10.0

# What requests are answered with. Plain numbers: members of int cost microseconds each.
HANDLED: Final = 204
NOT_BELIEVED: Final = 400
NO_POST: Final = 405
TOO_SLOW: Final = 408
TOO_LARGE: Final = 413
ENCODED: Final = 415
FAILED: Final = 500
BUSY: Final = 503

# A swap ends once: these happen once to a swap, however often they are delivered.
_HAPPENS_ONCE = frozenset({"swap.completed", "swap.failed"})
_PLAIN_ENCODINGS = frozenset({"", "identity"})

_log = logging.getLogger("aifaceswap")


class Listener(Protocol):
    """What wants to be told of deliveries: an `AsyncClient` or a `Client`."""

    def deliver(self, event: WebhookEvent) -> None:
        """Take in a verified delivery.

        Args:
            event: The delivery.
        """

    def expect_deliveries(self) -> None:
        """Be told that deliveries are going to come."""


class Receiver:
    """The rules for deliveries, without a server.

    Args:
        handler: What is run once for each delivery; None: nothing.
        keys: The API keys that may sign.
        client: Whose waits deliveries end; None: nobody's.
        seen: What remembers deliveries; None: the memory of this process.
        tolerance: Seconds that a delivery's time may be from ours.
        max_body: Bytes that a body may have.
        read_timeout: Seconds in which a body must have come.

    Attributes:
        max_body: Bytes that a body may have.
        read_timeout: Seconds in which a body must have come.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        handler: Handler | None,
        keys: str | Iterable[str],
        *,
        client: Listener | None,
        seen: SeenStore | None,
        tolerance: float,
        max_body: int,
        read_timeout: float,
    ) -> None:
        if handler is None and client is None:
            text = "handler: without one and without a client nobody would hear of a delivery"
            raise ConfigurationError(text, field="handler")
        self._handler = handler
        self._secrets = signing_keys(keys)
        self._client = client
        self._seen = MemorySeen() if seen is None else seen
        self._tolerance = _validation.seconds("tolerance", tolerance)
        self.max_body = _validation.positive_integer("max_body", max_body)
        self.read_timeout = _validation.seconds("read_timeout", read_timeout)
        if client is not None:
            client.expect_deliveries()

    def refusal(self, method: str, encoding: str, length: str) -> int | None:
        """Judge a request before its body is read.

        Args:
            method: The HTTP method.
            encoding: The Content-Encoding header, or nothing.
            length: The Content-Length header, or nothing.

        Returns:
            The status it is refused with, or None.
        """
        if method != "POST":
            return NO_POST
        # A small body may unpack to a huge one, and what is signed is what was sent.
        if encoding.lower() not in _PLAIN_ENCODINGS:
            return ENCODED
        # Python reads no number of thousands of digits.
        if length.isdecimal() and int(length[:19]) > self.max_body:
            return TOO_LARGE
        return None

    async def receive(self, body: bytes, header: str | bytes | None) -> int:
        """Check a delivery and have it handled.

        Args:
            body: The raw body.
            header: The signature header, or None.

        Returns:
            The status to answer with.
        """
        try:
            check(body, header, self._secrets, self._tolerance)
            event = read(body)
        except WebhookVerificationError as error:
            _log.info("refused a webhook delivery: %s", error.reason)
            return NOT_BELIEVED
        try:
            if self._client is not None:
                self._client.deliver(event)
            return await self._handle_once(event, _name(event, body))
        except Exception:
            _log.exception("a webhook delivery could not be handled; it was answered with 500")
            return FAILED

    async def _handle_once(self, event: WebhookEvent, delivery: str) -> int:
        claim = await self._seen.claim(delivery)
        if claim == "done":
            return HANDLED
        if claim == "busy":
            return BUSY
        try:
            await self._handle(event)
            await self._seen.commit(delivery)
        except BaseException:
            await self._seen.release(delivery)
            raise
        return HANDLED

    async def _handle(self, event: WebhookEvent) -> None:
        if self._handler is not None:
            result = self._handler(event)
            if inspect.isawaitable(result):
                await result


def _name(event: WebhookEvent, body: bytes) -> str:
    """What is the same for each attempt of one delivery."""
    name = f"{event.event}:{event.swap.id}"
    if event.event in _HAPPENS_ONCE:
        return name
    return f"{name}:{hashlib.sha256(body).hexdigest()}"


EXTRA_HEADERS = {NO_POST: {"allow": "POST"}, BUSY: {"retry-after": "5"}}
# Sent before the body has come: its rest must not be taken for the next request.
CLOSES_CONNECTION = frozenset({NO_POST, TOO_SLOW, TOO_LARGE, ENCODED})


class TooLargeError(Exception):
    """The body is larger than it may be."""


async def receive_in_time(
    receiver: Receiver, reading: Awaitable[bytes], signature: str | bytes | None
) -> int:
    try:
        async with asyncio.timeout(receiver.read_timeout):
            body = await reading
    except TimeoutError:
        return TOO_SLOW
    except TooLargeError:
        return TOO_LARGE
    return await receiver.receive(body, signature)
