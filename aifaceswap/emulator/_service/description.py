"""The OpenAPI description of the API, as the emulator serves it."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import TYPE_CHECKING

from aifaceswap.emulator._service.errors import method_not_allowed
from aifaceswap.emulator._service.messages import ServerResponse

if TYPE_CHECKING:
    from aifaceswap.emulator._service.messages import ServerRequest

PATH = "/openapi.json"


def respond(request: ServerRequest, api: str) -> ServerResponse:
    """Return the description with `api` as its only server; may raise `Rejected`."""
    if request.method not in {"GET", "HEAD"}:
        raise method_not_allowed(request.method, ["GET", "HEAD"])
    return ServerResponse(200, (("Content-Type", "application/json"),), _describe(api))


@functools.cache
def _describe(api: str) -> bytes:
    text = (
        importlib.resources.files("aifaceswap.emulator._service")
        .joinpath("openapi.json")
        .read_bytes()
    )
    # A tool that reads the description here must not continue to the real service.
    return json.dumps({**json.loads(text), "servers": [{"url": api}]}, indent=2).encode()
