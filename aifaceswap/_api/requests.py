"""The API's requests as values: built, checked and frozen before the first attempt. No I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

import attrs

from aifaceswap import _validation
from aifaceswap._api import codec
from aifaceswap._limits import DEFAULT_PAGE_SIZE
from aifaceswap._version import __version__
from aifaceswap.errors import (
    InvalidRequestError,
)
from aifaceswap.models import (
    Account,
    FileSource,
    Swap,
    SwapPage,
    SwapRequest,
    SwapType,
)

T = TypeVar("T")

USER_AGENT = f"aifaceswap-python/{__version__}"
MAX_DOWNLOAD = 512 * 1024 * 1024
# The two highest bits of a uuid4's 17th digit are 1 and 0.
_UUID_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}

_READS = frozenset({"GET", "HEAD", "OPTIONS"})

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_JSON_HEADERS: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"})

Purpose = Literal["create", "read", "poll"]


@attrs.frozen(kw_only=True)
class Call(Generic[T]):
    """One operation, complete before its first attempt.

    Attributes:
        method: The HTTP method.
        path: The path below the base URL, with its query, percent-encoded.
        into: The type of the decoded response.
        body: The bytes that every attempt sends.
        headers: Headers of this call alone.
        idempotency_key: The key that every attempt sends; None for a call that only reads.
        is_repeated: Whether an earlier call may have sent the key: it may be in progress.
        purpose: The priority of the call in the rate limiter.
        template: The path without its query, with placeholders for ids; None if unknown.
        swap_id: The swap that the response must be about; None: any.
    """

    method: str
    path: str
    into: type[T]
    body: bytes | None = None
    headers: Mapping[str, str] = _NO_HEADERS
    idempotency_key: str | None = None
    is_repeated: bool = False
    purpose: Purpose = "read"
    template: str | None = None
    swap_id: str | None = None


def create_swap(request: SwapRequest, idempotency_key: str | None = None) -> Call[Swap]:
    """POST /swaps, with the caller's key or a new one."""
    is_repeated = idempotency_key is not None
    return post_swap(swap_body(request), _key(idempotency_key), is_repeated=is_repeated)


def swap_body(request: SwapRequest) -> bytes:
    """The body of POST /swaps."""
    return _json_body(request, "metadata", request.metadata)


def local_files(request: SwapRequest) -> dict[str, FileSource]:
    """The local files of a request, by the names of their fields."""
    given = {"source": request.source, "target": request.target}
    return {name: file for name, file in given.items() if file is not None}


def with_urls(request: SwapRequest, urls: Mapping[str, str], *, is_gif: bool) -> SwapRequest:
    """The request with URLs in place of its files, and with the type that its target shows."""
    changes: dict[str, Any] = dict.fromkeys(urls)
    changes |= {f"{name}_url": url for name, url in urls.items()}
    if request.type is None:
        changes["type"] = SwapType.GIF if is_gif else SwapType.IMAGE
    return attrs.evolve(request, **changes)


def post_swap(body: bytes, idempotency_key: str, *, is_repeated: bool = False) -> Call[Swap]:
    """POST /swaps with a given body and key; `is_repeated` if they may have been sent before."""
    return Call(
        method="POST",
        path="/swaps",
        into=Swap,
        body=body,
        headers=_JSON_HEADERS,
        idempotency_key=idempotency_key,
        is_repeated=is_repeated,
        purpose="create",
        template="/swaps",
    )


def get_swap(swap_id: str, *, purpose: Purpose = "read") -> Call[Swap]:
    """GET /swaps/{id}."""
    return Call(
        method="GET",
        path=f"/swaps/{_validation.swap_id(swap_id)}",
        into=Swap,
        purpose=purpose,
        template="/swaps/{id}",
        swap_id=swap_id,
    )


def list_swaps(
    limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None, *, purpose: Purpose = "read"
) -> Call[SwapPage]:
    """GET /swaps."""
    params = {"limit": str(_validation.page_limit(limit))}
    if cursor is not None:
        params["cursor"] = _validation.cursor(cursor)
    path = f"/swaps{_validation.query(params)}"
    return Call(method="GET", path=path, into=SwapPage, purpose=purpose, template="/swaps")


def get_account() -> Call[Account]:
    """GET /me."""
    return Call(method="GET", path="/me", into=Account, template="/me")


def any_request(
    method: str,
    path: str,
    *,
    into: type[T],
    json: object = None,
    content: bytes | None = None,
    params: Mapping[str, str | float] | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Call[T]:
    """Any request below the base URL; all but reads carry an idempotency key."""
    method = _validation.method(method)
    if json is not None and content is not None:
        raise InvalidRequestError.for_field("content", content, "must not be combined with json")
    sent = _validation.headers(headers or {})
    if json is not None:
        content = _json_body(json, "json", json)
        sent.setdefault("Content-Type", "application/json")
    return Call(
        method=method,
        path=_validation.path(path) + _validation.query(params or {}),
        into=into,
        body=None if content is None else _validation.content(content),
        headers=sent,
        idempotency_key=None if method in _READS else _key(idempotency_key),
        is_repeated=idempotency_key is not None,
    )


def _json_body(body: object, field: str, value: object) -> bytes:
    try:
        return codec.dumps(body)
    except (TypeError, ValueError) as error:
        reason = f"must be JSON serializable ({error})"
        raise InvalidRequestError.for_field(field, value, reason) from None


def _key(given: str | None) -> str:
    return new_idempotency_key() if given is None else _validation.idempotency_key(given)


def new_idempotency_key() -> str:
    """A new key: a uuid4, as the service documents it."""
    # Written out: the uuid module takes four times as long, on every call.
    digits = os.urandom(16).hex()
    variant = _UUID_VARIANT[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
