"""`webhook listen`: deliveries are received, checked, shown, and handed on to a local app.

Nothing is remembered of them. One that comes twice is handed on twice: it came again because
the first time failed, or to see what the app does about it, and that is for the app to decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from aiohttp import web
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict
from rich.text import Text
from yarl import URL

from aifaceswap import webhooks
from aifaceswap._api import codec
from aifaceswap._http.exceptions import connection_error
from aifaceswap.cli import jobs, rendering
from aifaceswap.cli.context import Session
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.rendering import note, printable
from aifaceswap.cli.webhook.deliveries import find_keys
from aifaceswap.models import WebhookEvent, without_query

#: Seconds that the app behind has for its answer.
PATIENCE = 30.0

# Those of one connection; all others are handed on.
_HOP_BY_HOP = (
    *("Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authenticate"),
    *("Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding", "Upgrade"),
)
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_SHUTDOWN = 0.5


@attrs.frozen
class Answer:
    """What became of a delivery that was handed on.

    Attributes:
        seconds: How long it took.
        status: The app's status; None: there was no answer.
        error: Why there was none.
    """

    seconds: float
    status: int | None = None
    error: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the app has taken the delivery."""
        return self.status is not None and HTTPStatus(200) <= self.status < HTTPStatus(300)

    @property
    def words(self) -> str:
        """The same for people."""
        said = f"{self.status} in {self.seconds * 1000:,.0f} ms" if self.status else self.error
        return f"app: {said}" if self.is_good else f"app: {said}; answered 502"


@attrs.frozen
class _Judgement:
    """What `WebhookApp` says of a request.

    Attributes:
        status: What to answer with.
        headers: The same.
        body: What was received, as it came.
        event: What is to be believed; None: nothing.
        is_whole: Whether the sender stayed until all of the body had come.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    event: WebhookEvent | None
    is_whole: bool


@attrs.define(eq=False)
class Listener:
    """Answers requests.

    Attributes:
        session: The command.
        keys: Those that may sign.
        forward_to: Where deliveries are handed on to; None: nowhere.
        client: What hands them on.
        broken: Gets the error that ends the command: nothing more can be shown.
    """

    session: Session
    keys: Sequence[str]
    forward_to: str | None
    client: aiohttp.ClientSession
    broken: asyncio.Future[None] = attrs.field(factory=asyncio.Future[None])

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request.

        Args:
            request: The request.

        Returns:
            204 for what is to be believed and was taken by the app, if there is one; 502 where
            the app did not take it, so that it comes again.
        """
        judgement = await _judge(request, self.keys)
        if judgement.event is None:
            _note_refusal(self._reason(judgement, request))
            refusal = web.Response(status=judgement.status, headers=judgement.headers)
            refusal.force_close()
            return refusal
        answer = await self._hand_on(judgement.body, request.headers)
        try:
            self._show(judgement.event, answer)
        except OSError as error:
            if not self.broken.done():
                self.broken.set_exception(error)
            return web.Response(status=500)
        return web.Response(status=204 if answer is None or answer.is_good else 502)

    async def _hand_on(self, body: bytes, headers: Mapping[str, str]) -> Answer | None:
        if self.forward_to is None:
            return None
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with self.client.post(
                URL(self.forward_to, encoded=True),
                data=body,
                headers=_end_to_end(headers),
                skip_auto_headers=_NOT_ADDED,
                allow_redirects=False,
            ) as response:
                return Answer(clock() - began, status=response.status)
        except (aiohttp.ClientError, OSError) as error:
            failure = connection_error(error, PATIENCE)
        return Answer(clock() - began, error=failure.message)

    def _reason(self, judgement: _Judgement, request: web.Request) -> str:
        """Why a request is refused, without a word of what is in it."""
        if not judgement.is_whole:
            return "the sender hung up"
        status = HTTPStatus(judgement.status)
        if status != HTTPStatus.BAD_REQUEST:
            return f"{status} {status.phrase.lower()}"
        signatures = request.headers.getall(webhooks.SIGNATURE_HEADER, [])
        reason = ""
        try:
            webhooks.parse(judgement.body, ",".join(signatures) or None, self.keys)
        except webhooks.WebhookVerificationError as error:
            reason = error.reason
        return f"{status} {reason}"

    def _show(self, event: WebhookEvent, answer: Answer | None) -> None:
        if self.session.is_for_people:
            _show_to_people(event, answer)
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
    session: Session, *, host: str, port: int, forward_to: str | None, key_file: Path | None
) -> None:
    """Receive deliveries until Ctrl-C or SIGTERM.

    Args:
        session: The command.
        host: The address to listen on.
        port: The port; 0: a free one.
        forward_to: Where deliveries are handed on to; None: nowhere.
        key_file: The keys that may sign; None: the one in the environment.

    Raises:
        ConfigurationError: There is no key.
        CommandError: The address cannot be used, or the file holds no keys.
        OSError: What was received cannot be written.
    """
    keys = find_keys(session, key_file)

    async def serve() -> None:
        async with aiohttp.ClientSession(
            # A new connection each time: an app that is being worked on is often restarted.
            connector=aiohttp.TCPConnector(force_close=True),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as client:
            listener = Listener(session, keys, forward_to, client)
            async with _serve(listener, host, port) as url:
                _check_circle(url, forward_to)
                _say_ready(session, url, forward_to)
                await listener.broken

    jobs.start_server(serve)


@asynccontextmanager
async def _serve(listener: Listener, host: str, port: int) -> AsyncGenerator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listener.answer)
    # What is no HTTP reaches no handler; aiohttp would show all of it.
    logging.getLogger("aiohttp.server").addFilter(_take_garbage)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise jobs.refuse_address(f"--host, --port: {host}:{port}", error) from None
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _check_circle(url: str, forward_to: str | None) -> None:
    if forward_to is not None and URL(forward_to).port == URL(url).port:
        message = f"--forward-to: {forward_to} leads back to this command"
        raise CommandError(message, "give the URL of your app, or another --port")


