"""The emulator over real sockets: what a client sees, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from aifaceswap import AsyncClient
from aifaceswap.emulator import Emulator, Limits, VirtualClock
from support.emulator_wire import JSON_TYPE, connected, exchange, raw, read_result
from support.emulator_world import SWAP

if TYPE_CHECKING:
    from aiohttp import ClientSession


async def test_a_swap_is_created_looked_at_and_downloaded(
    emulator: Emulator, http: ClientSession
) -> None:
    """The whole way over HTTP: POST, GET, list, me, picture."""
    async with http.post("swaps", json=SWAP, headers={"Idempotency-Key": "k"}) as answer:
        assert answer.status == 201
        swap = await answer.json()
    emulator.advance(3)
    async with http.get(f"swaps/{swap['id']}") as answer:
        done = await answer.json()
    async with http.get("swaps", params={"limit": "1"}) as answer:
        assert {"data": [done], "next_cursor": None} == await answer.json()
    async with aiohttp.ClientSession() as anyone, anyone.get(done["result_url"]) as answer:
        picture = await answer.read()

    assert done["status"] == "done"
    assert ("image/jpeg", str(len(picture))) == (
        answer.headers["Content-Type"],
        answer.headers["Content-Length"],
    )
    assert picture.startswith(b"\xff\xd8")


async def test_what_was_received_can_be_looked_at(emulator: Emulator, http: ClientSession) -> None:
    """requests, swaps and the balance tell what happened; keys are in no repr."""
    headers = {"Idempotency-Key": "k-1", "X-Trace": "7"}
    async with http.post("swaps?dry=1", json=SWAP, headers=headers):
        pass
    emulator.advance(1)
    async with http.get("me"):
        pass
    first, second = emulator.requests
    (swap,) = emulator.swaps

    assert (
        first.method,
        first.path,
        first.query,
        first.status,
    ) == ("POST", "/api/v1/swaps", "dry=1", 201)
    assert (
        first.idempotency_key,
        json.loads(first.body),
        dict(first.headers)["X-Trace"],
    ) == ("k-1", SWAP, "7")
    assert (second.at - first.at, second.idempotency_key) == (1.0, None)
    assert ("k-1", "processing", SWAP["source_url"]) == (
        swap.idempotency_key,
        swap.status,
        swap.source_url,
    )
    assert emulator.balance == 999
    assert emulator.api_key not in repr((emulator, emulator.requests, emulator.swaps))


async def test_keys_can_be_added_and_revoked_and_credits_topped_up(emulator: Emulator) -> None:
    """A rotation: two keys live, then one; the credits are the user's."""
    emulator.add_key("key_new")
    emulator.revoke_key(emulator.api_key)
    emulator.top_up(0.5)
    codes = []
    async with aiohttp.ClientSession() as http:
        for key in (emulator.api_key, "key_new"):
            headers = {"Authorization": f"Bearer {key}"}
            async with http.get(f"{emulator.base_url}/me", headers=headers) as answer:
                codes.append(answer.status)
                me = await answer.json()

    assert codes == [401, 200]
    assert me["credits"]["total"] == 1000.5
    with pytest.raises(ValueError, match="credits must be 0 or more; got -1"):
        emulator.top_up(-1)
    with pytest.raises(ValueError, match="api_key must be visible ASCII"):
        emulator.add_key("a b")


