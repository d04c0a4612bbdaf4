"""Webhook deliveries to ASGI apps and functions in this process."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from typing import Any

import pytest

from aifaceswap import AsyncClient, Client, webhooks
from aifaceswap.emulator import Emulator, VirtualClock, WebhookPost
from support.emulator_receiver import HOOK, create

URLS: dict[str, Any] = {
    "source_url": "https://example.com/face.jpg",
    "target_url": "https://example.com/target.jpg",
}


async def test_a_function_gets_the_delivery() -> None:
    """URL, headers and the bytes that are signed; None is a success."""
    received: list[WebhookPost] = []
    async with Emulator(duration=0, deliver_to=received.append) as emulator:
        swap_id = await create(emulator)
        await emulator.settle()

    ((post,), (delivery,)) = received, emulator.deliveries
    event = webhooks.parse(post.body, post.headers[webhooks.SIGNATURE_HEADER], ["key_emulator"])
    assert (post.url, event.swap.id) == (HOOK, swap_id)
    assert post.path == "/hooks/swap%20done?shop=7&a=%2F"
    assert (delivery.state, delivery.url, delivery.attempts[0].status) == ("delivered", HOOK, 204)


class Response:
    status_code = 202


async def respond_later(post: WebhookPost) -> int:
    await asyncio.sleep(0)
    return 299 if post.body else 500


@pytest.mark.parametrize(
    ("receiver", "status", "state"),
    [
        (lambda _: 200, 200, "delivered"),
        (lambda _: 503, 503, "pending"),
        (lambda _: Response(), 202, "delivered"),
        (respond_later, 299, "delivered"),
        (functools.partial(respond_later), 299, "delivered"),
        (lambda _: 1 / 0, None, "pending"),
    ],
)
async def test_what_a_function_returns_is_the_status(
    receiver: Any, status: int | None, state: str
) -> None:
    """A number, a response, an awaitable of one; an exception is no response."""
    async with Emulator(clock=VirtualClock(), duration=0, deliver_to=receiver) as emulator:
        await create(emulator)
        await emulator.settle()
        (delivery,) = emulator.deliveries

    assert (delivery.attempts[0].status, delivery.state) == (status, state)
    assert (delivery.attempts[0].error is None) is (status is not None)


def test_a_function_may_block() -> None:
    """It may use the blocking client, which asks this very emulator."""
    found: list[str] = []
    with (
        Emulator(duration=0) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url) as client,
    ):

        def receive(post: WebhookPost) -> None:
            found.append(client.swaps.get(json.loads(post.body)["id"]).status)

        emulator.configure(deliver_to=receive)
        client.swaps.create(**URLS, webhook_url=HOOK)
        emulator.settle_blocking()

    assert found == ["done"]


async def test_an_asgi_app_ends_a_wait() -> None:
    """The app of the docs in the client's own event loop: no socket, no poll."""
    events: list[str] = []

    async def ended(event: webhooks.WebhookEvent) -> None:
        events.append(event.event)

    async with (
        Emulator(clock=VirtualClock(start=time.time())) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url) as client,
    ):
        app = webhooks.WebhookApp(ended, keys=[emulator.api_key], client=client)
        emulator.configure(deliver_to=app)
        swap = await client.swaps.create(**URLS, webhook_url=HOOK)
        wait = asyncio.create_task(client.swaps.wait(swap))
        await asyncio.sleep(0)
        emulator.advance(3)
        assert (await asyncio.wait_for(wait, 5)).status == "done"
        await emulator.settle()

    assert events == ["swap.completed"]
    assert [request.method for request in emulator.requests].count("GET") <= 1


async def test_an_app_is_called_in_the_event_loop_in_which_it_was_given() -> None:
    """Also if the emulator runs in a thread: the app's objects belong to that loop."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.append((asyncio.get_running_loop(), threading.get_ident(), scope["raw_path"]))
        seen.append((scope["query_string"], dict(scope["headers"])[b"host"], message["more_body"]))
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    emulator = Emulator(duration=0)
    with emulator:
        emulator.configure(deliver_to=app)
        await create(emulator)
        await emulator.settle()

    loop = asyncio.get_running_loop()
    assert seen[0] == (loop, threading.get_ident(), b"/hooks/swap%20done")
    assert seen[1] == (b"shop=7&a=%2F", b"shop.example.com", False)
    assert emulator.deliveries[0].attempts[0].status == 201


async def test_an_app_without_a_response_is_an_error() -> None:
    """As a connection that is closed would be."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        return

    async with Emulator(clock=VirtualClock(), duration=0, deliver_to=app) as emulator:
        await create(emulator)
        await emulator.settle()
        (attempt,) = emulator.deliveries[0].attempts

    assert (attempt.status, attempt.error) == (None, "ValueError: the app sent no response")
