"""`WebhookApp` and `aiohttp_handler`: the same answers from both, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from aifaceswap import ConfigurationError, WebhookEvent, webhooks
from support.hooks import (
    HEADER,
    KEY,
    OTHER_KEY,
    Message,
    Receiver,
    body_of,
    serve_app,
    serve_handler,
    signed,
)

Serve = Callable[..., AbstractAsyncContextManager[Receiver]]
MIB = 1024 * 1024


@pytest.fixture(params=[serve_app, serve_handler], ids=["asgi", "aiohttp"])
def serve(request: pytest.FixtureRequest) -> Serve:
    found: Serve = request.param
    return found


@pytest.fixture
def events() -> list[WebhookEvent]:
    return []


@pytest.fixture
async def receiver(serve: Serve, events: list[WebhookEvent]) -> AsyncIterator[Receiver]:
    async with serve(events.append, [KEY]) as receiver:
        yield receiver


async def test_a_delivery_is_handled(receiver: Receiver, events: list[WebhookEvent]) -> None:
    """The handler has the event, the service its 2xx."""
    reply = await receiver.post(body_of())

    assert (reply.status, reply.body) == (204, b"")
    assert [(event.event, event.swap.id) for event in events] == [("swap.completed", "tsk_1")]


async def test_an_async_handler_is_awaited(serve: Serve) -> None:
    """The answer comes when it has returned."""
    done: list[str] = []

    async def handler(event: WebhookEvent) -> None:
        await asyncio.sleep(1)
        done.append(event.swap.id)

    async with serve(handler, KEY) as receiver:
        assert (await receiver.post(body_of())).status == 204
        assert done == ["tsk_1"]


async def test_the_same_delivery_runs_the_handler_once(
    receiver: Receiver, events: list[WebhookEvent]
) -> None:
    """Byte for byte, signed anew, or written anew: a swap ends once."""
    headers = signed(body_of())
    again = [body_of(), body_of(), body_of(result_url="https://example.com/fresh.jpg")]
    replies = [await receiver.post(body_of(), headers), await receiver.post(body_of(), headers)]
    replies += [await receiver.post(body) for body in again]

    assert [reply.status for reply in replies] == [204] * 5
    assert len(events) == 1


async def test_other_deliveries_run_it_again(
    receiver: Receiver, events: list[WebhookEvent]
) -> None:
    """Another swap, another event, and an unknown event that says something new."""
    for body in [
        body_of(),
        body_of(id="tsk_2"),
        body_of("swap.failed"),
        body_of("swap.progress", progress=10),
        body_of("swap.progress", progress=20),
        body_of("swap.progress", progress=20),
    ]:
        assert (await receiver.post(body)).status == 204

    assert len(events) == 5


async def test_two_keys_during_a_rotation(serve: Serve) -> None:
    """Deliveries signed by either are handled."""
    events: list[WebhookEvent] = []
    async with serve(events.append, [OTHER_KEY, KEY]) as receiver:
        for key, swap_id in ((KEY, "tsk_1"), (OTHER_KEY, "tsk_2")):
            body = body_of(id=swap_id)
            assert (await receiver.post(body, signed(body, key))).status == 204
    assert len(events) == 2


BODY = body_of()
STALE = {HEADER: webhooks.sign(BODY, KEY, timestamp=1_760_000_000)}
NO_JSON = b"no json"
NO_EVENT = body_of(id=["tsk_1"])


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY, dict[str, str]()),
        (BODY, {HEADER: "nonsense"}),
        (BODY, {HEADER: "t=\xff"}),
        (BODY, {HEADER: "t=1," * 500}),
        (BODY, signed(BODY, OTHER_KEY)),
        (BODY + b" ", signed(BODY)),
        (BODY, STALE),
    ],
    ids=[
        "unsigned",
        "header",
        "bytes",
        "long",
        "key",
        "body",
        "stale",
    ],
)
async def test_a_delivery_that_fails_verification(
    receiver: Receiver,
    events: list[WebhookEvent],
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    headers: dict[str, str],
) -> None:
    """One 400 for all, without a word; nothing is run, and no log shows what came."""
    with caplog.at_level(logging.DEBUG, logger="aifaceswap"):
        reply = await receiver.post(body, headers)

    assert (reply.status, reply.body) == (400, b"")
    assert events == []
    ours = [record for record in caplog.records if record.name == "aifaceswap"]
    assert [(record.levelname, record.exc_info) for record in ours] == [("INFO", None)]
    assert not any(word in caplog.text for word in ("tsk_1", "example.com", "v1=", KEY))


@pytest.mark.parametrize(
    ("body", "swap_id"),
    [
        (NO_JSON, "unknown"),
        (NO_EVENT, "unknown"),
        (b'{"id": "tsk_1", "event": 7}', "tsk_1"),
        (b'{"event":"swap.completed","id":"tsk_1","progress":NaN}', "tsk_1"),
        (b'{"event":"swap.completed","id":"tsk_1","result_url":"http', "tsk_1"),
        (b"", "unknown"),
        (b"[" * 100_000, "unknown"),
    ],
    ids=["not JSON", "no id", "event", "NaN", "truncated", "empty", "deep"],
)
async def test_a_signed_delivery_that_cannot_be_read_is_an_error(
    receiver: Receiver,
    events: list[WebhookEvent],
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    swap_id: str,
) -> None:
    """Its sender has the key: somebody waits for this swap. The log names it."""
    reply = await receiver.post(body, signed(body))

    assert (reply.status, reply.body, events) == (400, b"", [])
    (record,) = (record for record in caplog.records if record.name == "aifaceswap")
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert f"its swap is {swap_id}: " in record.getMessage()
    assert "http" not in record.getMessage()


@pytest.mark.parametrize(
    ("fields", "swap_id", "status"),
    [
        ({"id": 17}, "17", "done"),
        ({"status": None}, "tsk_1", "done"),
        ({"status": ["done"]}, "tsk_1", "done"),
        ({"status": 4}, "tsk_1", "done"),
        ({"data": {}}, "tsk_1", "done"),
        ({"error": 3}, "tsk_1", "done"),
        ({"credit_cost": "1"}, "tsk_1", "done"),
        ({"progress": "100"}, "tsk_1", "done"),
        ({"created_at": ""}, "tsk_1", "done"),
        ({"created_at": 1_700_000_000}, "tsk_1", "done"),
        ({"metadata": []}, "tsk_1", "done"),
        ({"webhook_url": False}, "tsk_1", "done"),
        ({"type": 1}, "tsk_1", "done"),
        ({"extra": [1], "metadata": None}, "tsk_1", "done"),
    ],
)
async def test_an_odd_field_drops_no_delivery(
    receiver: Receiver,
    events: list[WebhookEvent],
    fields: dict[str, Any],
    swap_id: str,
    status: str,
) -> None:
    """It is signed, and what matters can be read."""
    assert (await receiver.post(body_of(**fields))).status == 204
    (event,) = events
    assert (event.swap.id, event.swap.status) == (swap_id, status)


async def test_a_swap_in_an_envelope(receiver: Receiver, events: list[WebhookEvent]) -> None:
    """Other services nest the object in ``data``."""
    body = b'{"event":"swap.failed","data":{"id":"tsk_9","error":"no face"}}'
    assert (await receiver.post(body)).status == 204
    (event,) = events
    assert (event.event, event.swap.id, event.swap.has_failed) == ("swap.failed", "tsk_9", True)


async def test_the_log_says_why_a_delivery_is_rejected(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """By the reason alone."""
    with caplog.at_level(logging.INFO, logger="aifaceswap"):
        await receiver.post(BODY, {})

    assert "webhook verification failed: header_missing" in caplog.messages


async def test_two_signature_headers_are_no_signature(
    receiver: Receiver, events: list[WebhookEvent]
) -> None:
    """A delivery has one; the second cannot be slipped past the first."""
    right = webhooks.sign(BODY, KEY)
    head = f"POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n"
    for values in (("t=1,v1=0", right), (right, "t=1,v1=0"), (right, right)):
        lines = "".join(f"{HEADER}: {value}\r\n" for value in values)
        assert (await receiver.raw(f"{head}{lines}\r\n".encode() + BODY)).status == 400

    assert events == []


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_only_post_delivers(
    receiver: Receiver, events: list[WebhookEvent], method: str
) -> None:
    """405, which names POST."""
    reply = await receiver.post(BODY, method=method)

    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert events == []


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "identity, gzip", "new"])
async def test_an_encoded_body_is_refused(
    receiver: Receiver, events: list[WebhookEvent], encoding: str
) -> None:
    """415, unread: a small body may unpack to a huge one."""
    packed = gzip.compress(BODY)
    for headers in (signed(packed), signed(BODY)):
        reply = await receiver.post(packed, {**headers, "Content-Encoding": encoding})
        assert reply.status == 415

    assert events == []


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_an_identity_encoding_is_none(receiver: Receiver, encoding: str) -> None:
    """It says that nothing was done."""
    headers = signed(BODY, **{"Content-Encoding": encoding})

    assert (await receiver.post(BODY, headers)).status == 204


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_one_mebibyte_is_read(receiver: Receiver, chunked: bool) -> None:
    """And not a byte more."""
    padding = "x" * (MIB - len(body_of(padding="")))
    largest = body_of(padding=padding)
    larger = body_of(padding=padding + "x")

    assert len(largest) == MIB
    assert (await receiver.post(largest, chunked=chunked)).status == 204
    assert (await receiver.post(larger, chunked=chunked)).status == 413


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(receiver: Receiver) -> None:
    """413 before its first byte; the connection ends."""
    for length in (MIB + 1, 10**18):
        head = f"POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        reply = await receiver.raw(head.encode())
        assert (reply.status, reply.headers["connection"]) == (413, "close")


async def test_the_cap_can_be_chosen(serve: Serve) -> None:
    """In bytes."""
    async with serve(print, KEY, max_body=10) as receiver:
        assert (await receiver.post(b"x" * 10)).status == 400
        assert (await receiver.post(b"x" * 11)).status == 413


async def test_memory_stays_flat(serve: Serve) -> None:
    """However much is sent in how small pieces."""
    async with serve(print, KEY) as receiver:
        piece = b"2\r\nxx\r\n" * 5000
        head = b"POST /hook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        await receiver.raw(head + b"0\r\n\r\n")
        tracemalloc.start()
        try:
            await receiver.raw(head + piece * 10 + b"0\r\n\r\n")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # What is sent and what the servers hold of it; aiohttp notes where each piece ends.
    assert peak < (MIB if serve is serve_app else 3 * MIB)


@pytest.mark.parametrize("start", [b"", b'{"event":'])
async def test_a_body_that_trickles_is_given_up(
    receiver: Receiver, events: list[WebhookEvent], start: bytes
) -> None:
    """408 after ten seconds; the connection ends."""
    head = "POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    began = asyncio.get_running_loop().time()
    reply = await receiver.raw(head.encode() + start)

    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert 9.5 <= asyncio.get_running_loop().time() - began <= 12
    assert events == []


async def test_drops_within_the_read_timeout_do_not_prolong_it(serve: Serve) -> None:
    """It bounds the whole body, not the pauses in it."""
    async with serve(print, KEY, read_timeout=3) as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        writer.write(b"POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        began = asyncio.get_running_loop().time()
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(1)
        assert b" 408 " in await answer
        assert asyncio.get_running_loop().time() - began <= 5
        writer.close()


async def test_a_sender_that_hangs_up_leaves_no_trace(
    receiver: Receiver, events: list[WebhookEvent], caplog: pytest.LogCaptureFixture
) -> None:
    """No error in the log, no task, and the next delivery is served."""
    head = b"POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    await receiver.hang_up(head)
    await receiver.hang_up(head + b"{")
    chunked = b"POST /hook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    await receiver.hang_up(chunked + b"5\r\nab")
    await asyncio.sleep(30)
    reply = await receiver.post(BODY)

    assert reply.status == 204
    assert len(events) == 1
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_handler_that_raises_gets_the_delivery_again(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """500, with the traceback in our log; the next attempt runs it once more."""
    calls: list[WebhookEvent] = []

    async def handler(event: WebhookEvent) -> None:
        calls.append(event)
        if len(calls) < 3:
            raise ZeroDivisionError("the handler's own")

    async with serve(handler, KEY) as receiver:
        statuses = [(await receiver.post(BODY)).status for _ in range(4)]

    assert statuses == [500, 500, 204, 204]
    assert len(calls) == 3
    told = [record.getMessage() for record in caplog.records if record.exc_info]
    assert told == ["a webhook delivery could not be handled; responded with 500"] * 2


async def test_a_delivery_that_comes_while_it_is_handled(serve: Serve) -> None:
    """503: it is not known yet whether it has to come again."""
    calls: list[WebhookEvent] = []
    go_on = asyncio.Event()

    async def handler(event: WebhookEvent) -> None:
        calls.append(event)
        await go_on.wait()

    async with serve(handler, KEY) as receiver:
        first = asyncio.create_task(receiver.post(BODY))
        while not calls:
            await asyncio.sleep(0.01)
        second = await receiver.post(BODY)
        go_on.set()

        assert (second.status, second.headers["retry-after"]) == (503, "5")
        assert (await first).status == 204
        assert (await receiver.post(BODY)).status == 204
    assert len(calls) == 1


async def test_many_deliveries_at_once(receiver: Receiver, events: list[WebhookEvent]) -> None:
    """Each is handled once."""
    bodies = [body_of(id=f"tsk_{number % 100}") for number in range(200)]
    replies = await asyncio.gather(*(receiver.post(body) for body in bodies))

    assert {reply.status for reply in replies} == {204}
    assert len(events) == 100


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"keys": []}, "keys"),
        ({"keys": [""]}, "keys"),
        ({"handler": None}, "handler"),
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"max_body": 0}, "max_body"),
        ({"max_body": 1.5}, "max_body"),
        ({"read_timeout": -1}, "read_timeout"),
    ],
)
@pytest.mark.parametrize("make", [webhooks.WebhookApp, webhooks.aiohttp_handler])
def test_what_cannot_work_is_refused_at_the_start(
    make: Callable[..., object], options: dict[str, Any], field: str
) -> None:
    """Not at the first delivery."""
    with pytest.raises(ConfigurationError, match=rf"^{field}\b") as caught:
        make(**{"handler": print, "keys": KEY, **options})
    assert caught.value.field == field


# --- ASGI beyond HTTP ----------------------------------------------------------------------


async def conversation(scope: Message, *messages: Message) -> list[Message]:
    """What the app sends when these messages come."""
    incoming = iter(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    await webhooks.WebhookApp(print, KEY)(scope, receive, send)
    return sent


async def test_the_app_stands_alone() -> None:
    """It answers a server's lifespan messages."""
    sent = await conversation(
        {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )

    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_a_websocket_is_closed() -> None:
    """Before it is accepted."""
    assert await conversation({"type": "websocket"}) == [{"type": "websocket.close"}]


async def test_a_kind_of_connection_that_is_new_is_refused() -> None:
    """As ASGI asks for: the server tells who has mounted the app."""
    with pytest.raises(NotImplementedError, match="smoke signals"):
        await conversation({"type": "smoke signals"})


async def test_nobody_is_answered_who_has_hung_up() -> None:
    """There is nothing to send to."""
    scope = {"type": "http", "method": "POST", "headers": []}
    start = {"type": "http.request", "body": b"{", "more_body": True}

    assert await conversation(scope, start, {"type": "http.disconnect"}) == []


async def test_what_middleware_does_to_an_answer_stays_there() -> None:
    """The next answer begins without the headers that were added to the last."""
    scope = {"type": "http", "method": "GET", "headers": []}
    first = await conversation(scope)
    first[0]["headers"].append((b"x-added", b"1"))

    assert (b"x-added", b"1") not in (await conversation(scope))[0]["headers"]


async def test_a_connection_is_closed_only_where_its_body_was_not_read(receiver: Receiver) -> None:
    """The next delivery of a service that keeps its connections finds it open."""
    for reply in (await receiver.post(BODY), await receiver.post(b"?", {})):
        assert "connection" not in reply.headers
    assert (await receiver.post(BODY, method="PUT")).headers["connection"] == "close"


async def test_an_answer_without_a_body_says_no_length() -> None:
    """HTTP forbids it with 204; the earliest version that a server names has connections."""
    headers = [(name.lower().encode(), value.encode()) for name, value in signed(BODY).items()]
    scope: Message = {"type": "http", "method": "POST", "headers": headers}
    assert await conversation(scope, {"type": "http.request", "body": BODY}) == [
        {"type": "http.response.start", "status": 204, "headers": []},
        {"type": "http.response.body"},
    ]
    (start, _) = await conversation({**scope, "method": "GET"})
    assert (b"connection", b"close") in start["headers"]


async def test_later_versions_of_http_have_no_connection_header() -> None:
    """They end streams in their own way."""
    scope = {"type": "http", "method": "GET", "headers": [], "http_version": "2"}
    (start, _) = await conversation(scope)

    assert dict(start["headers"]) == {b"allow": b"POST", b"content-length": b"0"}


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [500, 0, 0, 500]])
async def test_a_body_may_come_in_pieces(sizes: list[int]) -> None:
    """Of whatever size."""
    body = json.dumps({"event": "swap.completed", "id": "tsk_1"}).ljust(1000).encode()
    pieces: list[Message] = []
    for size in sizes:
        pieces.append({"type": "http.request", "body": body[:size], "more_body": True})
        body = body[size:]
    pieces.append({"type": "http.request"})
    whole = b"".join(piece.get("body", b"") for piece in pieces)
    headers = [(HEADER.encode(), webhooks.sign(whole, KEY).encode())]
    scope = {"type": "http", "method": "POST", "headers": headers}
    (start, _) = await conversation(scope, *pieces)

    assert start["status"] == 204
