"""The web page at `/`: a browser's view of what `/_emulator/` shows and controls."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import re
from typing import TYPE_CHECKING, Final

from aifaceswap.emulator._service.errors import method_not_allowed
from aifaceswap.emulator._service.messages import ServerResponse

if TYPE_CHECKING:
    from aifaceswap.emulator._service.messages import ServerRequest

PATH: Final = "/"

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def check(request: ServerRequest) -> None:
    """Raise `Rejected` unless the method of a request for `PATH` is right."""
    if request.method not in {"GET", "HEAD"}:
        raise method_not_allowed(request.method, ["GET", "HEAD"])


@functools.cache
def respond() -> ServerResponse:
    """Return the page, the same for everybody: it reads `/_emulator/` for what it shows."""
    text = (
        importlib.resources.files("aifaceswap.emulator._control")
        .joinpath("page.html")
        .read_text("utf-8")
    )
    hashes = {kind: _hash(content) for kind, content in _INLINE.findall(text)}
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "connect-src 'self'; img-src 'self' data:; "
        f"script-src {hashes['script']}; style-src {hashes['style']}; "
        # What others have sent to the emulator can never become HTML.
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    headers = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", policy),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", "same-origin"),
        ("X-Content-Type-Options", "nosniff"),
    )
    return ServerResponse(200, headers, text.encode())


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
