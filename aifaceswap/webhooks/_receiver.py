"""Receives webhook deliveries, whichever server they arrive at."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol, TypeAlias

from aifaceswap import _validation
from aifaceswap._api.codec import FINAL_STATUSES
from aifaceswap._validation import Secret
from aifaceswap.errors import (
    ConfigurationError,
    WebhookVerificationError,
    WebhookVerificationReason,
)
from aifaceswap.models import WebhookEvent
from aifaceswap.webhooks._seen_store import (
    MemorySeen,
    SeenStore,
    TokenlessSeenStore,
    release_shielded,
    start_renewal,
    with_tokens,
)
from aifaceswap.webhooks._signature import check, read, signing_keys

Handler: TypeAlias = Callable[[WebhookEvent], Awaitable[object] | object]
"""Called for each delivery: an async function, or a plain one that returns at once."""

#: Maximum size of a delivery, in bytes.
MAX_BODY: Final = 1024 * 1024

#: Seconds in which a delivery's complete body must arrive.
READ_TIMEOUT: Final = 10.0

# HTTP's own names. Plain numbers: members of HTTPStatus cost microseconds each.
NO_CONTENT: Final = 204
BAD_REQUEST: Final = 400
METHOD_NOT_ALLOWED: Final = 405
REQUEST_TIMEOUT: Final = 408
CONTENT_TOO_LARGE: Final = 413
UNSUPPORTED_MEDIA_TYPE: Final = 415
INTERNAL_SERVER_ERROR: Final = 500
SERVICE_UNAVAILABLE: Final = 503

EXTRA_HEADERS = {METHOD_NOT_ALLOWED: {"allow": "POST"}, SERVICE_UNAVAILABLE: {"retry-after": "5"}}
# Sent before the body has arrived: its rest must not be read as the next request.
CLOSES_CONNECTION = frozenset(
    {METHOD_NOT_ALLOWED, REQUEST_TIMEOUT, CONTENT_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE}
)

_PLAIN_ENCODINGS = frozenset({"", "identity"})

_swap_id = re.compile(rb'"id"\s*:\s*"?([A-Za-z0-9._~-]{1,80})').search

_log = logging.getLogger("aifaceswap")


class WaitingClient(Protocol):
    """A client whose waits deliveries end: an `AsyncClient` or a `Client`."""

    def deliver(self, event: WebhookEvent) -> None:
        """Take in a verified delivery.

        Args:
            event: The delivery.
        """


class Verdict(NamedTuple):
    """What to respond to a request, and why.

    Attributes:
        status: The HTTP status.
        event: The verified event; None if verification failed or nothing was verified.
        reason: Why the request was rejected or not handled; None if it was handled.
    """

    status: int
    event: WebhookEvent | None = None
    reason: str | None = None


class RejectedError(Exception):
    """A request that is not read to its end; carries the verdict."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.verdict = Verdict(status, None, reason)


