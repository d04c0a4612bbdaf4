"""The example apps keep what their comments promise."""

from __future__ import annotations

import json
import signal
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aifaceswap import webhooks
from aifaceswap.emulator import Emulator
from process.examples.apps import FOREVER, TIMEOUT, App, running, send_request
from process.examples.conftest import World
from support.samples import FACE, TARGET

# What customers read for the fields.
FIELDS = {"source_url": "photo of the face", "target_url": "other photo"}
KEY = {"AIFACESWAP_API_KEY": "key_test_123"}


def is_jpeg(url: str | None) -> bool:
    assert url is not None
    body = send_request("GET", url).body
    return body[:3] == b"\xff\xd8\xff" and body[-2:] == b"\xff\xd9"


def newest(world: World) -> str:
    """The id of the swap that was created last."""
    return world.service.swaps[-1].id


def magic(file: str) -> str:
    return f"https://example.com/{file}"


def post_event(app: App, swap_id: str, key: str) -> int:
    """Deliver an event by hand."""
    body = json.dumps({"event": "swap.completed", "id": swap_id, "status": "done"}).encode()
    headers = {webhooks.SIGNATURE_HEADER: webhooks.sign(body, key)}
    return send_request("POST", f"{app.url}/hooks/swap", body, headers).status


# --- one customer ----------------------------------------------------------------------------


def test_an_order_shows_its_progress_and_its_picture(world: World) -> None:
    """From the form to a JPEG; the service's delivery is taken."""
    order = world.customer.order(FACE)
    states = world.customer.watch(order)

    progress = [sight.progress for sight in states]
    assert progress == sorted(progress)
    assert any(0 < percent < 100 for percent in progress)
    assert states[-1].error is None
    assert is_jpeg(states[-1].result_url)
    (delivery,) = (one for one in world.service.deliveries if one.swap_id == newest(world))
    assert delivery.state == "delivered"


def test_a_form_sent_twice_is_one_swap(world: World) -> None:
    """A double click, and once more after its end: one swap is paid."""
    before, balance = len(world.service.swaps), world.service.balance
    order = str(uuid.uuid4())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: world.customer.order(order=order), range(2)))
    world.customer.watch(order)
    world.customer.order(order=order)

    assert len(world.service.swaps) == before + 1
    assert world.service.balance == balance - 1
    assert world.customer.fetch_state(order).ended


def test_the_same_form_with_other_pictures_is_refused(world: World) -> None:
    """What was ordered stays as it is."""
    order = world.customer.order()
    reply = world.customer.send(order, source_url=FACE, target_url=TARGET)

    assert reply.status == 400
    assert "other images" in world.customer.problem(reply)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"source_url": "http://example.com/f.jpg", "target_url": TARGET}, "source_url"),
        ({"source_url": FACE, "target_url": '"><script>alert(1)</script>'}, "target_url"),
        ({"source_url": FACE}, "target_url"),
        ({}, "source_url"),
    ],
)
def test_wrong_input_is_named(world: World, fields: dict[str, str], field: str) -> None:
    """400, in the customer's words for the field; nothing is sent, nothing is executed."""
    before = len(world.service.swaps)
    reply = world.customer.send(str(uuid.uuid4()), **fields)

    assert reply.status == 400
    assert FIELDS[field] in world.customer.problem(reply)
    assert "json" in reply.headers["Content-Type"] or "<script>" not in reply.text
    assert len(world.service.swaps) == before


def test_an_order_needs_a_proper_id(world: World) -> None:
    """It is part of the page's address."""
    reply = world.customer.send("..", source_url=FACE, target_url=TARGET)

    assert 400 <= reply.status < 500
    assert send_request("GET", f"{world.app.url}/orders/{uuid.uuid4()}").status == 404


@pytest.mark.parametrize(
    ("file", "status"), [("nsfw.jpg", 422), ("unreachable.jpg", 400), ("no-credits.jpg", 503)]
)
def test_a_refused_order_can_be_sent_again(world: World, file: str, status: int) -> None:
    """As a new swap, under a fresh key: the service remembers what it has refused."""
    order = str(uuid.uuid4())
    reply = world.customer.send(order, source_url=magic(file), target_url=TARGET)
    assert reply.status == status
    assert world.customer.problem(reply)
    assert "Retry-After" not in reply.headers

    world.customer.order(order=order)
    keys = [one.idempotency_key for one in world.service.requests if one.method == "POST"]
    assert keys[-2] != keys[-1]


def test_a_swap_that_fails_says_why(world: World) -> None:
    """There is no picture, and the words of the service."""
    sight = world.customer.watch(world.customer.order(magic("fails.jpg")))[-1]

    assert sight.result_url is None
    assert sight.error


