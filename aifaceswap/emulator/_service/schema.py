"""What comes in: JSON bodies and queries become checked values, or a `validation_error`."""

from __future__ import annotations

import functools
import ipaddress
import json
import math
import re
import socket
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlsplit

import attrs

from aifaceswap.emulator._service.errors import Problem, Rejected, invalid
from aifaceswap.emulator._service.files import is_local_file

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = ("image", "gif")
LONGEST_URL = 8192
DEEPEST_JSON = 64
DEFAULT_PAGE = 25
LARGEST_PAGE = 100

_LONGEST_LABEL = 63
_LOCAL = frozenset({"localhost", "local", "internal"})
# With the reserved names that never resolve. Example domains are reachable.
_UNREACHABLE = _LOCAL | {"invalid", "test"}
_LIMIT = re.compile(r"[0-9]{1,9}")
# Nearly every URL, at a tenth of the cost of taking it apart.
_PLAIN_URL = re.compile(r"https://([a-z0-9.-]+)(?:[/?#][!#-;=?-\[\]^-~]*)?")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\<>\"]")


@attrs.frozen
class SwapParams:
    """The checked body of a create request."""

    type: str
    source_url: str
    target_url: str
    webhook_url: str | None
    target_face_index: int | None
    enable_face_enhancer: bool | None
    metadata: dict[str, Any] | None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant).decode
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def read_json(body: bytes) -> object:
    """Decode a body strictly: UTF-8, no NaN, not nested too deep; may raise `Rejected`."""
    try:
        value: object = _decode(body.decode())
    except UnicodeDecodeError:
        raise invalid("The body is not UTF-8.") from None
    except RecursionError:
        raise invalid("The body is nested too deep.") from None
    except ValueError as error:
        raise invalid(f"The body is not JSON: {str(error)[:80]}.") from None
    if body.count(b"{") + body.count(b"[") > DEEPEST_JSON:
        _check_depth(value, DEEPEST_JSON)
    return value


def _check_depth(value: object, left: int) -> None:
    if isinstance(value, dict):
        value = list(cast("dict[str, object]", value).values())
    if not isinstance(value, list):
        return
    if not left:
        raise invalid("The body is nested too deep.")
    for item in cast("list[object]", value):
        _check_depth(item, left - 1)


def are_same(one: SwapParams, other: SwapParams) -> bool:
    """Whether two create requests ask for the same swap, however their JSON was written."""
    # By their JSON, because True == 1 in Python.
    return _canonical(attrs.asdict(one)) == _canonical(attrs.asdict(other))


def read_swap(value: object) -> SwapParams:
    """Check the body of a create request: unknown fields are ignored, null means absent."""
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    body = cast("dict[str, object]", value)
    return SwapParams(
        _read_type(body),
        _read_source(body, "source_url"),
        _read_source(body, "target_url"),
        _read_webhook(body),
        _read_face_index(body),
        _read_enhancer(body),
        _read_metadata(body),
    )


def _read_type(body: dict[str, object]) -> str:
    value = body.get("type")
    for known in TYPES:
        if value == known:
            return known
    raise invalid(f"type: must be {' or '.join(map(repr, TYPES))}.")


def _read_source(body: dict[str, object], field: str) -> str:
    given = body.get(field)
    if isinstance(given, str) and len(given) <= LONGEST_URL and is_local_file(given):
        return given
    url, host = _read_url(body, field)
    if not _is_public(host, _UNREACHABLE):
        raise Rejected(_unreachable(field))
    return url


def _read_webhook(body: dict[str, object]) -> str | None:
    if body.get("webhook_url") is None:
        return None
    url, host = _read_url(body, "webhook_url")
    if not _is_public(host, _LOCAL):
        raise invalid("webhook_url: must be on a public host.")
    return url


def _read_url(body: dict[str, object], field: str) -> tuple[str, str]:
    value = body.get(field)
    if not isinstance(value, str):
        raise invalid(f"{field}: must be a public https URL.")
    plain = _PLAIN_URL.fullmatch(value)
    if plain and len(value) <= LONGEST_URL:
        return value, plain[1]
    try:
        return value, _find_host(value)
    except ValueError as error:
        raise invalid(f"{field}: {error}.") from None


def _find_host(url: str) -> str:
    if len(url) > LONGEST_URL:
        raise ValueError(f"must have at most {LONGEST_URL} characters")
    if _UNSAFE.search(url):
        raise ValueError("must be a public https URL without spaces and control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must be a public https URL") from None
    if port == 0:
        raise ValueError("must have a port from 1 to 65535")
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("must be an https URL")
    return parts.hostname


def _unreachable(field: str) -> Problem:
    return Problem(400, "source_unreachable", f"{field}: must be on a public host.")


@functools.lru_cache(maxsize=1024)
def _is_public(host: str, closed: frozenset[str]) -> bool:
    name = host.rstrip(".")
    if (address := _parse_address(name)) is not None:
        return address.is_global and not address.is_multicast
    labels = name.split(".")
    resolves = all(0 < len(label) <= _LONGEST_LABEL for label in labels)
    return len(labels) > 1 and resolves and labels[-1].lower() not in closed


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _parse_legacy_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


def _parse_legacy_address(host: str) -> ipaddress.IPv4Address | None:
    # 127.1, 0x7f000001 and 2130706433 are 127.0.0.1 to most fetchers.
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None


def _read_face_index(body: dict[str, object]) -> int | None:
    value = body.get("target_face_index")
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 1.0 is 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid("target_face_index: must be an integer of at least 0.")
    return value


def _read_enhancer(body: dict[str, object]) -> bool | None:
    value = body.get("enable_face_enhancer")
    if value is None or isinstance(value, bool):
        return value
    raise invalid("enable_face_enhancer: must be true or false.")


def _read_metadata(body: dict[str, object]) -> dict[str, Any] | None:
    value = body.get("metadata")
    if value is None or isinstance(value, dict):
        return cast("dict[str, Any] | None", value)
    raise invalid("metadata: must be a JSON object.")


def read_query(query: str, *names: str) -> dict[str, str]:
    """Return the named parameters of a raw query; may raise `Rejected`."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise invalid("The query has too many parameters.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise invalid(f"{name}: must be given once.")
        if name in names:
            found[name] = value
    return found


def read_limit(query: Mapping[str, str]) -> int:
    """Return the page size of a query; may raise `Rejected`."""
    text = query.get("limit")
    if text is None:
        return DEFAULT_PAGE
    if not _LIMIT.fullmatch(text) or not 1 <= int(text) <= LARGEST_PAGE:
        raise invalid(f"limit: must be an integer from 1 to {LARGEST_PAGE}.")
    return int(text)