class Receiver:
    """The rules for deliveries, without a server.

    Args:
        handler: Called once for each delivery; None: nothing is called.
        secrets: The API keys that may sign.
        client: The client whose waits deliveries end; None: no client.
        seen: The store that remembers deliveries; None: the memory of this process.
        tolerance: Seconds that a delivery's time may differ from ours.
        max_body: Maximum size of a body in bytes.
        read_timeout: Seconds in which a body must arrive.

    Attributes:
        max_body: Maximum size of a body in bytes.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        handler: Handler | None,
        secrets: tuple[Secret, ...],
        *,
        client: WaitingClient | None = None,
        seen: SeenStore | TokenlessSeenStore | None = None,
        tolerance: float,
        max_body: int = MAX_BODY,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._handler = handler
        self._secrets = signing_keys(secrets)
        self._client = client
        self._seen: SeenStore = MemorySeen() if seen is None else with_tokens(seen)
        self._tolerance = _validation.seconds("tolerance", tolerance)
        self.max_body: int = _validation.positive_integer("max_body", max_body)
        self._read_timeout = _validation.seconds("read_timeout", read_timeout)

    def check_head(self, method: str, encoding: str, length: str) -> None:
        """Check a request before its body is read.

        Args:
            method: The HTTP method.
            encoding: The Content-Encoding header, or an empty string.
            length: The Content-Length header, or an empty string.

        Raises:
            RejectedError: The request cannot be a delivery.
        """
        if method != "POST":
            raise RejectedError(METHOD_NOT_ALLOWED, "method not allowed")
        # A small body may unpack to a huge one, and the signature covers what was sent.
        if encoding.lower() not in _PLAIN_ENCODINGS:
            raise RejectedError(UNSUPPORTED_MEDIA_TYPE, "unsupported media type")
        # Python does not convert thousands of digits.
        if length.isdecimal() and int(length[:19]) > self.max_body:
            raise too_large()

    async def read(self, reading: Awaitable[bytes]) -> bytes:
        """Wait for a body, but not longer than the read timeout.

        Args:
            reading: Reads the body.

        Returns:
            The body.

        Raises:
            RejectedError: The body is too large or did not arrive in time.
        """
        try:
            async with asyncio.timeout(self._read_timeout):
                return await reading
        except TimeoutError:
            raise RejectedError(REQUEST_TIMEOUT, "request timeout") from None

    def verify(self, body: bytes, header: str | bytes | None) -> Verdict:
        """Verify a delivery without handling it.

        Args:
            body: The raw body.
            header: The signature header, or None.

        Returns:
            204 with the event, or 400 with the reason.
        """
        try:
            check(body, header, self._secrets, self._tolerance)
            return Verdict(NO_CONTENT, read(body))
        except WebhookVerificationError as error:
            return Verdict(BAD_REQUEST, None, error.reason)

    async def receive(self, body: bytes, header: str | bytes | None) -> Verdict:
        """Verify a delivery and have it handled once.

        Args:
            body: The raw body.
            header: The signature header, or None.

        Returns:
            The status to respond with; the event if it was verified; the reason if it was not
            handled.
        """
        verdict = self.verify(body, header)
        event = verdict.event
        if event is None:
            _log_rejection(body, verdict)
            return verdict
        try:
            if self._client is not None:
                self._client.deliver(event)
            if await self._handle_once(event, _name(event, body)):
                return verdict
        except Exception:
            _log.exception("a webhook delivery could not be handled; responded with 500")
            return Verdict(INTERNAL_SERVER_ERROR, event, "the handler failed")
        return Verdict(SERVICE_UNAVAILABLE, event, "the delivery is being handled")

    async def _handle_once(self, event: WebhookEvent, delivery: str) -> bool:
        """Whether the delivery has been handled, now or before."""
        claim = await self._seen.claim(delivery)
        if claim.state != "new":
            return claim.state == "done"
        renewal = start_renewal(self._seen, delivery, claim)
        try:
            await self._handle(event)
            await self._seen.commit(delivery, claim.token)
        except BaseException:
            await release_shielded(self._seen, delivery, claim.token)
            raise
        finally:
            if renewal is not None:
                renewal.cancel()
        return True

    async def _handle(self, event: WebhookEvent) -> None:
        if self._handler is not None:
            result = self._handler(event)
            if result is not None and inspect.isawaitable(result):
                await result


def check_handler(handler: object, client: object) -> None:
    """Check that deliveries reach someone.

    Args:
        handler: The handler, or None.
        client: The client, or None.

    Raises:
        ConfigurationError: Both are missing.
    """
    if handler is None and client is None:
        text = "handler must be a function unless client is given; got None for both"
        raise ConfigurationError(text, field="handler")


def too_large() -> RejectedError:
    """The error for a body beyond the maximum size."""
    return RejectedError(CONTENT_TOO_LARGE, "content too large")


def _log_rejection(body: bytes, verdict: Verdict) -> None:
    if verdict.reason != WebhookVerificationReason.BODY_MALFORMED:
        _log.info("webhook verification failed: %s", verdict.reason)
        return
    # Its sender has the key: this is the service, and someone's swap.
    found = _swap_id(body)
    swap_id = "unknown" if found is None else found[1].decode()
    try:
        read(body)
    except WebhookVerificationError as error:
        _log.error(
            "a signed webhook delivery cannot be read, its swap is %s: %s", swap_id, error.message
        )


def _name(event: WebhookEvent, body: bytes) -> str:
    """What is the same for each attempt of one delivery."""
    name = f"{event.event}:{event.swap.id}"
    if event.event in FINAL_STATUSES:  # a swap finishes once, however often it is delivered
        return name
    return f"{name}:{hashlib.sha256(body).hexdigest()}"
