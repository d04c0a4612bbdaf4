"""Whatever is sent: an answer below 500 with the envelope, or a closed connection; in time.

`AIFACESWAP_FUZZ=20000 pytest tests/unit/emulator/test_fuzz.py` tries so many of each kind.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aifaceswap.emulator import Emulator, Limits, VirtualClock
from aifaceswap.emulator._server import server
from support.emulator_wire import BODY, creation

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 10.0
EXAMPLES = int(os.environ.get("AIFACESWAP_FUZZ", "100"))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """One for all, whose patience with half requests is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "BODY_TIMEOUT", 0.02)
        patch.setattr(server, "IDLE_TIMEOUT", 0.02)
        limits = Limits(None, None, None)
        with Emulator(clock=VirtualClock(), limits=limits, credits=1e9) as emulator:
            yield emulator


def send(emulator: Emulator, sent: bytes) -> bytes:
    """What comes back: the first answer or more, or nothing where the connection is closed."""
    host, port = emulator.origin.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as connection:
        try:
            connection.sendall(sent)
            while split(received, sent) is None and (chunk := connection.recv(1 << 20)):
                received += chunk
        except ConnectionError:
            pass
    return received


def is_head(sent: bytes) -> bool:
    """Whether the first request is a HEAD: blank lines before it do not count."""
    return sent.lstrip(b"\r\n").startswith(b"HEAD ")


def split(received: bytes, sent: bytes) -> tuple[bytes, bytes] | None:
    """Head and body of the first answer, where it is whole."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end or head.startswith(b"HTTP/1.1 100"):
        return None
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0][15:]) if lengths and not is_head(sent) else 0
    return (head, body[:length]) if len(body) >= length else None


def check(emulator: Emulator, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    received = send(emulator, sent).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    emulator.clear_faults()
    assert [record.message for record in caplog.records] == []
    if not received:
        return
    head, body = split(received, sent) or (received, b"")
    status = int(head.split(b" ")[1])
    assert head.startswith(b"HTTP/")
    # 503 is what one of the magic inputs asks for, 500 another.
    assert status < 500 or b"internal-error" in sent or b"disabled" in sent
    if status >= 400 and not is_head(sent):
        error = json.loads(body)["error"]
        assert error.keys() == {"code", "message", "request_id"}
        assert f"x-request-id: {error['request_id']}".encode() in head.lower()


PATHS = [
    b"/", b"*", b"/openapi.json", b"/results/tsk_1.jpg?expires=1&signature=0",
    b"/api/v1/swaps", b"/api/v1/swaps?limit=1&cursor=x", b"/api/v1/swaps/x", b"/api/v1/me",
    b"/_emulator", b"/_emulator/advance", b"/_emulator/account", b"/_emulator/clock",
    b"/_emulator/credits", b"/_emulator/deliveries", b"/_emulator/deliveries/x/redeliver",
    b"/_emulator/faults", b"/_emulator/faults/0", b"/_emulator/keys", b"/_emulator/keys/x",
    b"/_emulator/requests?limit=2", b"/_emulator/reset", b"/_emulator/settle",
    b"/_emulator/settings", b"/_emulator/swaps", b"/_emulator/swaps/x/image",
]  # fmt: skip
METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"]
HEADERS = [
    b"Authorization: Bearer key_emulator", b"Host: 127.0.0.1", b"Content-Type: application/json",
    b"Content-Encoding: gzip", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
    b"Connection: close", b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c",
    b"Range: bytes=0-0", b"Idempotency-Key: k", b"Origin: null", b"If-Range: x",
]  # fmt: skip
VALUES: list[object] = [
    {}, [], None, 0, "", 1e300, {"seconds": 1}, {"seconds": 1e12}, {"add": 1e300}, {"add": 1},
    {"api_key": "x"}, {"match": "*", "do": "latency"}, {"credits": -0.0}, {"faults": [{}]},
    {"version": 1, "now": 1e14, "credits": 1, "keys": []},
]  # fmt: skip

anything = st.binary(max_size=300)
token = st.sampled_from(METHODS) | st.binary(min_size=1, max_size=8)
path = st.sampled_from(PATHS) | st.builds(
    bytes.__add__, st.sampled_from(PATHS), st.binary(max_size=9)
)
header = (
    st.sampled_from(HEADERS)
    | st.builds(
        lambda name, value: name + b": " + value, st.binary(max_size=9), st.binary(max_size=20)
    )
    | st.builds(lambda length: b"Content-Length: %d" % length, st.integers(-1, 1 << 40))
)
body = (
    st.sampled_from([json.dumps(value).encode() for value in VALUES])
    | st.sampled_from([BODY, b'5\r\n{"a":\r\n0\r\n\r\n', b"[" * 2000])
    | anything
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something that looks like a request, more or less."""
    content = draw(body)
    headers = draw(st.lists(header, max_size=6))
    if draw(st.booleans()):
        headers = [*HEADERS[:3], b"Content-Length: %d" % len(content), *headers]
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b""]))
    line = b" ".join([draw(token), draw(path), version])
    return b"\r\n".join([line, *headers, b"", content])


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A good creation, or a good call of the control API, with a few bytes changed."""
    good = draw(st.sampled_from([creation("k"), *GOOD]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(good)))
        end = draw(st.integers(start, min(len(good), start + 9)))
        good = good[:start] + draw(st.binary(max_size=9)) + good[end:]
    return good


def steering(method: bytes, path: bytes, value: object) -> bytes:
    content = json.dumps(value).encode()
    lines = (b"%s /_emulator/%s HTTP/1.1" % (method, path), b"Host: 127.0.0.1")
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(content), b"", content])


STATE = {"version": 1, "now": 1, "credits": 9, "keys": [{"api_key": "key_emulator"}]}
FAULT = {"match": "PUT /swaps", "do": {"action": "body", "text": "x"}, "rate": 0.5}
GOOD = [
    steering(b"POST", b"advance", {"seconds": 60}),
    steering(b"POST", b"faults", FAULT),
    steering(b"POST", b"reset", {"credits": 1e6, "faults": [], "limits": {"per_minute": None}}),
    steering(b"POST", b"keys", {"api_key": "key_b", "limits": {"per_minute": 1}}),
    steering(b"PUT", b"state", STATE),
]


@fuzzed
@given(anything)
def test_any_bytes(emulator: Emulator, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    """Not even HTTP."""
    check(emulator, sent, caplog)


@fuzzed
@given(requests())
def test_any_request(emulator: Emulator, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    """Any method, path, header and body."""
    check(emulator, sent, caplog)


@fuzzed
@given(mutations())
def test_any_mistake(emulator: Emulator, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    """Nearly right."""
    check(emulator, sent, caplog)


def test_the_fuzzed_emulator_still_works(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all that a reset makes it as good as new."""
    caplog.set_level(logging.INFO)
    emulator.reset()
    monkeypatch.setattr(server, "IDLE_TIMEOUT", TIMEOUT)
    assert send(emulator, creation()).startswith(b"HTTP/1.1 201 ")
