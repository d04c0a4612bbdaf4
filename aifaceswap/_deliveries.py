"""What becomes of a webhook delivery, whichever server received it."""

from __future__ import annotations

import hashlib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal, Protocol, TypeAlias

from aifaceswap import _checks
from aifaceswap._signature import check, read, signing_keys
from aifaceswap.errors import ConfigurationError, WebhookVerificationError
from aifaceswap.models import WebhookEvent

Handler: TypeAlias = Callable[[WebhookEvent], Awaitable[object] | object]
"""What is run for a delivery: an async function, or a plain one that returns at once."""

Claim: TypeAlias = Literal["new", "busy", "done"]
"""What a `SeenStore` says of a delivery: new, being handled just now, or handled."""

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


class SeenStore(Protocol):
    """Remembers deliveries, so that one that comes twice is handled once.

    One of your own, in a database that several processes share, needs these three methods.
    What they raise is logged and answered with 500: the delivery comes again.
    """

    async def claim(self, delivery: str) -> Claim:
        """Ask whether a delivery is to be handled, and if so reserve it, in one atomic step.

        A claim that was neither committed nor released must expire: its process has died.

        Args:
            delivery: The delivery's name, e.g. ``"swap.completed:tsk_1"``.

        Returns:
            ``"new"``: it was not known, and is the caller's now. ``"busy"``: another has
            claimed it. ``"done"``: it was committed.
        """
        ...

    async def commit(self, delivery: str) -> None:
        """Note that a claimed delivery has been handled.

        Args:
            delivery: Its name.
        """

    async def release(self, delivery: str) -> None:
        """Give a claim back: handling failed, the delivery is to come again.

        Args:
            delivery: Its name.
        """


class MemorySeen:
    """A `SeenStore` in the memory of this process, which forgets.

    Args:
        max_deliveries: How many handled deliveries are remembered, the newest ones; from 1 up.
        ttl: Seconds that each is remembered; above 0.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(self, *, max_deliveries: int = 10_000, ttl: float = 86_400.0) -> None:
        self._max = _whole("max_deliveries", max_deliveries)
        self._ttl = _checks.seconds("ttl", ttl)
        self._claimed: set[str] = set()
        # When each is to be forgotten; in this order.
        self._done: dict[str, float] = {}

    def __len__(self) -> int:
        """How many deliveries are remembered or being handled."""
        return len(self._claimed) + len(self._done)

    async def claim(self, delivery: str) -> Claim:
        """Reserve a delivery; see `SeenStore.claim`."""
        self._forget(time.monotonic())
        if delivery in self._done:
            return "done"
        if delivery in self._claimed:
            return "busy"
        self._claimed.add(delivery)
        return "new"

    async def commit(self, delivery: str) -> None:
        """Note that it has been handled; see `SeenStore.commit`."""
        self._claimed.discard(delivery)
        self._done[delivery] = time.monotonic() + self._ttl
        if len(self._done) > self._max:
            del self._done[next(iter(self._done))]

    async def release(self, delivery: str) -> None:
        """Give a claim back; see `SeenStore.release`."""
        self._claimed.discard(delivery)

    def _forget(self, now: float) -> None:
        while self._done and self._done[oldest := next(iter(self._done))] <= now:
            del self._done[oldest]


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
        self._tolerance = _checks.seconds("tolerance", tolerance)
        self.max_body = _whole("max_body", max_body)
        self.read_timeout = _checks.seconds("read_timeout", read_timeout)
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


def _whole(field: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    text = f"{field}: {value!r} is not a whole number from 1 up"
    raise ConfigurationError(text, field=field)
