"""What a fault changes in a response or a delivery before it is sent. No IO."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import attrs

from aifaceswap.emulator._actions import (
    Body,
    ByteOrderMark,
    ClockSkew,
    CloudflarePage,
    Headers,
    OddFields,
)
from aifaceswap.emulator._service.api import encode, retry_header
from aifaceswap.emulator._service.messages import ServerResponse
from aifaceswap.emulator._times import http_date, iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aifaceswap.emulator._actions import RequestAction

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_CHALLENGES: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE})
_TITLES: Final = {
    403: "Just a moment...",
    429: "Error 1015: You are being rate limited",
    503: "Just a moment...",
    520: "Web server is returning an unknown error",
    521: "Web server is down",
    522: "Connection timed out",
    523: "Origin is unreachable",
    524: "A timeout occurred",
    525: "SSL handshake failed",
    526: "Invalid SSL certificate",
    530: "Error 1016: Origin DNS error",
}
_PAGE: Final = """<!DOCTYPE html>
<html lang="en-US"><head><title>{title}</title></head>
<body><h1>{title}</h1><p>Error code {status}</p><p>Cloudflare Ray ID: <strong>{ray}</strong></p>
</body></html>
"""


def alter(action: RequestAction, response: ServerResponse) -> ServerResponse:
    """Return the response as the action changes it."""
    match action:
        case Body(text, content_type, status):
            changed = _replace(response.headers, {"Content-Type": content_type})
            status = status or response.status or HTTPStatus.BAD_GATEWAY
            response = ServerResponse(status, changed, text.encode())
        case CloudflarePage():
            response = _make_page(action, dict(response.headers))
        case Headers(changes, removed):
            response = attrs.evolve(response, headers=_replace(response.headers, changes, removed))
        case ByteOrderMark():
            response = attrs.evolve(response, body=_BYTE_ORDER_MARK + response.body)
        case OddFields():
            response = _change_json(response, lambda value: change_fields(action, value))
        case ClockSkew(seconds):
            headers = tuple((name, _shift(name, text, seconds)) for name, text in response.headers)
            skewed = attrs.evolve(response, headers=headers)
            response = _change_json(skewed, lambda value: skew_swaps(value, seconds))
        case _:
            pass
    return response


def _make_page(action: CloudflarePage, headers: dict[str, str]) -> ServerResponse:
    status, request_id = action.status, headers.get("x-request-id", "")
    ray = hashlib.blake2b(request_id.encode(), digest_size=8).hexdigest()
    page = _PAGE.format(title=_TITLES.get(status, "Error"), status=status, ray=ray)
    return ServerResponse(
        status,
        (
            ("Content-Type", "text/html; charset=UTF-8"),
            ("Server", "cloudflare"),
            ("cf-ray", f"{ray}-FRA"),
            *((("cf-mitigated", "challenge"),) if status in _CHALLENGES else ()),
            *retry_header(action.retry_after),
            *((("Date", headers["Date"]),) if "Date" in headers else ()),
        ),
        page.encode(),
    )


def _replace(
    headers: tuple[tuple[str, str], ...], changes: Mapping[str, str], removed: tuple[str, ...] = ()
) -> tuple[tuple[str, str], ...]:
    gone = {name.lower() for name in (*changes, *removed)}
    kept = (header for header in headers if header[0].lower() not in gone)
    return (*kept, *changes.items())


def _change_json(response: ServerResponse, change: Callable[[Any], Any]) -> ServerResponse:
    if dict(response.headers).get("Content-Type") != "application/json":
        return response
    return attrs.evolve(response, body=encode(change(json.loads(response.body))))


def _shift(name: str, value: str, seconds: float) -> str:
    if name == "Date":
        return http_date(parsedate_to_datetime(value).timestamp() + seconds)
    return str(int(value) + round(seconds)) if name == "x-ratelimit-reset" else value


def skew_swaps(value: Any, seconds: float) -> Any:
    """Return a swap, or a page of them, with another `created_at`."""

    def skew(swap: dict[str, Any]) -> dict[str, Any]:
        created = datetime.fromisoformat(swap["created_at"]).timestamp() + seconds
        return {**swap, "created_at": iso(created)}

    return _change_swaps(value, skew)


def change_fields(action: OddFields, value: Any) -> Any:
    """Return a swap, or a page of them, with the fields of the fault."""

    def change(swap: dict[str, Any]) -> dict[str, Any]:
        changed = {**swap, **action.set}
        return {name: field for name, field in changed.items() if name not in action.remove}

    return _change_swaps(value, change)


def _change_swaps(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if "created_at" in value:
        return change(value)
    if "data" in value:
        return {**value, "data": list(map(change, value["data"]))}
    return value
