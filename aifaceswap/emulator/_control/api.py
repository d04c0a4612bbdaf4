"""The emulator's own API under `/_emulator/`: inspecting and controlling it over HTTP."""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from urllib.parse import unquote

import attrs

from aifaceswap.emulator import _validators as validators
from aifaceswap.emulator._control import page
from aifaceswap.emulator._control.access import reject_strangers
from aifaceswap.emulator._control.views import (
    show_account,
    show_delivery,
    show_fault,
    show_request,
    show_settings,
    show_swap,
)
from aifaceswap.emulator._service import ids
from aifaceswap.emulator._service.api import describe, encode
from aifaceswap.emulator._service.errors import (
    Problem,
    Rejected,
    invalid,
    method_not_allowed,
    not_found,
)
from aifaceswap.emulator._service.messages import ServerResponse
from aifaceswap.emulator._service.records import describe_request
from aifaceswap.emulator._service.results import serve
from aifaceswap.emulator._service.schema import read_query
from aifaceswap.emulator._times import iso
from aifaceswap.emulator.clock import RealClock
from aifaceswap.emulator.faults import Fault
from aifaceswap.emulator.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Reversible

    from aifaceswap.emulator._emulator import Emulator
    from aifaceswap.emulator._server.server import Frontend
    from aifaceswap.emulator._service.messages import ServerRequest
    from aifaceswap.emulator.settings import Settings

T = TypeVar("T")

PREFIX: Final = "/_emulator/"

_BODY = "The body"
# Without a plus: an SVG could run scripts on the page of the emulator.
_IMAGE = re.compile(r"image/[a-z0-9.-]{1,40}")
_SHOWN, _MOST_SHOWN = 100, 10_000
_HEADERS = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)

#: The status and what becomes JSON; or a complete response.
Reply: TypeAlias = "tuple[int, object] | ServerResponse"
Handler: TypeAlias = Callable[["ServerRequest", str], "Reply | Awaitable[Reply]"]


@attrs.frozen
class _Advance:
    seconds: float


@attrs.frozen
class _Credits:
    add: float


@attrs.frozen
class _NewKey:
    api_key: str = attrs.field(validator=validators.bearer_token)
    limits: Limits | None = None


