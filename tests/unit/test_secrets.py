"""Keys and proxy passwords: in no frame, message or pickle, whatever is reported of an error."""

from __future__ import annotations

import asyncio
import base64
import copy
import os
import pickle
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

import aifaceswap
from aifaceswap import AsyncClient, Client, webhooks
from aifaceswap.cli.doctor.checks import Settings
from support.leaks import places
from support.scripted import Received, ScriptedServer, answer, raw, reset, stall

# Never in a local of a test: only what the package's own frames hold is judged.
KEY = "key_live_zq9'Secret&0123456789"
PASSWORD = "pw_zq9Secret_0123456789"
CREDENTIALS = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
URLS: dict[str, Any] = {"source_url": "https://e.com/f.jpg", "target_url": "https://e.com/t.jpg"}


@pytest.fixture(autouse=True)
def _key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIFACESWAP_API_KEY", KEY)


def bad_key() -> None:
    os.environ["AIFACESWAP_API_KEY"] = f"{KEY} x"
    Client()


CONSTRUCTORS: dict[str, Callable[[], object]] = {
    "base_url": lambda: AsyncClient(base_url="http://api.example.com/v1"),
    "argument": lambda: AsyncClient(KEY, base_url="http://api.example.com/v1"),
    "timeout": lambda: Client(KEY, timeout=-1),
    "max_wait": lambda: Client(max_wait=-1),
    "retries": lambda: AsyncClient(KEY, max_retries=-1),
    "budget": lambda: Client(budget=3),  # type: ignore[arg-type]
    "space in the environment": bad_key,
    "space in the argument": lambda: AsyncClient(f"Bearer {KEY}"),
    "bytes": lambda: AsyncClient(KEY.encode()),  # type: ignore[arg-type]
    "list": lambda: Client([KEY]),  # type: ignore[arg-type]
    "proxy": lambda: AsyncClient(proxy=f"http://user:{PASSWORD}@"),
    "proxy's port": lambda: Client(proxy=f"http://user:{PASSWORD}@proxy.example:99999"),
    "other argument with a proxy": lambda: Client(proxy=f"http://u:{PASSWORD}@x", timeout=0),
    "WebhookApp": lambda: webhooks.WebhookApp(print, [KEY], tolerance=-1),
    "WebhookApp without a handler": lambda: webhooks.WebhookApp(None, KEY),
    "WebhookApp with a bad key": lambda: webhooks.WebhookApp(print, (KEY, f"{KEY} {KEY}")),
    "aiohttp_handler": lambda: webhooks.aiohttp_handler(print, {KEY}, max_body=0),
    "sign": lambda: webhooks.sign("x", KEY),  # type: ignore[arg-type]
    "parse": lambda: webhooks.parse("x", None, KEY),  # type: ignore[arg-type]
    "forged": lambda: webhooks.parse(b"{}", "t=1,v1=" + "0" * 64, [KEY]),
    "forged, verify": lambda: webhooks.verify(b"{}", "t=1,v1=" + "0" * 64, iter([KEY])),
    "not an event": lambda: webhooks.parse(b"[]", webhooks.sign(b"[]", KEY), [KEY]),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_an_error_without_a_call_shows_no_secret(name: str) -> None:
    """Constructors and deliveries: not by rich, Sentry or a look at the frames."""
    with pytest.raises((aifaceswap.AIFaceSwapError, TypeError)) as caught:
        CONSTRUCTORS[name]()

    assert places(caught.value, KEY, PASSWORD) == []


async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
    """A firewall's page that repeats the request, plain and escaped."""
    key = request.headers["authorization"]
    page = f"<p>Blocked: {key} {key.replace(chr(39), '&#x27;').replace('&0', '&amp;0')}"
    await answer(403, page.encode(), {"Content-Type": "text/html", "X-Seen": key})(request, writer)


async def unreadable(request: Received, writer: asyncio.StreamWriter) -> None:
    await answer(200, f"Hello {request.headers['authorization']}".encode())(request, writer)


CALLS: dict[str, Any] = {
    "refused": raw(b""),
    "reset": reset,
    "stalls": stall,
    "not HTTP": raw(b"HTTP/9\r\n\r\n"),
    "500": answer(500, b"no"),
    "echo": echo,
    "unreadable echo": unreadable,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("call", ["me", "create"])
async def test_an_error_of_a_call_shows_no_secret(name: str, call: str) -> None:
    """Also of a body or header in which a server repeats what it received."""
    async with (
        ScriptedServer(CALLS[name]) as server,
        AsyncClient(base_url=server.base_url, budget=None, max_retries=0, timeout=5) as client,
    ):
        made = client.me() if call == "me" else client.swaps.create(**URLS)
        with pytest.raises(aifaceswap.AIFaceSwapError) as caught:
            await made
        error = caught.value

    assert any(KEY in request.headers["authorization"] for request in server.requests)
    assert places(error, KEY) == []
    assert "zq9" not in f"{vars(error)}"
    assert b"zq9" not in pickle.dumps(error)


@pytest.mark.parametrize("base_url", ["https://api.example.com/v1", None])
@pytest.mark.parametrize("injected", [False, True])
async def test_a_call_that_is_cancelled_shows_no_secret(
    base_url: str | None, injected: bool
) -> None:
    """Its traceback passes aiohttp's own frames, and those of a CONNECT to a proxy."""
    async with ScriptedServer(stall) as server, aiohttp.ClientSession() as session:
        proxy = f"http://user:{PASSWORD}@127.0.0.1:{server.port}" if base_url else None
        client = AsyncClient(
            base_url=base_url or server.base_url,
            budget=None,
            proxy=proxy,
            session=session if injected else None,
        )
        del proxy
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(3):
                await client.me()
        await client.aclose()
        seen = server.requests[0].headers

    assert seen["proxy-authorization" if base_url else "authorization"].endswith(
        CREDENTIALS if base_url else KEY
    )
    assert places(caught.value, KEY, PASSWORD, CREDENTIALS) == []


async def test_a_proxy_that_repeats_its_credentials() -> None:
    """In the reason phrase of its refusal."""

    async def refuse(request: Received, writer: asyncio.StreamWriter) -> None:
        credentials = request.headers["proxy-authorization"]
        writer.write(f"HTTP/1.1 407 {credentials}\r\nContent-Length: 0\r\n\r\n".encode())

    async with ScriptedServer(refuse) as server:
        client = AsyncClient(
            base_url="https://api.example.com/v1",
            proxy=f"http://user:{PASSWORD}@127.0.0.1:{server.port}",
            max_retries=0,
        )
        with pytest.raises(aifaceswap.APIConnectionError) as caught:
            await client.me()
        await client.aclose()

    assert places(caught.value, CREDENTIALS) == []


def objects() -> dict[str, object]:
    client, blocking = AsyncClient(KEY, budget=None), Client(KEY, budget=None)
    app = webhooks.WebhookApp(print, keys=[KEY])
    with_proxy = AsyncClient(KEY, budget=None, proxy=f"http://u:{PASSWORD}@127.0.0.1:1")
    return {
        "client": client,
        "swaps": client.swaps,
        "method": client.swaps.create,
        "core": client._resources,
        "transport": client._resources.transport,
        "transport with a proxy": with_proxy._resources.transport,
        "watcher": client._resources.watcher,
        "bulk": client.swaps.bulk([]),
        "blocking client": blocking,
        "blocking swaps": blocking.swaps,
        "app": app,
        "receiver": app._receiver,
        "aiohttp handler": webhooks.aiohttp_handler(print, keys=[KEY]),
        "doctor's settings": Settings.check(KEY, "https://a.example/v1"),
    }


@pytest.mark.parametrize("name", objects())
def test_no_object_pickles_or_shows_a_secret(name: str) -> None:
    """A pickle goes to a queue or a disk; a repr to a log."""
    held = objects()[name]

    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as caught:
        pickle.dumps(held)
    assert places(caught.value, KEY) == []
    shown = f"{held!r} {vars(held) if hasattr(held, '__dict__') else ''}"
    assert KEY not in shown
    assert PASSWORD not in shown


def test_an_app_that_holds_keys_can_be_copied() -> None:
    """Litestar copies its handlers deeply."""
    app = copy.deepcopy(webhooks.WebhookApp(print, keys=[KEY]))

    assert app._receiver.verify(b"[]", webhooks.sign(b"[]", KEY)).reason == "body_malformed"


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_a_key_from_a_file_can_end_in_a_newline(end: str) -> None:
    """In the arguments of clients, apps and functions as in the environment."""
    body = b'{"event":"swap.completed","id":"tsk_1"}'
    header = webhooks.sign(body, f"{KEY}{end}")
    AsyncClient(f"{KEY}{end}")
    receiver = webhooks.WebhookApp(print, f"{KEY}{end}")._receiver

    assert webhooks.parse(body, header, [f"{KEY}{end}"]) == webhooks.parse(body, header, KEY)
    assert receiver.verify(body, header).status == 204
