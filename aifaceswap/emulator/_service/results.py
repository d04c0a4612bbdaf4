"""Result images behind signed links: everybody with a valid link can read them."""

from __future__ import annotations

import email.utils
import functools
import hashlib
import hmac
import math
import re
import time
from calendar import timegm
from typing import TYPE_CHECKING, Final

import attrs

from aifaceswap.emulator._service import ids, images
from aifaceswap.emulator._service.errors import Problem, Rejected, method_not_allowed, not_found
from aifaceswap.emulator._service.messages import ServerResponse
from aifaceswap.emulator._service.schema import read_query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aifaceswap.emulator._service.messages import ServerRequest
    from aifaceswap.emulator._service.state import ServiceState, StoredSwap
    from aifaceswap.emulator.settings import ResultLinks

PREFIX = "/results/"

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_CONTENT_TYPES = {"gif": "image/gif", "image": "image/jpeg"}
_SUFFIXES = {"gif": ".gif", "image": ".jpg"}
_CODES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 410: "gone"}
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_SIGNED_BY: Final = "AWS4-HMAC-SHA256"
_XML: Final = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message></Error>
"""

# Images cost milliseconds and can be drawn again from the id at any time.
_draw = functools.lru_cache(maxsize=64)(images.make_image)


@attrs.define(eq=False)
class ResultStore:
    """Creates links to results and serves them.

    Attributes:
        ttl: Seconds that a link is valid.
        style: What links are like.
        origin: Where the emulator is, for links of nobody's request.
    """

    state: ServiceState
    ttl: float
    style: ResultLinks
    origin: str = ""
    _key: bytes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._key = ids.digest(self.state.seed, "result links", size=32)

    def find_origin(self, request: ServerRequest) -> str:
        """Return how the client reached the emulator: a container has another name for it."""
        host = request.headers.get("Host", "")
        # Behind a proxy that ends TLS: clients accept plain http on loopback alone.
        scheme = "https" if request.headers.get("X-Forwarded-Proto") == "https" else "http"
        return f"{scheme}://{host}" if _HOST.fullmatch(host) else self.origin

    def link(self, swap: StoredSwap, now: float, origin: str | None = None) -> str:
        """Return the URL of a finished swap's image, valid for `ttl` seconds."""
        suffix = self.style.suffix or _SUFFIXES[swap.params.type]
        make = self._presign if self.style.presigned else self._sign_plainly
        return (self.style.origin or origin or self.origin) + make(f"{swap.id}{suffix}", now)

    def _sign_plainly(self, name: str, now: float) -> str:
        path, expires = PREFIX + name, str(math.ceil(now + self.ttl))
        return f"{path}?expires={expires}&signature={self._sign(path, expires)}"

    def _presign(self, name: str, now: float) -> str:
        path = f"{PREFIX}uploads/{ids.user_id(self.state.seed)}/outputs/{name}"
        stamp, ttl = time.strftime(_STAMP, time.gmtime(now)), str(math.ceil(self.ttl))
        return (
            f"{path}?X-Amz-Algorithm={_SIGNED_BY}"
            f"&X-Amz-Credential=emulator%2F{stamp[:8]}%2Fauto%2Fs3%2Faws4_request"
            f"&X-Amz-Date={stamp}&X-Amz-Expires={ttl}&X-Amz-SignedHeaders=host"
            f"&X-Amz-Signature={self._sign(path, stamp + ttl)}"
        )

    def _sign(self, path: str, times: str) -> str:
        return hmac.digest(self._key, f"{path}?{times}".encode(), hashlib.sha256).hex()

    def respond(self, request: ServerRequest, now: float) -> ServerResponse:
        """Return the image or a part of it; may raise `Rejected`."""
        if request.method not in {"GET", "HEAD"}:
            raise method_not_allowed(request.method, ["GET", "HEAD"])
        rejection = self._check_link(request, now)
        if rejection is not None:
            return rejection
        swap = self.state.find(request.path.rpartition("/")[2].rpartition(".")[0])
        if swap is None:
            raise not_found()
        return serve(swap, request.headers)

    def _check_link(self, request: ServerRequest, now: float) -> ServerResponse | None:
        query = read_query(request.query, *_PARAMETERS)
        presigned = "X-Amz-Signature" in query
        if presigned:
            times = query.get("X-Amz-Date", "") + query.get("X-Amz-Expires", "")
        else:
            times = query.get("expires", "")
        given = query.get("X-Amz-Signature" if presigned else "signature", "")
        wanted = self._sign(request.path, times).encode()
        if not hmac.compare_digest(wanted, given.encode(errors="replace")):
            return _reject(403, "The signature of this link is wrong.", as_xml=presigned)
        # The signature proves that the times were written here.
        if presigned:
            start = timegm(time.strptime(query["X-Amz-Date"], _STAMP))
            end = start + int(query["X-Amz-Expires"])
        else:
            end = int(times)
        if end < now:
            return _reject(self.style.expired_status, "This link has expired.", as_xml=presigned)
        return None


_PARAMETERS: Final = ("expires", "signature", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature")


def _reject(status: int, message: str, *, as_xml: bool) -> ServerResponse:
    code = _CODES[status]
    if not as_xml:
        raise Rejected(Problem(status, code, message))
    body = _XML.format(code=code.title().replace("_", ""), message=message)
    return ServerResponse(status, (("Content-Type", "application/xml"),), body.encode(), code)


def serve(swap: StoredSwap, headers: Mapping[str, str]) -> ServerResponse:
    """Return the image of a finished swap or the part in a Range header; may raise `Rejected`."""
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
    """Return the bytes that a Range header asks for, None for all; may raise `Rejected`."""
    match = _RANGE.fullmatch((header or "").strip())
    first, last = match.groups() if match else ("", "")
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise Rejected(_unsatisfiable(size))
    return range(start, stop)


def _unsatisfiable(size: int) -> Problem:
    where = (("Content-Range", f"bytes */{size}"),)
    return Problem(416, "range_not_satisfiable", "No byte is in this range.", where)
