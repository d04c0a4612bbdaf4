"""An aiohttp.web handler that receives webhook deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from aifaceswap.webhooks._receiver import (
    CLOSES_CONNECTION,
    EXTRA_HEADERS,
    MAX_BODY,
    NOT_BELIEVED,
    READ_TIMEOUT,
    Handler,
    Listener,
    Receiver,
    TooLargeError,
    receive_in_time,
)
from aifaceswap.webhooks._seen_store import SeenStore
from aifaceswap.webhooks._signature import SIGNATURE_HEADER, TOLERANCE

if TYPE_CHECKING:
    from aiohttp import StreamReader, web


def aiohttp_handler(
    handler: Handler | None,
    keys: str | Iterable[str],
    *,
    client: Listener | None = None,
    seen: SeenStore | None = None,
    tolerance: float = TOLERANCE,
    max_body: int = MAX_BODY,
    read_timeout: float = READ_TIMEOUT,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make a handler for aiohttp.web: ``app.router.add_post("/hooks/swap", ...)``.

    It answers as `WebhookApp` does. The application's ``client_max_size`` has no say.

    Args:
        handler: As in `WebhookApp`.
        keys: As in `WebhookApp`.
        client: As in `WebhookApp`.
        seen: As in `WebhookApp`.
        tolerance: As in `WebhookApp`.
        max_body: As in `WebhookApp`.
        read_timeout: As in `WebhookApp`.

    Returns:
        The handler.

    Raises:
        ConfigurationError: An argument cannot be used.
    """
    from aiohttp import web  # noqa: PLC0415 - whoever has no aiohttp.web app does not load it

    receiver = Receiver(
        handler,
        keys,
        client=client,
        seen=seen,
        tolerance=tolerance,
        max_body=max_body,
        read_timeout=read_timeout,
    )

    async def handle(request: web.Request) -> web.Response:
        headers = request.headers
        encoding = headers.get("Content-Encoding", "")
        status = receiver.refusal(request.method, encoding, headers.get("Content-Length", ""))
        if status is None:
            signature = ",".join(headers.getall(SIGNATURE_HEADER, [])) or None
            reading = _read_stream(request.content, receiver.max_body)
            try:
                status = await receive_in_time(receiver, reading, signature)
            except (ConnectionError, web.RequestPayloadError):  # cut, or broken on its way
                status = NOT_BELIEVED
        response = web.Response(status=status, headers=EXTRA_HEADERS.get(status))
        if status in CLOSES_CONNECTION:
            response.force_close()
        return response

    return handle


async def _read_stream(stream: StreamReader, most: int) -> bytes:
    body = bytearray()
    while chunk := await stream.readany():
        body += chunk
        if len(body) > most:
            raise TooLargeError
    return bytes(body)