LONG = b'{"metadata": "' + b"a" * 1024 * 1024 + b'"}'
BOMB = gzip.compress(LONG * 10)


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([raw(b"", "Content-Length: 0", JSON_TYPE)], 400, "validation_error"),
        ([raw(b"{}", "Content-Length: 2")], 415, "unsupported_media_type"),
        (
            [raw(LONG, f"Content-Length: {len(LONG)}", JSON_TYPE)],
            413,
            "payload_too_large",
        ),
        ([raw(b"", "Content-Length: 99999999999", JSON_TYPE)], 413, "payload_too_large"),
        (
            [raw(b"", "Transfer-Encoding: chunked", JSON_TYPE), b"100001\r\n", LONG],
            413,
            "payload_too_large",
        ),
        (
            [raw(BOMB, f"Content-Length: {len(BOMB)}", "Content-Encoding: gzip", JSON_TYPE)],
            415,
            "unsupported_media_type",
        ),
        (
            [raw(b"xy", "Content-Length: 2", "Content-Encoding: gzip", JSON_TYPE)],
            415,
            "unsupported_media_type",
        ),
        ([raw(b"\xff", "Content-Length: 1", JSON_TYPE)], 400, "validation_error"),
        (
            [raw(b"", "Transfer-Encoding: chunked", JSON_TYPE), b"zz\r\n"],
            400,
            "validation_error",
        ),
        (
            [raw(b"", "Transfer-Encoding: chunked", JSON_TYPE), b"2\r\n{}\r\n", b"0\r\n\r\n"],
            400,
            "validation_error",
        ),
        ([raw(b"", "Content-Length: x")], 400, "validation_error"),
        ([raw(b"", "Content-Length: 1", "Transfer-Encoding: chunked")], 400, "validation_error"),
        ([raw(b"", "Bad Header")], 400, "validation_error"),
        ([raw(b"", "X-Long: " + "a" * 20_000)], 400, "validation_error"),
        ([raw(b"", "X-Many: 1\r\n" * 200)], 400, "validation_error"),
        ([raw(b"", path="/" + "a" * 20_000)], 400, "validation_error"),
        ([b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"], 400, "validation_error"),
        ([b"GET / HTTP/9.9\r\n\r\n"], 400, "validation_error"),
        ([b"nonsense\r\n\r\n"], 400, "validation_error"),
        ([raw(b"", path="/api/v1/swaps/%ff%00", method="GET")], 404, "not_found"),
        ([raw(b"", path="/api/v1/../v1/me", method="GET")], 404, "not_found"),
        ([raw(b"", path="/api/v1/swaps?limit=1&limit=1", method="GET")], 400, "validation_error"),
        ([raw(b"", path="/api/v1/swaps?limit=%ff", method="GET")], 400, "validation_error"),
        ([raw(b"", path="//", method="GET")], 404, "not_found"),
        ([raw(b"", path="*", method="OPTIONS")], 404, "not_found"),
        ([raw(b"", path="x:1", method="CONNECT")], 403, "forbidden"),
        (
            [raw(b"", "Connection: Upgrade", "Upgrade: websocket", path="/api/v1/me")],
            405,
            "method_not_allowed",
        ),
        ([raw(b"", "Expect: something", path="/api/v1/me")], 405, "method_not_allowed"),
        (
            [b"GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: \xff\xfe\r\n\r\n"],
            401,
            "unauthorized",
        ),
        (
            [b"GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \xff\r\n\r\n"],
            401,
            "invalid_api_key",
        ),
        ([b"GET /api/v1/me HTTP/1.0\r\n\r\n"], 401, "unauthorized"),
    ],
)
async def test_a_malformed_request_gets_the_envelope(
    emulator: Emulator, parts: list[bytes], status: int, code: str
) -> None:
    """Whatever comes over the socket is answered with an error of the API, never a 500."""
    answer_status, headers, body = await exchange(emulator, *parts)
    error = json.loads(body)["error"]

    assert (status, code) == (answer_status, error["code"])
    assert headers["x-request-id"] == error["request_id"]
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= set(headers)
    assert emulator.swaps == ()


async def test_a_body_is_kept_as_it_was_sent(emulator: Emulator) -> None:
    """A compressed body is refused without being unpacked."""
    await exchange(
        emulator, raw(BOMB, f"Content-Length: {len(BOMB)}", "Content-Encoding: gzip", JSON_TYPE)
    )

    assert emulator.requests[0].body == BOMB