@attrs.define(eq=False)
class Control:
    """Serves requests about the emulator itself: no key, no limits, no record, no faults."""

    emulator: Emulator
    frontend: Frontend
    _answered: int = attrs.field(default=0, init=False)
    _routes: dict[str, dict[str, Handler]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._routes = {
            "": {"GET": self._overview},
            "account": {"GET": self._account},
            "advance": {"POST": self._advance},
            "clock": {"GET": self._clock},
            "credits": {"POST": self._top_up},
            "deliveries": {"GET": self._deliveries},
            "deliveries/*/redeliver": {"POST": self._redeliver},
            "faults": {"GET": self._faults, "POST": self._add_fault, "DELETE": self._clear_faults},
            "faults/*": {"DELETE": self._remove_fault},
            "files/*": {
                "GET": self._file,
                "HEAD": self._file,
                "PUT": self._add_file,
                "DELETE": self._remove_file,
            },
            "keys": {"POST": self._add_key},
            "keys/*": {"DELETE": self._revoke_key},
            "requests": {"GET": self._requests},
            "reset": {"POST": self._reset},
            "settings": {"GET": self._settings, "POST": self._configure},
            "settle": {"POST": self._settle},
            "swaps": {"GET": self._swaps},
            "swaps/*/image": {"GET": self._image},
        }

    def reject(self, head: ServerRequest) -> ServerResponse | None:
        """Return the error of a request that is wrong whatever its body is, which is not read."""
        try:
            if head.path == page.PATH:
                page.check(head)
            else:
                reject_strangers(head.headers, self.emulator.host)
                self._route(head)
        except Rejected as rejected:
            return self._describe(rejected)
        return None

    async def respond(self, request: ServerRequest) -> ServerResponse:
        """Respond to a request that `reject()` has let pass."""
        if request.path == page.PATH:
            return page.respond()
        handler, name = self._route(request)
        try:
            reply = await self._call(handler, request, name)
        except Rejected as rejected:
            return self._describe(rejected)
        return reply if isinstance(reply, ServerResponse) else self._make_response(*reply)

    async def _call(self, handler: Handler, request: ServerRequest, name: str) -> Reply:
        if request.flaw is not None:
            raise Rejected(request.flaw)
        try:
            reply = handler(request, name)
            return await reply if isinstance(reply, Awaitable) else reply
        except KeyError:
            raise not_found(f"No {name[:100]!r} here.") from None
        except (ValueError, TypeError) as error:
            raise invalid(str(error)) from None

    def _describe(self, rejected: Rejected) -> ServerResponse:
        problem = rejected.problem
        return self._make_response(problem.status, problem, problem.headers)

    def _make_response(
        self, status: int, value: object, headers: tuple[tuple[str, str], ...] = ()
    ) -> ServerResponse:
        self._answered += 1
        request_id = f"req_{ids.digest(self.emulator.seed, 'control', self._answered).hex()}"
        if isinstance(value, Problem):
            value = describe(value, request_id)
        headers = (*_HEADERS, ("x-request-id", request_id), *headers)
        return ServerResponse(status, headers, encode(value))

    def _route(self, request: ServerRequest) -> tuple[Handler, str]:
        """The handler, and what the star stands for."""
        parts = (request.path + "/").removeprefix(PREFIX).strip("/").split("/")
        if parts[0] == "files":
            parts = parts[:2]  # then the file's own name
        name = parts[1] if len(parts) > 1 else ""
        if name:
            parts[1] = "*"
        handlers = self._routes.get("/".join(parts))
        if handlers is None:
            raise not_found()
        if request.method not in handlers:
            raise method_not_allowed(request.method, list(handlers))
        return handlers[request.method], name

    # --- inspecting ------------------------------------------------------------------------

    def _overview(self, _: ServerRequest, __: str) -> Reply:
        emulator = self.emulator
        return 200, {
            "base_url": emulator.base_url,
            "api_key": emulator.api_key,
            "seed": emulator.seed,
            **show_settings(emulator.settings),
            "clock": self._describe_clock(),
            "routes": {PREFIX + path: list(methods) for path, methods in self._routes.items()},
        }

    def _clock(self, _: ServerRequest, __: str) -> Reply:
        return 200, self._describe_clock()

    def _describe_clock(self) -> dict[str, object]:
        clock = self.emulator.clock
        now = clock.now()
        speed = clock.speed if isinstance(clock, RealClock) else 0
        return {"now": now, "iso": iso(now), "speed": speed}

    def _account(self, _: ServerRequest, __: str) -> Reply:
        return 200, self._describe_account()

    def _describe_account(self) -> dict[str, object]:
        balance, now = self.emulator.balance, self.emulator.clock.now()
        api = self.frontend.api
        with api.lock:
            keys = [show_account(account, now) for account in api.state.accounts.values()]
        return {"credits": balance, "keys": keys}

    def _requests(self, request: ServerRequest, _: str) -> Reply:
        api = self.frontend.api
        with api.lock:
            shown, total = _latest(api.log, request), len(api.log)
            keys = set(api.state.accounts)
        data = [show_request(describe_request(entry), keys) for entry in shown]
        return 200, {"total": total, "data": data}

    def _swaps(self, request: ServerRequest, _: str) -> Reply:
        api, now = self.frontend.api, self.emulator.clock.now()
        origin = api.results.find_origin(request)
        with api.lock:
            shown, total = _latest(api.state.swaps, request), len(api.state.swaps)
        data = [show_swap(api, swap, now, origin) for swap in shown]
        return 200, {"total": total, "data": data}

    def _image(self, request: ServerRequest, name: str) -> Reply:
        """What `result_url` serves, without faults and without a record."""
        swap = self.frontend.api.state.find(name)
        if swap is None or swap.status(self.emulator.clock.now()) != "done":
            raise KeyError(name)
        return serve(swap, request.headers)

    def _deliveries(self, request: ServerRequest, _: str) -> Reply:
        api = self.frontend.api
        with api.lock:
            shown, total = _latest(api.queue.deliveries, request), len(api.queue.deliveries)
            data = [show_delivery(delivery.record()) for delivery in shown]
        return 200, {"total": total, "data": data}

    def _faults(self, _: ServerRequest, __: str) -> Reply:
        return 200, {"data": list(map(show_fault, self.emulator.faults))}

    def _file(self, _: ServerRequest, name: str) -> Reply:
        api = self.frontend.api
        with api.lock:
            media_type, content = api.state.files.find(name)
        return ServerResponse(200, (("Content-Type", media_type), *_HEADERS[1:]), content)

    # --- controlling -----------------------------------------------------------------------

    def _advance(self, request: ServerRequest, _: str) -> Reply:
        self.emulator.advance(_read(request, _Advance).seconds)
        return 200, self._describe_clock()

    async def _settle(self, _: ServerRequest, __: str) -> Reply:
        await self.emulator.settle()
        return 200, self._describe_clock()

    def _reset(self, request: ServerRequest, _: str) -> Reply:
        self.emulator.reset(**_read_settings(request))
        return self._overview(request, "")

    def _settings(self, _: ServerRequest, __: str) -> Reply:
        return 200, show_settings(self.emulator.settings)

    def _configure(self, request: ServerRequest, _: str) -> Reply:
        self.emulator.configure(**_read_settings(request))
        return self._settings(request, "")

    def _add_fault(self, request: ServerRequest, _: str) -> Reply:
        number = self.emulator.add_fault(_read(request, Fault))
        added = next(fault for fault in self.emulator.faults if fault.number == number)
        return 201, show_fault(added)

    def _remove_fault(self, request: ServerRequest, name: str) -> Reply:
        self.emulator.remove_fault(int(name) if name.isdecimal() else -1)
        return self._faults(request, "")

    def _clear_faults(self, request: ServerRequest, _: str) -> Reply:
        self.emulator.clear_faults()
        return self._faults(request, "")

    def _add_file(self, request: ServerRequest, name: str) -> Reply:
        media_type = request.headers.get("Content-Type", "")
        if not _IMAGE.fullmatch(media_type):
            raise invalid("Content-Type: must be that of an image.")
        api = self.frontend.api
        with api.lock:
            api.state.files.add(name, media_type, request.body)
        return 201, {"size": len(request.body)}

    def _remove_file(self, _: ServerRequest, name: str) -> Reply:
        api = self.frontend.api
        with api.lock:
            api.state.files.remove(name)
        return 200, {}

    def _redeliver(self, _: ServerRequest, name: str) -> Reply:
        self.emulator.redeliver(name)
        (record,) = (record for record in self.emulator.deliveries if record.id == name)
        return 202, show_delivery(record)

    def _top_up(self, request: ServerRequest, _: str) -> Reply:
        self.emulator.top_up(_read(request, _Credits).add)
        return self._account(request, "")

    def _add_key(self, request: ServerRequest, _: str) -> Reply:
        given = _read(request, _NewKey)
        self.emulator.add_key(given.api_key, given.limits)
        return 201, self._describe_account()

    def _revoke_key(self, request: ServerRequest, name: str) -> Reply:
        self.emulator.revoke_key(unquote(name))
        return self._account(request, "")


def _latest(items: Reversible[T], request: ServerRequest) -> list[T]:
    """As many of the latest as the query asks for, oldest first."""
    text = read_query(request.query, "limit").get("limit", str(_SHOWN))
    if not text.isdecimal() or not 1 <= int(text[:9]) <= _MOST_SHOWN:
        raise invalid(f"limit: must be an integer from 1 to {_MOST_SHOWN}.")
    # From the end: there may be 100,000 of them.
    return list(itertools.islice(reversed(items), int(text)))[::-1]


def _read(request: ServerRequest, into: type[T]) -> T:
    from aifaceswap.emulator._documents import read_json  # noqa: PLC0415 - loads cattrs

    return read_json(request.body, into, _BODY)


def _read_settings(request: ServerRequest) -> Settings:
    from aifaceswap.emulator._script import read_settings  # noqa: PLC0415 - loads cattrs

    return read_settings(request.body, _BODY)
