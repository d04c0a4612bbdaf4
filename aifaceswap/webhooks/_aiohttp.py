"""An aiohttp.web handler that receives webhook deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from aifaceswap.webhooks._receiver import (
    BAD_REQUEST,
    CLOSES_CONNECTION,
    EXTRA_HEADERS,
    MAX_BODY,
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

if TYPE_CHECKING:
    from aiohttp import StreamReader, web


def aiohttp_handler(
    handler: Handler | None,
    keys: str | Iterable[str],
    *,
    client: WaitingClient | None = None,
    seen: SeenStore | TokenlessSeenStore | None = None,
    tolerance: float = TOLERANCE,
    max_body: int = MAX_BODY,
    read_timeout: float = READ_TIMEOUT,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make a handler for aiohttp.web: ``app.router.add_post("/hooks/swap", ...)``.

    It responds as `WebhookApp` does. The application's ``client_max_size`` does not apply.

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
    secrets = wrap_keys(keys)
    del keys
    check_handler(handler, client)
    receiver = Receiver(
        handler,
        secrets,
        client=client,
        seen=seen,
        tolerance=tolerance,
        max_body=max_body,
        read_timeout=read_timeout,
    )

    async def handle(request: web.Request) -> web.Response:
        try:
            body = await read_body(request, receiver)
            verdict = await receiver.receive(body, signature_of(request))
        except RejectedError as error:
            verdict = error.verdict
        return respond(verdict.status)

    return handle


async def read_body(request: web.Request, receiver: Receiver) -> bytes:
    """Read a request's raw body.

    Args:
        request: The request.
        receiver: Whose limits hold.

    Returns:
        The body.

    Raises:
        RejectedError: The request cannot be a delivery, or its body is incomplete.
    """
    from aiohttp import web  # noqa: PLC0415 - who has no aiohttp.web app does not load it

    headers = request.headers
    encoding = headers.get("Content-Encoding", "")
    receiver.check_head(request.method, encoding, headers.get("Content-Length", ""))
    try:
        return await receiver.read(_read_stream(request.content, receiver.max_body))
    except (ConnectionError, web.RequestPayloadError):  # truncated, or broken on its way
        raise RejectedError(BAD_REQUEST, "the sender closed the connection") from None


def signature_of(request: web.Request) -> str | None:
    """The signature header; two of them are joined as HTTP says, and then have two times."""
    return ",".join(request.headers.getall(SIGNATURE_HEADER, [])) or None


def respond(status: int) -> web.Response:
    """An empty response with the headers that belong to a status."""
    from aiohttp import web  # noqa: PLC0415 - who has no aiohttp.web app does not load it

    response = web.Response(status=status, headers=EXTRA_HEADERS.get(status))
    if status in CLOSES_CONNECTION:
        response.force_close()
    return response


async def _read_stream(stream: StreamReader, most: int) -> bytes:
    body = bytearray()
    while chunk := await stream.readany():
        body += chunk
        if len(body) > most:
            raise too_large()
    return bytes(body)
