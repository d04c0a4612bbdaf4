"""File names that make the emulator return a given error, or give a swap a given life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from aifaceswap.emulator._actions import Fail, Stuck
from aifaceswap.emulator._service import meter
from aifaceswap.emulator._service.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aifaceswap.emulator._actions import RequestAction


@attrs.frozen
class Life:
    """How a swap proceeds.

    Attributes:
        pace: Its duration, as a multiple of the emulator's.
        ends: Whether it ever finishes.
        fails: Whether it finishes as failed.
        error: The `error` of a failed swap.
        late_status: The status in its last third.
        stops_at: The part of its duration at which it stops, from 0 to 1.
        extra: Additional fields of the swap object.
    """

    pace: float = 1.0
    ends: bool = True
    fails: bool = False
    error: Mapping[str, Any] | str | None = None
    late_status: str = "processing"
    stops_at: float = 1.0
    extra: dict[str, object] | None = None


#: Where a swap that is stuck stops, by its status: within that of `StoredSwap.status()`.
_STOPS: Final = {"queued": 0.05, "preparing": 0.2, "processing": 0.6}


def life_of(action: RequestAction | None) -> Life | None:
    """Return the life that a fault gives to the swap it creates; None: no fault does."""
    match action:
        case Stuck(status):
            return Life(ends=False, stops_at=_STOPS[status])
        case Fail(error):
            return Life(fails=True, error=error)
        case _:
            return None


ORDINARY = Life()

_FAILURE = {"code": "processing_failed", "message": "The face could not be swapped."}

LIVES = {
    "fails.jpg": Life(fails=True, error=_FAILURE),
    "fails-bare.jpg": Life(fails=True, error="The face could not be swapped."),
    "fails-silent.jpg": Life(fails=True),
    "instant.jpg": Life(pace=0.0),
    "slow.jpg": Life(pace=10.0),
    "forever.jpg": Life(ends=False),
    "new-status.jpg": Life(late_status="enhancing"),
    "new-fields.jpg": Life(extra={"eta_seconds": 2.5, "model": {"name": "swap-9", "beta": True}}),
}

PROBLEMS = {
    "invalid.jpg": Problem(400, "validation_error", "source_url: rejected on request."),
    "unreachable.jpg": Problem(400, "source_unreachable", "The image could not be fetched."),
    "no-credits.jpg": Problem(402, "insufficient_credits", "Not enough credits."),
    "too-large.jpg": Problem(413, "payload_too_large", "The image is over the size cap."),
    "not-an-image.txt": Problem(415, "unsupported_media_type", "The file is not an image."),
    "nsfw.jpg": Problem(422, "nsfw_content_detected", "The image was rejected."),
    "rate-limited.jpg": meter.rate_limited(1),
    "rate-limited-concurrent.jpg": meter.rate_limited_concurrent(1),
    "internal-error.jpg": Problem(500, "internal_error", "Something went wrong."),
    "disabled.jpg": Problem(
        503, "api_temporarily_disabled", "The API is temporarily disabled.", meter.retry_after(1)
    ),
}

#: Apart from `PROBLEMS`, because its Retry-After depends on the time of day.
DAILY = "rate-limited-daily.jpg"


def file_name(url: str) -> str:
    """The last segment of the URL's path."""
    return url.partition("?")[0].partition("#")[0].rpartition("/")[2]


def find_problem(urls: tuple[str, ...], now: float) -> Problem | None:
    """The error that the first URL with a magic file name asks for."""
    for name in map(file_name, urls):
        if name == DAILY:
            return meter.rate_limited_daily(now)
        if name in PROBLEMS:
            return PROBLEMS[name]
    return None


def find_life(urls: tuple[str, ...]) -> Life:
    """The life that the first URL with a magic file name asks for, or the ordinary one."""
    for name in map(file_name, urls):
        if name in LIVES:
            return LIVES[name]
    return ORDINARY