async def test_a_body_that_never_comes_is_not_waited_for(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408 request_timeout, and no swap."""
    monkeypatch.setattr("aifaceswap.emulator._server.server.BODY_TIMEOUT", 0.01)
    status, _, body = await exchange(emulator, raw(b"{", "Content-Length: 9", JSON_TYPE))

    assert (status, json.loads(body)["error"]["code"]) == (408, "request_timeout")


@pytest.mark.parametrize("sent", [b"", b"POST /api/v1/swaps HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
async def test_a_head_that_never_comes_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """The connection is closed, as an idle one is."""
    monkeypatch.setattr("aifaceswap.emulator._server.server.IDLE_TIMEOUT", 0.5)
    async with Emulator(clock=VirtualClock()) as emulator, connected(emulator) as wire:
        await wire.send(sent)
        assert await wire.rest() == b""


class Failing(VirtualClock):
    """A clock that fails once when told to."""

    fails = False

    def now(self) -> float:
        if self.fails:
            self.fails = False
            raise ZeroDivisionError
        return super().now()


@pytest.mark.parametrize("path", ["/api/v1/me", "/_emulator/clock"])
async def test_an_emulator_that_fails_says_so(caplog: pytest.LogCaptureFixture, path: str) -> None:
    """A 500 with the envelope that asks for a report, and the traceback in the log."""
    clock = Failing()
    async with Emulator(clock=clock) as emulator:
        await exchange(emulator, raw(b"", method="GET", path="/api/v1/me"))
        clock.fails = True
        status, headers, body = await exchange(
            emulator,
            raw(b"", method="GET", path=path).replace(b"Host: 127.0.0.1", b"Host: localhost"),
        )
    error = json.loads(body)["error"]

    assert (status, error["code"]) == (500, "internal_error")
    assert "please report it" in error["message"]
    assert headers["connection"] == "close"
    assert "ZeroDivisionError" in caplog.text


async def test_an_emulator_that_fails_within_an_answer_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was begun by `100 Continue` is not mixed with another answer."""
    clock = Failing()
    async with Emulator(clock=clock) as emulator:
        await exchange(emulator, raw(b"", method="GET", path="/api/v1/me"))
        clock.fails = True
        async with connected(emulator) as wire:
            request = raw(b"", method="GET", path="/api/v1/me")
            await wire.send(
                request.replace(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nExpect: 100-continue")
            )
            seen = await wire.rest()
    assert seen == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert "ZeroDivisionError" in caplog.text


async def test_time_beyond_all_calendars_is_no_trouble(emulator: Emulator) -> None:
    """Dates stop at the end of the year 9999, and all goes on."""
    emulator.advance(1e12)
    body = json.dumps(SWAP).encode()
    status, headers, answer = await exchange(
        emulator, raw(body, f"Content-Length: {len(body)}", JSON_TYPE)
    )

    assert status == 201
    assert headers["date"] == "fri, 31 dec 9999 23:59:59 gmt"
    assert json.loads(answer)["created_at"].startswith("9999-12-31T23:59:59.")


async def test_odd_but_right_requests_are_answered(emulator: Emulator) -> None:
    """A body in pieces, an absolute target, bytes that are no text in other headers."""
    body = json.dumps(SWAP).encode()
    chunks = [b"%x\r\n%s\r\n" % (len(body[i : i + 9]), body[i : i + 9]) for i in range(0, 200, 9)]
    chunked = await exchange(
        emulator,
        raw(b"", "Transfer-Encoding: chunked", JSON_TYPE, "Idempotency-Key: \udcff\udcfe"),
        b"".join(chunk for chunk in chunks if not chunk.startswith(b"0")) + b"0\r\n\r\n",
    )
    absolute = await exchange(
        emulator, raw(b"", method="GET", path="http://127.0.0.1/api/v1/me?a=1")
    )
    odd = await exchange(emulator, raw(b"", "X-Odd: \udcff", method="GET", path="/api/v1/me"))

    assert [answer[0] for answer in (chunked, absolute, odd)] == [201, 200, 200]


async def test_a_body_of_exactly_one_mebibyte_is_read(emulator: Emulator) -> None:
    """The cap is 1 MiB itself, not a byte less."""
    start, end = json.dumps({**SWAP, "x": ""}).encode()[:-2], b'"}'
    padding = b"a" * (1024 * 1024 - len(start) - len(end))
    body = start + padding + end
    statuses = [
        (await exchange(emulator, raw(sent, f"Content-Length: {len(sent)}", JSON_TYPE)))[0]
        for sent in (body, body + b" ")
    ]

    assert statuses == [201, 413]


async def test_a_client_that_waits_for_100_continue_gets_it(
    emulator: Emulator, http: ClientSession
) -> None:
    """`Expect: 100-continue` is answered before the body comes."""
    async with asyncio.timeout(5), http.post("swaps", json=SWAP, expect100=True) as answer:
        assert answer.status == 201


async def test_a_creation_that_was_cut_off_creates_nothing(emulator: Emulator) -> None:
    """A connection lost within the body makes no swap."""
    host, port = emulator.origin.removeprefix("http://").split(":")
    body = json.dumps(SWAP).encode()
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw(body, f"Content-Length: {len(body) + 1}", JSON_TYPE))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(5):
        while not emulator.requests:
            await asyncio.sleep(0)

    assert emulator.swaps == ()


async def test_pipelined_requests_are_answered_in_order(emulator: Emulator) -> None:
    """Three requests in one packet get three answers on the same connection."""
    host, port = emulator.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    paths = ("/api/v1/me", "/api/v1/nothing", "/api/v1/swaps")
    writer.write(b"".join(raw(b"", method="GET", path=path) for path in paths))
    statuses = [(await read_result(reader))[0] for _ in paths]
    writer.close()
    await writer.wait_closed()

    assert statuses == [200, 404, 200]


async def test_a_burst_at_once_meets_exact_limits() -> None:
    """Of 100 creations at once exactly the ten free slots are given."""
    async with Emulator(clock=VirtualClock(), limits=Limits(None, None, 10)) as emulator:
        headers = {"Authorization": f"Bearer {emulator.api_key}"}
        async with aiohttp.ClientSession(headers=headers) as http:

            async def create() -> int:
                async with http.post(f"{emulator.base_url}/swaps", json=SWAP) as answer:
                    return answer.status

            statuses = await asyncio.gather(*(create() for _ in range(100)))

    assert (statuses.count(201), statuses.count(429)) == (10, 90)


def is_listening(origin: str) -> bool:
    host, port = origin.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def test_stopping_leaves_nothing_behind() -> None:
    """Idle, half-sent and unread connections are closed at once; no task is left."""
    before = asyncio.all_tasks()
    clock = VirtualClock()
    async with Emulator(clock=clock) as emulator:
        origin = emulator.origin
        host, port = origin.removeprefix("http://").split(":")
        connections = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        connections[0][1].write(raw(b"{", "Content-Length: 100", JSON_TYPE))
        connections[1][1].write(raw(b"", method="GET", path="/api/v1/me") * 3)
        connections[2][1].write(b"POST /api")
        connections[3][1].write(raw(b"", "Transfer-Encoding: chunked", JSON_TYPE))
        for _, writer in connections:
            await writer.drain()
        while not emulator.requests:
            await asyncio.sleep(0)
        started = time.monotonic()

    # A stop that waits for its client takes a minute.
    assert time.monotonic() - started < 20
    assert before == asyncio.all_tasks()
    assert not is_listening(origin)
    for _, writer in connections:
        writer.close()


@pytest.mark.parametrize("turns", range(5))
def test_a_client_that_has_just_come_is_cut_off(turns: int) -> None:
    """Whatever the loop has made of its socket by then: nothing is left unclosed."""

    async def stop_soon() -> socket.socket:
        async with Emulator() as emulator:
            host, port = emulator.origin.removeprefix("http://").split(":")
            client = socket.create_connection((host, int(port)))
            for _ in range(turns):
                await asyncio.sleep(0)
        return client

    with asyncio.run(stop_soon()) as client:
        # What was left unclosed is a warning here, and so an error of this test.
        gc.collect()
        assert not client.recv(1)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Answers that nobody takes hold up neither the stop nor the loop's end."""
    loop = asyncio.new_event_loop()
    with socket.socket() as client:
        started = loop.run_until_complete(leave_unread(client))
        loop.close()
        gc.collect()

    # A stop that waits for its client takes a minute.
    assert time.monotonic() - started < 20


async def leave_unread(client: socket.socket) -> float:
    """Ask for megabytes, read none of them, stop the emulator; when the stop began."""
    limits = Limits(None, None, None)
    async with Emulator(clock=VirtualClock(), limits=limits) as emulator:
        headers = {"Authorization": f"Bearer {emulator.api_key}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            for _ in range(100):
                await http.post(
                    f"{emulator.base_url}/swaps", json={**SWAP, "metadata": {"a": "b" * 2000}}
                )
        host, port = emulator.origin.removeprefix("http://").split(":")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        client.send(raw(b"", method="GET", path="/api/v1/swaps?limit=100") * 100)
        await wait_until_stalled(emulator)
        started = time.monotonic()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return started


async def wait_until_stalled(emulator: Emulator) -> None:
    """Return when no further request is being answered."""
    seen = -1
    while seen < len(emulator.requests):
        seen = len(emulator.requests)
        for _ in range(50):
            await asyncio.sleep(0)


async def test_an_emulator_runs_only_once_at_a_time_but_again_later() -> None:
    """It cannot be entered twice; entered again it still holds its swaps."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = emulator.base_url
    async with emulator:
        headers = {"Authorization": f"Bearer {emulator.api_key}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            await http.post(f"{emulator.base_url}/swaps", json=SWAP)
        with pytest.raises(RuntimeError, match="running already"):
            await emulator.__aenter__()
    async with emulator:
        assert len(emulator.swaps) == 1


async def test_a_taken_port_is_an_error_that_leaves_nothing(emulator: Emulator) -> None:
    """The OSError of the socket comes out."""
    port = int(emulator.origin.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        await Emulator(port=port).__aenter__()


async def test_a_timeout_around_it_stops_it_as_cleanly() -> None:
    """A cancelled scope around the block leaves no task and no socket either."""
    before = asyncio.all_tasks()
    origin = ""
    with anyio.move_on_after(0.05):
        async with Emulator() as emulator:
            origin = emulator.origin
            await anyio.sleep_forever()

    assert before == asyncio.all_tasks()
    assert not is_listening(origin)


async def test_ipv6_loopback_and_localhost_work() -> None:
    """Host may be ::1 or localhost."""
    for host in ("::1", "localhost"):
        async with (
            Emulator(host=host) as emulator,
            aiohttp.ClientSession() as http,
            http.get(f"{emulator.base_url}/me") as answer,
        ):
            assert answer.status == 401


def test_a_real_clock_can_jump_ahead() -> None:
    """Swaps, limits and deliveries follow; an hour passes while a request is made."""
    with Emulator(duration=3600, deliver_to="http://127.0.0.1:9") as emulator:
        status, swap = fetch(
            f"{emulator.base_url}/swaps",
            {
                "type": "image",
                "source_url": "https://example.com/face.jpg",
                "target_url": "https://example.com/target.jpg",
                "webhook_url": "https://shop.example.com/hook",
            },
        )
        assert (status, swap["status"], emulator.deliveries) == (201, "queued", ())
        emulator.advance(3601)
        emulator.settle_blocking()

        assert [one.status for one in emulator.swaps] == ["done"]
        assert len(emulator.deliveries[0].attempts) == 1


def fetch(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """A synchronous client: none of our dependencies."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        headers = {"Authorization": "Bearer key_emulator", "Content-Type": "application/json"}
        connection.request("POST" if body else "GET", parts.path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_synchronous_users_get_a_thread() -> None:
    """Plain `with` serves from a thread, which has ended afterwards."""
    before = threading.active_count()
    with Emulator(clock=VirtualClock(), deliver_to="http://127.0.0.1:9") as emulator:
        body = {**SWAP, "webhook_url": "https://example.com/hook"}
        status, swap = fetch(f"{emulator.base_url}/swaps", body)
        emulator.advance(3)
        emulator.settle_blocking()
        _, done = fetch(f"{emulator.base_url}/swaps/{swap['id']}")
        origin = emulator.origin

        assert (status, done["status"], len(emulator.deliveries[0].attempts)) == (201, "done", 1)
    assert before == threading.active_count()
    assert not is_listening(origin)


def test_an_error_in_a_plain_with_comes_out() -> None:
    """The emulator stops, and the error is the caller's own."""
    origins = []

    def fail() -> None:
        with Emulator() as emulator:
            origins.append(emulator.origin)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert not is_listening(origins[0])


def test_a_failed_start_in_a_thread_comes_out() -> None:
    """An OSError at the start ends the thread and is raised."""
    before = threading.active_count()
    with Emulator() as emulator:
        port = int(emulator.origin.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"), Emulator(port=port):
            pass
    assert before == threading.active_count()


async def test_settling_without_a_thread_is_awaited(emulator: Emulator) -> None:
    """settle_blocking() says what is to be used in its place."""
    with pytest.raises(RuntimeError, match="needs `with Emulator"):
        emulator.settle_blocking()


async def test_settling_from_another_loop() -> None:
    """settle() of an emulator in a thread leaves this loop free, e.g. to receive."""
    bodies = []

    async def receive(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    with Emulator(duration=60, deliver_to=origin) as emulator:
        async with AsyncClient(emulator.api_key, base_url=emulator.base_url) as client:
            await client.swaps.create(
                source_url="https://example.com/face.jpg",
                target_url="https://example.com/target.jpg",
                webhook_url="https://shop.example.com/hook",
            )
        emulator.advance(61)
        await emulator.settle()
    await runner.cleanup()

    assert len(bodies) == 1


def test_a_plain_with_cannot_be_entered_twice() -> None:
    """The second `with` is an error, the first goes on."""
    with Emulator() as emulator:
        with pytest.raises(RuntimeError, match="running already"):
            emulator.__enter__()
        status, _ = fetch(f"{emulator.base_url}/me")
    assert status == 200
