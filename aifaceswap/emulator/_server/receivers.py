"""Receivers of webhook deliveries in this process: ASGI apps and functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import anyio.to_thread
import attrs

from aifaceswap.emulator import _validators as validators

#: An ASGI app, or a function of a `WebhookPost` that returns a status, a response or None.
Receiver: TypeAlias = Callable[..., Any]

_ASGI_ARGUMENTS: Final = 3
_NO_CONTENT: Final = 204


@attrs.frozen
class WebhookPost:
    """One webhook delivery, as a function gets it.

    Attributes:
        url: The `webhook_url` of the swap.
        headers: The headers, with the signature.
        body: The bytes that are signed.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Path and query of the URL."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@attrs.frozen(eq=False)
class LocalReceiver:
    """A receiver and the event loop it belongs to: the one that was running when it was given."""

    receiver: Receiver
    loop: asyncio.AbstractEventLoop | None

    async def post(self, delivery: WebhookPost) -> int:
        """Hand over a delivery and return the status of the response."""
        call = _call_app if _is_asgi(self.receiver) else _call_function
        pending = call(self.receiver, delivery)
        if self.loop in {None, asyncio.get_running_loop()} or cast("Any", self.loop).is_closed():
            return await pending
        elsewhere = asyncio.run_coroutine_threadsafe(pending, cast("Any", self.loop))
        return await asyncio.wrap_future(elsewhere)


def to_receiver(given: Any) -> Any:
    """Remember in which event loop a callable was given."""
    if not callable(given):
        return given
    return LocalReceiver(cast("Receiver", given), asyncio._get_running_loop())


def check_receiver(emulator: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    """Validate `deliver_to`: a receiver, or an origin on loopback if the emulator's host is."""
    if not isinstance(value, LocalReceiver):
        loopback = validators.is_loopback(emulator.host)
        validators.require_origin(attribute.name, value, loopback=loopback)


def _is_asgi(receiver: Receiver) -> bool:
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except ValueError:  # a callable that is not written in Python
        return False
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    required = [each for each in parameters if each.kind in kinds and each.default is each.empty]
    return len(required) == _ASGI_ARGUMENTS


async def _call_function(function: Receiver, delivery: WebhookPost) -> int:
    if inspect.iscoroutinefunction(function):
        result: Any = await function(delivery)
    else:
        # It may block: for example a blocking client of the app.
        result = await anyio.to_thread.run_sync(function, delivery)
        if inspect.isawaitable(result):
            result = await result
    if result is None:
        return _NO_CONTENT
    return int(getattr(result, "status_code", result))


async def _call_app(app: Receiver, delivery: WebhookPost) -> int:
    parts = urlsplit(delivery.url)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": delivery.body, "more_body": False}
    ]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = {"host": parts.netloc, "content-length": str(len(delivery.body)), **delivery.headers}
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": parts.scheme,
        "path": unquote(parts.path) or "/",
        "raw_path": parts.path.encode() or b"/",
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": (parts.hostname or "", parts.port or 443),
    }
    await app(scope, receive, send)
    if not statuses:
        raise ValueError("the app sent no response")
    return statuses[0]
