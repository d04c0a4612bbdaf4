"""`webhook listen`: deliveries are received, verified, shown and forwarded to a local app.

Nothing is remembered. A repeated delivery is forwarded again: the first one may have failed, or
someone tests how the app handles duplicates.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import aiohttp
import attrs
from aiohttp import web
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict
from rich.text import Text
from yarl import URL

from aifaceswap._api import codec
from aifaceswap._limits import SIGNATURE_TOLERANCE
from aifaceswap._validation import Secret
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.rendering import note, printable
from aifaceswap.cli.shared import open_coordinator
from aifaceswap.cli.webhook.deliveries import find_keys
from aifaceswap.cli.webhook.sending import SendResult, new_session, send_delivery
from aifaceswap.client import AsyncClient
from aifaceswap.models import WebhookEvent, without_query
from aifaceswap.webhooks._aiohttp import read_body, respond, signature_of
from aifaceswap.webhooks._receiver import Receiver, RejectedError, Verdict

# Those of one connection; all others are forwarded.
_HOP_BY_HOP = (
    *("Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authenticate"),
    *("Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding", "Upgrade"),
)
_SHUTDOWN = 0.5


@attrs.define(eq=False)
class Listener:
    """Verifies, shows and forwards deliveries.

    Attributes:
        context: The command.
        receiver: Verifies deliveries.
        forward_to: The URL to forward deliveries to, if any.
        client: Forwards deliveries.
        waiting: The clients whose waits deliveries end, in other processes, too.
        broken: Gets the error that ends the command: nothing more can be shown.
    """

    context: CommandContext
    receiver: Receiver
    forward_to: str | None
    client: aiohttp.ClientSession
    waiting: Sequence[AsyncClient] = ()
    broken: asyncio.Future[None] = attrs.field(factory=asyncio.Future[None])

    async def handle(self, request: web.Request) -> web.Response:
        """Handle one request."""
        try:
            body = await read_body(request, self.receiver)
            verdict = self.receiver.verify(body, signature_of(request))
        except RejectedError as error:
            body, verdict = b"", error.verdict
        if verdict.event is None:
            _note_rejection(verdict)
            response = respond(verdict.status)
            response.force_close()
            return response
        for client in self.waiting:
            client.deliver(verdict.event)
        forwarded = await self._forward(body, request.headers)
        try:
            self._show(verdict.event, forwarded)
        except OSError as error:
            if not self.broken.done():
                self.broken.set_exception(error)
            return web.Response(status=500)
        return web.Response(status=204 if forwarded is None or forwarded.succeeded else 502)

    async def _forward(self, body: bytes, headers: Mapping[str, str]) -> SendResult | None:
        if self.forward_to is None:
            return None
        return await send_delivery(self.client, self.forward_to, body, _end_to_end(headers))

    def _show(self, event: WebhookEvent, answer: SendResult | None) -> None:
        if self.context.shows_table:
            _show_line(event, answer)
            return
        rendering.write_json(
            {
                "at": f"{_now().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
                "event": event.event,
                "swap": codec.unstructure(event.swap),
                "forwarded": None if answer is None else attrs.asdict(answer),
            }
        )


def listen(
    context: CommandContext, *, host: str, port: int, forward_to: str | None, key_file: Path | None
) -> None:
    """Receive deliveries until Ctrl-C or SIGTERM."""
    keys = find_keys(context, key_file)

    async def serve() -> None:
        async with new_session() as client, _open_waiting(context, keys) as waiting:
            receiver = Receiver(None, keys, tolerance=SIGNATURE_TOLERANCE)
            listener = Listener(context, receiver, forward_to, client, waiting)
            async with _serve(listener, host, port) as url:
                _check_no_loop(url, forward_to)
                _announce(context, url, forward_to)
                await listener.broken

    runtime.run_server(serve)


@asynccontextmanager
async def _open_waiting(
    context: CommandContext, keys: Sequence[Secret]
) -> AsyncGenerator[Sequence[AsyncClient]]:
    """With --redis, one client for each key: it is not known whose delivery comes."""
    async with open_coordinator(context) as shared, AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(AsyncClient(key.reveal(), coordinator=shared))
            for key in (() if shared is None else keys)
        ]


@asynccontextmanager
async def _serve(listener: Listener, host: str, port: int) -> AsyncGenerator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listener.handle)
    # Malformed HTTP does not reach a handler; aiohttp would log all of it.
    logging.getLogger("aiohttp.server").addFilter(_drop_malformed)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise runtime.address_error(f"{host}, port {port}", error) from None
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _check_no_loop(url: str, forward_to: str | None) -> None:
    if forward_to is not None and URL(forward_to).port == URL(url).port:
        message = f"--forward-to must be the URL of your app; {forward_to} is this command"
        raise CommandError(message, "Use the URL of your app, or another --port.")


def _drop_malformed(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    is_garbage = isinstance(error, HttpProcessingError)
    if is_garbage:
        _note_rejection(Verdict(HTTPStatus.BAD_REQUEST, None, "not HTTP"))
    return not is_garbage


def _note_rejection(verdict: Verdict) -> None:
    note(f"{_now():%H:%M:%S}  rejected  {verdict.status} {verdict.reason}")


def _announce(context: CommandContext, url: str, forward_to: str | None) -> None:
    if not context.shows_table:
        rendering.write_json({"url": url, "forward_to": forward_to})
        return
    note(f"Listening on {url} until Ctrl-C.")
    if forward_to is not None:
        note(f"Forwarding deliveries to {forward_to}")


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


def _show_line(event: WebhookEvent, answer: SendResult | None) -> None:
    swap = event.swap
    cells = [
        Text(f"{_now():%H:%M:%S}", style="dim"),
        Text(printable(event.event)),
        Text(printable(swap.id)),
        rendering.status_text(swap),
    ]
    if answer is not None:
        cells.append(
            Text(printable(_in_words(answer)), style="green" if answer.succeeded else "red")
        )
    result = swap.error_message if swap.has_failed else without_query(swap.result_url)
    rendering.show_line(*cells, below=result)


def _in_words(result: SendResult) -> str:
    outcome = f"{result.status} in {result.seconds * 1000:,.0f} ms"
    said = f"app: {outcome if result.status else result.error}"
    return said if result.succeeded else f"{said}; responded with 502"


def _now() -> datetime:
    return datetime.now().astimezone()
