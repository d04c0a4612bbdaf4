"""The example apps, each in a process of its own, and the customers who use them over HTTP."""

from __future__ import annotations

import html
import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs
import pytest

from support.samples import TARGET

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
NEEDS = {
    "aiohttp": (),
    "django": ("django", "uvicorn"),
    "fastapi": ("fastapi", "uvicorn"),
    "flask": ("flask",),
}
INSTANT = "https://example.com/instant.jpg"
FOREVER = "https://example.com/forever.jpg"
TIMEOUT = 90.0


def require(name: str) -> None:
    """Skip where an example's framework is not installed."""
    missing = [module for module in NEEDS[name] if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@attrs.frozen
class Reply:
    """An answer of an app."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object."""
        value: dict[str, Any] = json.loads(self.body)
        return value


def send_request(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """One request on a connection of its own; redirects are not followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


@attrs.frozen
class OrderState:
    """What a customer sees of an order."""

    progress: float
    result_url: str | None
    error: str | None
    ended: bool


class Customer:
    """Uses the JSON interface, as page.html does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, order: str, **fields: str) -> Reply:
        """Send an order, once."""
        return send_request(
            "PUT",
            f"{self.url}/orders/{order}",
            json.dumps(fields).encode(),
            {"Content-Type": "application/json"},
        )

    def problem(self, reply: Reply) -> str:
        """The error message that the customer sees."""
        return str(reply.json["error"])

    def fetch_state(self, order: str) -> OrderState:
        """The current state of an order."""
        seen = send_request("GET", f"{self.url}/orders/{order}").json
        return OrderState(seen["progress"], seen["result_url"], seen["error"], seen["ended"])

    def order(self, source: str = INSTANT, target: str = TARGET, order: str | None = None) -> str:
        """Send an order until it is accepted, retrying after Retry-After; its id."""
        order = order or str(uuid.uuid4())
        deadline = time.monotonic() + TIMEOUT
        reply = self.send(order, source_url=source, target_url=target)
        while reply.status == 503 and "Retry-After" in reply.headers:
            assert time.monotonic() < deadline, reply
            time.sleep(float(reply.headers["Retry-After"]))
            reply = self.send(order, source_url=source, target_url=target)
        assert reply.status in {202, 302, 303}, reply
        return order

    def watch(self, order: str) -> list[OrderState]:
        """Poll until an order has finished."""
        deadline = time.monotonic() + TIMEOUT
        states = [self.fetch_state(order)]
        while not states[-1].ended:
            assert time.monotonic() < deadline, states
            time.sleep(0.1)
            states.append(self.fetch_state(order))
        return states


class FormCustomer(Customer):
    """Fills in the form, and keeps its cookie."""

    def send(self, order: str, **fields: str) -> Reply:
        page = send_request("GET", f"{self.url}/")
        cookie = page.headers.get("Set-Cookie", "").partition(";")[0]
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        form = {"id": order, **fields}
        if token:
            form["csrfmiddlewaretoken"] = token[1]
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
        return send_request("POST", f"{self.url}/orders", urlencode(form).encode(), headers)

    def problem(self, reply: Reply) -> str:
        found = re.search(r'role="alert"[^>]*>([^<]*)<', reply.text)
        assert found, reply.text
        return html.unescape(found[1])

    def fetch_state(self, order: str) -> OrderState:
        page = send_request("GET", f"{self.url}/orders/{order}").text
        bar = re.search(r'<progress max="100" value="([\d.]+)"', page)
        picture = re.search(r'<img src="([^"]+)"', page)
        alert = re.search(r'role="alert"[^>]*>([^<]*)<', page)
        return OrderState(
            progress=float(bar[1]) if bar else 100.0,
            result_url=html.unescape(picture[1]) if picture else None,
            error=html.unescape(alert[1]) if alert else None,
            ended='http-equiv="refresh"' not in page,
        )


@attrs.define(eq=False)
class App:
    """An example that runs."""

    name: str
    process: subprocess.Popen[str]
    output: Path

    @property
    def text(self) -> str:
        """All that it has printed."""
        return self.output.read_text("utf-8")

    def find(self, pattern: str) -> str:
        """Wait until a line is printed; what stands in its group."""
        deadline = time.monotonic() + TIMEOUT
        while not (found := re.search(pattern, self.text)):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)
        return found[1]

    @property
    def url(self) -> str:
        """Where it is."""
        return self.find(r"^(?:.*\n)*Open (\S+)/ ")

    def customer(self) -> Customer:
        """A new customer."""
        kind = FormCustomer if self.name in {"django", "flask"} else Customer
        return kind(self.url)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)


@contextmanager
def running(
    name: str, folder: Path, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[App]:
    """Start an example; it is stopped at the end, and must have ended cleanly."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    output = folder / f"{uuid.uuid4()}.txt"
    with output.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"{name}_app.py"), *options],
            cwd=folder,
            env={**kept, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            text=True,
        )
    app = App(name, process, output)
    try:
        yield app
        if process.poll() is None:
            assert app.stop() == 0, app.text
        assert "Traceback" not in app.text, app.text
    finally:
        process.kill()
        process.wait()
