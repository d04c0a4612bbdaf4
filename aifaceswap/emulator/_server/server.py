"""The thin shell around the API: aiohttp's low-level server on a loopback socket."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import attrs
from aiohttp import web

from aifaceswap.emulator._actions import (
    ChangePrices,
    Fail,
    Latency,
    RevokeKey,
    Status,
    Stuck,
)
from aifaceswap.emulator._control.access import check_host
from aifaceswap.emulator._control.api import PREFIX as CONTROL
from aifaceswap.emulator._control.page import PATH as PAGE
from aifaceswap.emulator._server.broken_responses import BrokenResponse, Silence
from aifaceswap.emulator._service.errors import Problem, Rejected
from aifaceswap.emulator._service.files import LARGEST_FILE
from aifaceswap.emulator._service.files import PREFIX as FILES
from aifaceswap.emulator._service.messages import ServerRequest, ServerResponse
from aifaceswap.emulator._times import http_date

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from aifaceswap.emulator._control.api import Control
    from aifaceswap.emulator._service.api import Api
    from aifaceswap.emulator.clock import Clock
    from aifaceswap.emulator.faults import RequestAction

#: Seconds of the event loop that a client has for sending a body.
BODY_TIMEOUT: Final = 30.0

#: Seconds of the event loop that a connection may be idle, or may take for a request's head.
IDLE_TIMEOUT: Final = 75.0

#: Seconds of the event loop for which the rest of an incomplete body is awaited after a response.
LINGERING_TIME: Final = 2.0

#: The largest body that is read, in bytes: the default of aiohttp.
LARGEST_BODY: Final = 1024 * 1024

#: These change what the API does, or when it responds, not the response.
_NORMAL: Final = (Latency, Status, Stuck, Fail, RevokeKey, ChangePrices)

_SHUTDOWN = 0.2
_TURNS = 3
_TOO_LARGE = Problem(413, "payload_too_large", "The body is too large.")
_TOO_SLOW = Problem(408, "request_timeout", "The body did not arrive in time.")
_CUT = Problem(400, "validation_error", "The body could not be read.")
_NOT_HTTP = Problem(400, "validation_error", "The request is not HTTP/1.1 as it should be.")
_OURS = Problem(500, "internal_error", "The emulator failed: please report it.")


class _Connection(web.RequestHandler):
    """Responds in the API's own form when aiohttp would respond by itself.

    Attributes:
        doomed: Whether it is closed when the next request has come.
    """

    __slots__ = ("_frontend", "_lost", "doomed")

    def __init__(self, manager: _Manager, frontend: Frontend) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            # The API sees the bytes as sent: no silent un-gzipping, no bombs.
            auto_decompress=False,
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=LINGERING_TIME,
        )
        self._frontend = frontend
        self._lost = asyncio.Event()
        self.doomed = False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of a request that is held."""
        super().connection_lost(exc)
        self._lost.set()

    async def hold(self, seconds: float | None = None) -> None:
        """Wait so long, or until the connection has gone."""
        self._frontend.held.add(self)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._lost.wait()
        finally:
            self._frontend.held.discard(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response where the request cannot be parsed, or the emulator is broken."""
        ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if ours:
            self.log_exception("The emulator failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("a response was in progress")
        rejection = _OURS if ours else _NOT_HTTP
        return self._frontend.reject(ServerRequest("", "", "", {}, rejection=rejection))


class _Manager(web.Server):
    def __init__(self, frontend: Frontend) -> None:
        super().__init__(frontend.handle)
        self._frontend = frontend

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._frontend)


@attrs.define(eq=False)
class Frontend:
    """Turns aiohttp's requests into ours, and our responses into aiohttp's."""

    api: Api
    clock: Clock
    host: str
    control: Control | None = attrs.field(init=False, default=None)
    held: set[_Connection] = attrs.field(factory=set[_Connection], init=False)

    def respond(self, request: ServerRequest, api: Api | None = None) -> ServerResponse:
        """Handle one request."""
        now = self.clock.now()
        response = (api or self.api).respond(request, now)
        return ServerResponse(
            response.status, (*response.headers, ("Date", http_date(now))), response.body
        )

    def reject(self, request: ServerRequest) -> web.Response:
        """Reject a request whose body is not read, and close its connection."""
        return _close(to_response(self.respond(request)))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """What aiohttp calls for each request."""
        # A reset replaces it: a request in progress has no effect on the new one.
        api = self.api
        path, query = request.rel_url.raw_path, request.rel_url.raw_query_string
        if cast("_Connection", request.protocol).doomed:
            return Silence()
        head = ServerRequest(request.method, path, query, request.headers)
        rejection = self._check_host(request)
        if rejection is not None:
            return self.reject(attrs.evolve(head, rejection=rejection))
        if self.control is not None and (path == PAGE or (path + "/").startswith(CONTROL)):
            return await self._handle_control(self.control, request, head)
        action = api.find_fault(request.method, path) if api.faults.requests else None
        received = await _receive(request, head, action)
        response = self.respond(received, api)
        if action is None:
            return to_response(response)
        return await self._break(request, response, action)

    def _check_host(self, request: web.BaseRequest) -> Problem | None:
        """Return why the request is for another site, if it is; programs may leave `Host` out."""
        host = request.headers.get("Host")
        try:
            # A URL in the request line wins over the header.
            for name in () if host is None else {host, request.host}:
                check_host(name, self.host)
        except Rejected as rejected:
            return rejected.problem
        return None

    async def _handle_control(
        self, control: Control, request: web.BaseRequest, head: ServerRequest
    ) -> web.StreamResponse:
        rejection = control.reject(head)
        if rejection is None:
            return to_response(await control.respond(await _receive(request, head)))
        response = to_response(rejection)
        return _close(response) if request.body_exists else response

    async def _break(
        self, request: web.BaseRequest, response: ServerResponse, action: RequestAction
    ) -> web.StreamResponse:
        if isinstance(action, Latency):
            await cast("_Connection", request.protocol).hold(action.seconds)
        if isinstance(action, _NORMAL):
            return to_response(response)
        return BrokenResponse(action, response)

    def let_go(self) -> None:
        """Cut off the requests that are held; to be called in the loop."""
        for transport in filter(None, [connection.transport for connection in self.held]):
            transport.abort()


def _close(response: web.Response) -> web.Response:
    response.force_close()
    return response


async def _receive(
    request: web.BaseRequest, head: ServerRequest, fault: RequestAction | None = None
) -> ServerRequest:
    if "Expect" in request.headers:
        await _send_continue(request)
    largest = LARGEST_FILE if head.path.startswith(FILES) else LARGEST_BODY
    body, flaw = await _read(request, largest)
    return attrs.evolve(head, body=body, flaw=flaw, fault=fault)


async def _send_continue(request: web.BaseRequest) -> None:
    if request.headers["Expect"].lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read(request: web.BaseRequest, largest: int) -> tuple[bytes, Problem | None]:
    if (request.content_length or 0) > largest:
        return b"", _TOO_LARGE
    try:
        if request.content.is_eof():
            return request.content.read_nowait(), None
        async with asyncio.timeout(BODY_TIMEOUT):
            return await _read_slowly(request.content, largest)
    except TimeoutError:
        return b"", _TOO_SLOW
    except Exception:
        # Whatever the parser found wrong with the body, or the client has gone.
        return b"", _CUT


async def _read_slowly(content: StreamReader, largest: int) -> tuple[bytes, Problem | None]:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > largest:
            return b"", _TOO_LARGE
    return bytes(body), None


def to_response(response: ServerResponse) -> web.Response:
    """The response as aiohttp sends it."""
    return web.Response(status=response.status, headers=response.headers, body=response.body)


@attrs.define(eq=False)
class Server:
    """The listening socket and what is connected to it."""

    frontend: Frontend
    host: str
    port: int
    _manager: _Manager = attrs.field(init=False)
    _runner: web.ServerRunner = attrs.field(init=False)

    async def start(self) -> int:
        """Listen, and return the port."""
        self._manager = _Manager(self.frontend)
        self._runner = web.ServerRunner(self._manager, shutdown_timeout=_SHUTDOWN)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close every connection, those with a request in flight too."""
        self.frontend.let_go()
        # A socket that was accepted just now is a connection only some turns later. Once the
        # server is closed asyncio would not make it one, and forget to close it.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        transports = [connection.transport for connection in self._manager.connections]
        await self._runner.cleanup()
        for transport in transports:
            if transport is not None:
                transport.abort()
        # Their sockets are closed in the loop's next turn.
        await asyncio.sleep(0)