def _take_garbage(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    is_garbage = isinstance(error, HttpProcessingError)
    if is_garbage:
        _note_refusal("400 not HTTP")
    return not is_garbage


def _note_refusal(reason: str) -> None:
    note(f"{_now():%H:%M:%S}  refused  {reason}")


def _say_ready(session: Session, url: str, forward_to: str | None) -> None:
    if not session.is_for_people:
        rendering.write_json({"url": url, "forward_to": forward_to})
        return
    note(f"Listening on {url} until Ctrl-C.")
    if forward_to is not None:
        note(f"Deliveries are handed on to {forward_to}")


async def _judge(request: web.Request, keys: Sequence[str]) -> _Judgement:
    """Have a `WebhookApp` of its own receive a request: it has never seen a delivery before."""
    body = bytearray()
    events: list[WebhookEvent] = []
    answer: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        try:
            chunk = await request.content.readany()
        except (ConnectionError, web.RequestPayloadError):  # cut, or broken on its way
            return {"type": "http.disconnect"}
        body.extend(chunk)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def send(message: Mapping[str, Any]) -> None:
        answer.update(message)

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
    }
    await webhooks.WebhookApp(events.append, keys)(scope, receive, send)
    return _Judgement(
        status=answer.get("status", 400),
        headers={name.decode(): value.decode() for name, value in answer.get("headers", ())},
        body=bytes(body),
        event=events[0] if events else None,
        is_whole=bool(answer),
    )


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


def _show_to_people(event: WebhookEvent, answer: Answer | None) -> None:
    swap = event.swap
    cells = [
        Text(f"{_now():%H:%M:%S}", style="dim"),
        Text(printable(event.event)),
        Text(printable(swap.id)),
        rendering.status_text(swap),
    ]
    if answer is not None:
        cells.append(Text(printable(answer.words), style="green" if answer.is_good else "red"))
    result = swap.error_message if swap.has_failed else without_query(swap.result_url)
    rendering.show_line(*cells, below=result)


def _now() -> datetime:
    return datetime.now().astimezone()
