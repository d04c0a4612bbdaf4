"""Start the four examples: options, a listening socket, the emulator, a clean stop.

Your own app does not need this: use your server's command instead.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aifaceswap import InvalidRequestError, SwapRequest
from aifaceswap.emulator import Emulator

_FACE = "https://example.com/face.jpg"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an app."""

    api_key: str = field(repr=False)
    base_url: str | None  # None: the real service
    public_url: str | None  # None: no webhooks, so the client polls
    database: str

    @property
    def webhook_url(self) -> str | None:
        """The URL that the service calls when a swap finishes."""
        return self.public_url and f"{self.public_url}/hooks/swap"


@contextmanager
def start() -> Iterator[tuple[Settings, socket.socket]]:
    """Read the options; return the settings and a listening socket."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: any free port)"
    )
    parser.add_argument("--public-url", help="public https origin of this app, for webhooks")
    parser.add_argument("--emulator", action="store_true", help="use a local emulator, no key")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds for an emulated swap")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        with _listen(parser, options.port) as sock:
            url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            if options.emulator:
                # Deliveries go to `deliver_to`, whatever the webhook URL says.
                with Emulator(duration=options.duration, deliver_to=url) as emulator:
                    print(f"Emulator at {emulator.base_url}, key {emulator.api_key}")
                    print(f"Open {url}/ (Ctrl-C stops)", flush=True)
                    yield _emulated(emulator), sock
            else:
                settings = _from_environment(parser, options.public_url)
                print(f"Open {url}/ (Ctrl-C stops)", flush=True)
                yield settings, sock
    except KeyboardInterrupt:
        sys.exit(130)


def _listen(parser: argparse.ArgumentParser, port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        parser.error(f"--port {port} cannot be used: {error}")


def _emulated(emulator: Emulator) -> Settings:
    return Settings(
        api_key=emulator.api_key,
        base_url=emulator.base_url,
        public_url="https://shop.example.com",
        database=":memory:",
    )


def _from_environment(parser: argparse.ArgumentParser, public_url: str | None) -> Settings:
    settings = Settings(
        api_key=os.environ.get("AIFACESWAP_API_KEY", ""),
        base_url=os.environ.get("AIFACESWAP_BASE_URL"),
        public_url=public_url and public_url.rstrip("/"),
        database="orders.sqlite",
    )
    if not settings.api_key:
        parser.error("set AIFACESWAP_API_KEY, or use --emulator")
    try:
        SwapRequest(source_url=_FACE, target_url=_FACE, webhook_url=settings.webhook_url)
    except InvalidRequestError as error:
        parser.error(f"--public-url: {error}")
    return settings
