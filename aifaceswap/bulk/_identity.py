"""What makes two rows of two runs the same row: their content, or the caller's own name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

_DIGEST = 16


def content_identity(body: bytes) -> bytes:
    """The digest of a request's JSON; order of names and `1.0` for `1` make no difference."""
    return _digest("content", _canonical(body))


def named_identity(row_id: str) -> bytes:
    """The digest of the caller's own name of a row."""
    return _digest("row_id", row_id)


def written_place(body: bytes, written: Mapping[str, str]) -> bytes:
    """The digest of a row with local files as it is written, whatever is in the files."""
    return _digest("place", f"{_canonical(body)}{json.dumps(written, sort_keys=True)}")


def files_identity(place: bytes, hashes: Mapping[str, str]) -> bytes:
    """The digest of a row with local files: how it is written, and what is in them."""
    return _digest("files", f"{place.hex()}{json.dumps(hashes, sort_keys=True)}")


def _canonical(body: bytes) -> str:
    if b'"metadata"' not in body:  # the names that are left are always in one order
        return body.decode()
    value = json.loads(body, parse_float=_number)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(kind: str, text: str) -> bytes:
    return hashlib.sha256(f"{kind}:{text}".encode()).digest()[:_DIGEST]


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
