"""Unix seconds as the API and HTTP headers write them."""

from __future__ import annotations

import email.utils
import functools
import math
import time
from typing import Final

#: Two times closer than this are the same moment: floats of unix time are 0.24 µs apart.
TICK: Final = 1e-6

_LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z


def http_date(when: float) -> str:
    """Format `when` (unix seconds) as a `Date` header."""
    return _http_second(_to_second(when))


def iso(when: float) -> str:
    """Format `when` (unix seconds) as ISO 8601 with milliseconds and `Z`."""
    second = _to_second(when)
    return f"{_iso_second(second)}.{int((when - second) * 1000) % 1000:03d}Z"


def _to_second(when: float) -> int:
    """Return the full second, within the range of calendars."""
    return max(0, min(math.floor(when), _LAST_SECOND))


@functools.lru_cache(maxsize=1024)
def _http_second(second: int) -> str:
    return email.utils.formatdate(second, usegmt=True)


@functools.lru_cache(maxsize=1024)
def _iso_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
