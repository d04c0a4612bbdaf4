"""A service under test, spoken to in raw HTTP: our own client would hide differences."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from email.message import Message
from typing import Any, Self
from urllib.parse import urlsplit

import attrs
import pytest

from aifaceswap.emulator import Emulator

METADATA = {"row": 7, "tags": ["a", None]}
_MOST_LOOKS, _BETWEEN_LOOKS = 150, 2.0
JSON = {"Content-Type": "application/json"}


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.value["error"]["code"])


@attrs.frozen
class Creation:
    """A creation and how it was answered.

    Attributes:
        fields: The body.
        key: The Idempotency-Key.
        answer: The answer.
        before: The balance before.
        after: The balance after.
    """

    fields: dict[str, Any]
    key: str
    answer: Answer
    before: float
    after: float


@attrs.define
class Service:
    """The emulator, or the real service.

    Attributes:
        url: With `/api/v1`.
        api_key: A live key.
        source_url: A picture of a face that the service can fetch.
        target_url: A picture to put it into.
        pause: Lets so many seconds pass.
        gap: Seconds to let pass before each request, so that no limit is met.
        may_spend: Credits that may be spent.
        emulator: Where it is one.
    """

    url: str
    api_key: str = attrs.field(repr=False)
    source_url: str
    target_url: str
    pause: Callable[[float], None]
    gap: float = 0.0
    may_spend: float = 1e9
    emulator: Emulator | None = None
    spent: float = attrs.field(default=0.0, init=False)
    _paid: set[str] = attrs.field(factory=set[str], init=False)
    _seen: list[Any] = attrs.field(factory=list[Any], init=False)
    _creation: Creation | None = attrs.field(default=None, init=False)

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        api_key: str | None = None,
    ) -> Answer:
        """One request with the key, unless `headers` say otherwise."""
        self.pause(self.gap)
        sent = {"Authorization": f"Bearer {api_key or self.api_key}", **(headers or {})}
        url = urlsplit(self.url)
        https = url.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = kind(url.netloc, timeout=30)
        try:
            connection.request(method, url.path + path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, *, api_key: str | None = None) -> Answer:
        """A GET with the key."""
        return self.send("GET", path, api_key=api_key)

    def fields(self, **changes: Any) -> dict[str, Any]:
        """The fields of a creation; those that are None are left out."""
        fields = {"type": "image", "source_url": self.source_url, "target_url": self.target_url}
        return {name: value for name, value in (fields | changes).items() if value is not None}

    def create(
        self,
        fields: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] = JSON,
        api_key: str | None = None,
    ) -> Answer:
        """POST /swaps: the only thing here that may cost anything."""
        if not self.may_spend or self.spent > self.may_spend:
            pytest.skip("this may cost credits; see docs/conformance.md for how to allow it")
        answer = self.send(
            "POST",
            "/swaps",
            headers={"Idempotency-Key": key or str(uuid.uuid4()), **headers},
            body=json.dumps(fields).encode(),
            api_key=api_key,
        )
        self._count(answer)
        return answer

    def _count(self, answer: Answer) -> None:
        if 200 <= answer.status <= 299 and answer.value["id"] not in self._paid:
            self._paid.add(answer.value["id"])
            self.spent += answer.value["credit_cost"]

    def creation(self) -> Creation:
        """A creation with metadata: the same one each time, so that it is paid once."""
        if self._creation is None:
            fields, key, before = self.fields(metadata=METADATA), str(uuid.uuid4()), self.balance()
            answer = self.create(fields, key=key)
            self._creation = Creation(fields, key, answer, before, self.balance())
        return self._creation

    def finish(self) -> list[Any]:
        """What one sees of the swap, from its creation until it has ended."""
        if not self._seen:
            self._seen.append(self.creation().answer.value)
        for _ in range(_MOST_LOOKS):
            if self._seen[-1]["status"] in {"done", "failed"}:
                return self._seen
            self.pause(_BETWEEN_LOOKS)
            answer = self.get(f"/swaps/{self._seen[0]['id']}")
            assert answer.status == 200, answer.body
            self._seen.append(answer.value)
        raise AssertionError(f"the swap has not ended: {self._seen[-1]}")

    def balance(self) -> float:
        """The credits that are left."""
        return float(self.get("/me").value["credits"]["total"])


class Receiver:
    """A web server that takes webhooks, and keeps them as they came."""

    def __init__(self) -> None:
        self.received: list[tuple[Message, bytes]] = []
        received = self.received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.headers, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def read_items(answer: Answer) -> list[Any]:
    """The swaps of a page, in whichever of the three fields they are."""
    (items,) = [answer.value[name] for name in ("data", "swaps", "items") if name in answer.value]
    assert isinstance(items, list)
    return items
