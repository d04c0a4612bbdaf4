"""A world without IO for the tests: requests go in by a function call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from multidict import CIMultiDict

from aifaceswap.emulator import Idempotency, Lag, Limits, ResultLinks
from aifaceswap.emulator._service.api import Api
from aifaceswap.emulator._service.delivery_queue import DeliveryQueue
from aifaceswap.emulator._service.fault_injector import FaultInjector
from aifaceswap.emulator._service.messages import ServerRequest, ServerResponse
from aifaceswap.emulator._service.results import ResultStore
from aifaceswap.emulator._service.state import ServiceState
from aifaceswap.emulator.settings import PRICES

if TYPE_CHECKING:
    from collections.abc import Mapping

START = 1_767_225_600.0
SWAP: dict[str, Any] = {
    "type": "image",
    "source_url": "https://example.com/face.jpg",
    "target_url": "https://example.com/target.jpg",
}


@attrs.frozen
class Reply:
    status: int
    headers: CIMultiDict[str]
    raw: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        return str(self.value["error"]["code"])


@attrs.define
class World:
    api: Api
    now: float = START

    def send(
        self,
        method: str,
        path: str,
        *,
        json_: object = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str = "key_1",
    ) -> Reply:
        path, _, query = path.partition("?")
        sent = CIMultiDict({"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
        sent.update(headers or {})
        raw = json.dumps(json_).encode() if body is None else body
        response: ServerResponse = self.api.respond(
            ServerRequest(method, path, query, sent, raw), self.now
        )
        return Reply(response.status, CIMultiDict(response.headers), response.body)

    def create(self, key: str | None = None, api_key: str = "key_1", **fields: Any) -> Reply:
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {**SWAP, **fields}
        return self.send("POST", "/api/v1/swaps", json_=body, headers=headers, key=api_key)

    def get(self, path: str, key: str = "key_1", **headers: str) -> Reply:
        return self.send("GET", f"/api/v1{path}", key=key, headers=headers)


def make_world(
    *,
    limits: Limits | None = None,
    duration: float = 3.0,
    spread: float = 0.0,
    balance: float = 1000.0,
    seed: int = 0,
    deliver_to: str | None = None,
    idempotency: Idempotency | None = None,
    lag: Lag | None = None,
) -> World:
    state = ServiceState(
        seed,
        limits or Limits(None, None, None),
        duration,
        spread,
        balance,
        PRICES,
        idempotency or Idempotency(),
        lag or Lag(),
    )
    state.add_account("key_1")
    state.add_account("key_2")
    results = ResultStore(state, 3600.0, ResultLinks(), "http://127.0.0.1:1")
    injector = FaultInjector(seed)
    return World(Api(state, results, DeliveryQueue(seed, deliver_to, injector), injector))