def test_a_busy_service_is_told_at_once(world: World) -> None:
    """503 and when to come back; nothing piles up, and the order keeps its key."""
    order, file = str(uuid.uuid4()), magic("rate-limited.jpg")
    replies = [world.customer.send(order, source_url=file, target_url=TARGET) for _ in range(2)]

    assert [reply.status for reply in replies] == [503, 503]
    assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)
    sent = [one.idempotency_key for one in world.service.requests if file.encode() in one.body]
    assert len(sent) <= 2
    assert len(set(sent)) == 1


# --- deliveries ------------------------------------------------------------------------------


def test_a_delivery_must_be_signed(world: World) -> None:
    """Forged: 400; signed: taken, also twice, also of a swap that nobody knows."""
    key = world.service.api_key

    assert post_event(world.app, "tsk_1", "key_forged") == 400
    assert send_request("POST", f"{world.app.url}/hooks/swap", b"{}").status == 400
    assert [post_event(world.app, "tsk_1", key) for _ in range(2)] == [204, 204]
    assert send_request("GET", f"{world.app.url}/hooks/swap").status == 405


def test_a_forged_delivery_changes_nothing(world: World) -> None:
    """Whoever knows a swap's id cannot end its order; the service can."""
    order = world.customer.order(FOREVER)
    assert post_event(world.app, newest(world), "key_forged") == 400
    assert not world.customer.fetch_state(order).ended

    assert post_event(world.app, newest(world), world.service.api_key) == 204
    assert world.customer.fetch_state(order).ended


# --- many customers, restarts ----------------------------------------------------------------


def test_twenty_customers_at_once(fresh_world: World) -> None:
    """The service has ten slots: some are asked to come back, all get their pictures."""
    customers = [fresh_world.app.customer() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        orders = list(pool.map(lambda customer: customer.order(FACE), customers))
        states = list(pool.map(lambda order: fresh_world.customer.watch(order)[-1], orders))

    assert len({sight.result_url for sight in states}) == 20
    assert all(is_jpeg(sight.result_url) for sight in states)
    assert len(fresh_world.service.swaps) == 20


def test_what_was_under_way_goes_on_after_a_crash(name: str, tmp_path: Path) -> None:
    """Killed while a swap was made, the next start sees it to its end; without webhooks here."""
    with Emulator(duration=2.0) as service:
        env = {"AIFACESWAP_API_KEY": service.api_key, "AIFACESWAP_BASE_URL": service.base_url}
        with running(name, tmp_path, env=env) as app:
            order = app.customer().order(FACE)
            app.process.kill()
            app.process.wait()
        with running(name, tmp_path, env=env) as app:
            sight = app.customer().watch(order)[-1]
            assert is_jpeg(sight.result_url)

        (creation,) = (one for one in service.requests if one.method == "POST")
        assert not json.loads(creation.body).get("webhook_url")


# --- as a program ----------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGTERM, {0}), (signal.SIGINT, {0, 130})])
def test_with_an_emulator_it_needs_nothing(
    name: str, tmp_path: Path, number: signal.Signals, codes: set[int]
) -> None:
    """One command; stopped with an order under way and a connection open, it ends quietly."""
    with running(name, tmp_path, "--emulator", "--duration", "1") as app:
        customer = app.customer()
        assert is_jpeg(customer.watch(customer.order())[-1].result_url)
        customer.order(FOREVER)
        with socket.create_connection((urlsplit(app.url).hostname, urlsplit(app.url).port)) as idle:
            # After a response the server knows the connection; uvicorn waits for younger ones.
            idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(1)
            assert app.stop(number) in codes
        printed = app.text.splitlines()

    assert printed[0].startswith("Emulator at http://127.0.0.1:")
    assert printed[1] == f"Open {customer.url}/ (Ctrl-C stops)"
    # Flask's own server writes a line for each request.
    assert printed[2:] == [] or name == "flask"
    assert list(tmp_path.glob("orders*")) == []


@pytest.mark.parametrize(
    ("options", "env", "words"),
    [
        ((), {}, "set AIFACESWAP_API_KEY, or use --emulator"),
        (("--port", "0x50"), {}, "--port: invalid int value"),
        (("--port", "65536"), KEY, "--port 65536 cannot be used"),
        (("--public-url", "http://localhost"), KEY, "--public-url: webhook_url must be "),
    ],
)
def test_it_says_what_it_needs(
    tmp_path: Path, options: tuple[str, ...], env: dict[str, str], words: str
) -> None:
    """A key, a port, a public URL that is one. All examples start in the same way."""
    with running("aiohttp", tmp_path, *options, env=env) as app:
        assert app.process.wait(TIMEOUT) == 2
        assert words in app.text
