"""The API as a function from a request and the time to a response. No IO."""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING, NoReturn

import attrs

from aifaceswap.emulator._actions import CODES, ChangePrices, RevokeKey, Status
from aifaceswap.emulator._service import description, ids
from aifaceswap.emulator._service.errors import (
    Problem,
    Rejected,
    invalid,
    method_not_allowed,
    not_found,
)
from aifaceswap.emulator._service.messages import ServerRequest, ServerResponse
from aifaceswap.emulator._service.meter import Meter
from aifaceswap.emulator._service.request_log import RequestLog
from aifaceswap.emulator._service.results import PREFIX as LINKS
from aifaceswap.emulator._service.scenarios import life_of
from aifaceswap.emulator._service.schema import read_json, read_limit, read_query, read_swap
from aifaceswap.emulator._times import iso

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeAlias

    from aifaceswap.emulator._service.delivery_queue import DeliveryQueue
    from aifaceswap.emulator._service.fault_injector import FaultInjector
    from aifaceswap.emulator._service.results import ResultStore
    from aifaceswap.emulator._service.state import KeyAccount, ServiceState, StoredSwap
    from aifaceswap.emulator.faults import RequestAction

    Reply: TypeAlias = tuple[int, dict[str, object]]
    Handler: TypeAlias = Callable[[KeyAccount, ServerRequest, float], Reply]

PREFIX: Final = "/api/v1"

_LONGEST_KEY = 255
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_JSON = ("Content-Type", "application/json")
_NOT_JSON = Problem(415, "unsupported_media_type", "Content-Type must be application/json.")
_TOO_MANY = 429
_ENCODED = Problem(415, "unsupported_media_type", "Content-Encoding is not supported.")


