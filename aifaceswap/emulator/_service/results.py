"""Result images behind signed links: who has a valid link may read, in whole or in part."""

from __future__ import annotations

import email.utils
import functools
import hashlib
import hmac
import math
import re
from typing import TYPE_CHECKING

import attrs

from aifaceswap.emulator._service import ids, images
from aifaceswap.emulator._service.errors import Problem, Refused, method_not_allowed, not_found
from aifaceswap.emulator._service.messages import ServerResponse
from aifaceswap.emulator._service.schema import read_query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aifaceswap.emulator._service.messages import ServerRequest
    from aifaceswap.emulator._service.state import ServiceState, StoredSwap

PREFIX = "/results/"

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_CONTENT_TYPES = {"gif": "image/gif", "image": "image/jpeg"}
_SUFFIXES = {"gif": "gif", "image": "jpg"}
_FORBIDDEN = Problem(403, "forbidden", "This link is not valid, or not any more.")

# Images cost milliseconds and are made again from the id at any time.
_draw = functools.lru_cache(maxsize=64)(images.make_image)


@attrs.define(eq=False)
class ResultLinks:
    """Makes links to results, and responses them."""

    state: ServiceState
    ttl: float
    origin: str = ""
    _key: bytes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._key = ids.digest(self.state.seed, "result links", size=32)

    def find_origin(self, request: ServerRequest) -> str:
        """How the client reached the emulator: a container has other names for it than we."""
        host = request.headers.get("Host", "")
        return f"http://{host}" if _HOST.fullmatch(host) else self.origin

    def link(self, swap: StoredSwap, now: float, origin: str | None = None) -> str:
        """The URL of a finished swap's image, valid for `ttl` seconds."""
        path = f"{PREFIX}{swap.id}.{_SUFFIXES[swap.params.type]}"
        expires = math.ceil(now + self.ttl)
        signed = f"{path}?expires={expires}&signature={self._sign(path, str(expires))}"
        return (origin or self.origin) + signed

    def _sign(self, path: str, expires: str) -> str:
        return hmac.digest(self._key, f"{path}?{expires}".encode(), hashlib.sha256).hex()

    def respond(self, request: ServerRequest, now: float) -> ServerResponse:
        """The image, a part of it, or a refusal.

        Raises:
            Refused: The method, the link or the range is not right.
        """
        if request.method not in {"GET", "HEAD"}:
            raise method_not_allowed(request.method, ["GET", "HEAD"])
        self._check_link(request, now)
        swap = self.state.find(request.path.removeprefix(PREFIX).rpartition(".")[0])
        if swap is None:
            raise not_found()
        return serve(swap, request.headers)

    def _check_link(self, request: ServerRequest, now: float) -> None:
        query = read_query(request.query, "expires", "signature")
        expires = query.get("expires", "")
        wanted = self._sign(request.path, expires).encode()
        given = query.get("signature", "").encode(errors="replace")
        if not hmac.compare_digest(wanted, given) or int(expires) < now:
            raise Refused(_FORBIDDEN)


def serve(swap: StoredSwap, headers: Mapping[str, str]) -> ServerResponse:
    """The image of a finished swap, or the part of it that a Range header asks for.

    Raises:
        Refused: No byte of it is in the range.
    """
    image = _draw(swap.id, swap.params.type)
    etag = f'"{hashlib.blake2b(image, digest_size=8).hexdigest()}"'
    modified = email.utils.formatdate(swap.finish, usegmt=True)
    common = (
        ("Content-Type", _CONTENT_TYPES[swap.params.type]),
        ("ETag", etag),
        ("Last-Modified", modified),
        ("Accept-Ranges", "bytes"),
    )
    if headers.get("If-Range", etag) not in {etag, modified}:
        return ServerResponse(200, common, image)
    part = read_range(headers.get("Range"), len(image))
    if part is None:
        return ServerResponse(200, common, image)
    place = f"bytes {part.start}-{part.stop - 1}/{len(image)}"
    return ServerResponse(206, (*common, ("Content-Range", place)), image[part.start : part.stop])


def read_range(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for; None for all: no single range in bytes.

    Raises:
        Refused: No byte of a image of `size` bytes is in the range.
    """
    match = _RANGE.fullmatch((header or "").strip())
    first, last = match.groups() if match else ("", "")
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise Refused(_unsatisfiable(size))
    return range(start, stop)


def _unsatisfiable(size: int) -> Problem:
    where = (("Content-Range", f"bytes */{size}"),)
    return Problem(416, "range_not_satisfiable", "No byte is in this range.", where)