@attrs.define(eq=False)
class Api:
    """Handles requests; keeps the latest for inspection."""

    state: ServiceState
    results: ResultStore
    queue: DeliveryQueue
    faults: FaultInjector
    lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    log: RequestLog = attrs.field(factory=RequestLog, init=False)
    served: int = attrs.field(default=0, init=False)
    _fixed: dict[str, dict[str, Handler]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._fixed = {
            "/swaps": {"GET": self._list, "POST": self._create},
            "/me": {"GET": self._me},
        }

    def respond(self, request: ServerRequest, now: float) -> ServerResponse:
        """Handle one request: the only entry point."""
        with self.lock:
            request_id = ids.make_id(self.state.seed, "req", self.served)
            self.served += 1
            response = self._dispatch(request, now, request_id)
            if request.body and not self._is_known(request):
                request = attrs.evolve(request, body=b"")
            self.log.append((now, request, response.status, response.code, request_id))
        return response

    def _is_known(self, request: ServerRequest) -> bool:
        """Return whether a request names a valid key: bodies of strangers are not kept."""
        return self.state.find_account(request.headers.get("Authorization")) is not None

    def find_fault(self, method: str, path: str) -> RequestAction | None:
        """The fault that applies to this request, if any."""
        with self.lock:
            return self.faults.strike_request(method, path.removeprefix(PREFIX))

    def _dispatch(self, request: ServerRequest, now: float, request_id: str) -> ServerResponse:
        account, fault = None, request.fault
        if not getattr(fault, "commit", True) and not isinstance(fault, Status):
            return ServerResponse(0, (("x-request-id", request_id),), b"")
        try:
            _check_rejection(request)
            if isinstance(fault, Status) and not fault.commit:
                account = self.state.find_account(request.headers.get("Authorization"))
                _reject(fault)
            if request.path.startswith(LINKS):
                return self.results.respond(request, now)
            if request.path == description.PATH:
                return description.respond(request, PREFIX)
            account = self._authenticate(request)
            account.meter.admit(now)
            if isinstance(fault, ChangePrices):
                self.state.prices = {**self.state.prices, **_prices_of(fault)}
            status, value = self._route(request)(account, request, now)
            if isinstance(fault, Status):
                _reject(fault)
            headers: tuple[tuple[str, str], ...] = ()
            code = None
        except Rejected as rejected:
            status, headers = rejected.problem.status, rejected.problem.headers
            code = rejected.problem.code
            value = describe(rejected.problem, request_id)
        common = (_JSON, ("x-request-id", request_id), *self._limit_headers(account, now))
        return ServerResponse(status, common + headers, _encode(value).encode(), code)

    def _authenticate(self, request: ServerRequest) -> KeyAccount:
        if not request.path.startswith(PREFIX + "/"):
            raise not_found()
        account = self.state.authenticate(request.headers.get("Authorization"))
        if isinstance(request.fault, RevokeKey):
            account.live = False
            return self.state.authenticate(request.headers.get("Authorization"))
        return account

    def _limit_headers(self, account: KeyAccount | None, now: float) -> tuple[tuple[str, str], ...]:
        meter = account.meter if account else Meter(self.state.limits)
        return (
            ("x-ratelimit-limit", str(meter.limit)),
            ("x-ratelimit-remaining", str(meter.remaining())),
            ("x-ratelimit-reset", str(math.ceil(meter.reset(now)))),
        )

    def _route(self, request: ServerRequest) -> Handler:
        resource = request.path[len(PREFIX) :]
        handlers = self._fixed.get(resource)
        if handlers is None:
            head, _, swap_id = resource.rpartition("/")
            if head != "/swaps" or not swap_id:
                raise not_found()
            handlers = {"GET": self._get}
        if request.method not in handlers:
            raise method_not_allowed(request.method, list(handlers))
        return handlers[request.method]

    def _me(self, account: KeyAccount, _: ServerRequest, now: float) -> Reply:
        self.state.settle(now)
        meter, total = account.meter, tidy(self.state.credits)
        return 200, {
            "user_id": ids.user_id(self.state.seed),
            "email_verified": True,
            "subscription_tier": "free",
            "credits": {"permanent": total, "monthly": 0, "subscription": 0, "total": total},
            "rate_limit": {
                "limit": meter.limit,
                "window_seconds": tidy(self.state.limits.window),
                "remaining": meter.remaining(),
            },
        }

    def _list(self, account: KeyAccount, request: ServerRequest, now: float) -> Reply:
        query = read_query(request.query, "limit", "cursor")
        origin = self.results.find_origin(request)
        page, following = self.state.page(account, read_limit(query), query.get("cursor"), now)
        return 200, {
            "data": [self.view(swap, now, origin, lag=self.state.lag.list) for swap in page],
            "next_cursor": following,
        }

    def _get(self, account: KeyAccount, request: ServerRequest, now: float) -> Reply:
        swap = self.state.get(account, request.path.rpartition("/")[2], now)
        origin = self.results.find_origin(request)
        return 200, self.view(swap, now, origin, lag=self.state.lag.get)

    def _create(self, account: KeyAccount, request: ServerRequest, now: float) -> Reply:
        _check_json(request)
        params, key = read_swap(read_json(request.body)), _read_key(request)
        life = life_of(request.fault)
        swap, new = self.state.create(account, params, key, now, life)
        if not new:
            return 200, self.view(swap, now, self.results.find_origin(request))
        if params.webhook_url is not None:
            swap.origin = self.results.find_origin(request)
            self.queue.add(swap)
        return 201, self.view(swap, now, fresh=True)

    def view(
        self,
        swap: StoredSwap,
        now: float,
        origin: str | None = None,
        *,
        fresh: bool = False,
        lag: float = 0.0,
    ) -> dict[str, object]:
        """Return the swap object as it was `lag` seconds before `now`; a new one is queued."""
        seen = max(swap.created, now - lag)
        status = "queued" if fresh else swap.status(seen)
        value: dict[str, object] = {
            "id": swap.id,
            "type": swap.params.type,
            "status": status,
            "credit_cost": tidy(swap.cost),
            "progress": 0 if fresh else swap.progress(seen),
            "created_at": iso(swap.created),
            "result_url": self.results.link(swap, now, origin) if status == "done" else None,
            "error": swap.life.error if status == "failed" else None,
            "metadata": swap.params.metadata,
            "webhook_url": swap.params.webhook_url,
        }
        if swap.life.extra:
            value |= swap.life.extra
        return value


def _check_rejection(request: ServerRequest) -> None:
    if request.rejection is not None:
        raise Rejected(request.rejection)


def _reject(action: Status) -> NoReturn:
    code = action.code or CODES.get(action.status, "error")
    wait = 1 if action.retry_after is None and action.status == _TOO_MANY else action.retry_after
    raise Rejected(Problem(action.status, code, action.message, retry_header(wait)))


def retry_header(wait: float | str | None) -> tuple[tuple[str, str], ...]:
    """Return the `Retry-After` header of a fault, if it has one."""
    if wait is None:
        return ()
    return (("Retry-After", wait if isinstance(wait, str) else f"{wait:g}"),)


def _prices_of(action: ChangePrices) -> dict[str, float]:
    prices = {"image": action.image, "gif": action.gif}
    return {kind: price for kind, price in prices.items() if price is not None}


def describe(problem: Problem, request_id: str) -> dict[str, object]:
    """The error envelope."""
    return {"error": {"code": problem.code, "message": problem.message, "request_id": request_id}}


def encode(value: object) -> bytes:
    """`value` as compact JSON."""
    return _encode(value).encode()


def tidy(value: float) -> float:
    """An integral number as an int, so that JSON shows 1000 and not 1000.0."""
    return int(value) if value == int(value) else value


def _check_json(request: ServerRequest) -> None:
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() != "application/json":
        raise Rejected(_NOT_JSON)
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Rejected(_ENCODED)
    if request.flaw is not None:
        raise Rejected(request.flaw)


def _read_key(request: ServerRequest) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= _LONGEST_KEY:
        raise invalid(f"Idempotency-Key: must have 1 to {_LONGEST_KEY} characters.")
    return key
