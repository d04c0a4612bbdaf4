"""What the end of a POST proves about a row. Pure functions of the error; no I/O.

Only a documented code in the error envelope proves that nothing was created, and only if no
earlier attempt may have created the swap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import cast

from aifaceswap._api.responses import is_documented_rejection
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    ConcurrencyLimitError,
    InsufficientCreditsError,
    RateLimitError,
    SwapFailedError,
)

_FOR_CONTENT = frozenset(
    {
        "validation_error",
        "payload_too_large",
        "unsupported_media_type",
        "nsfw_content_detected",
    }
)
_FOR_THIS_ROW = _FOR_CONTENT | {"source_unreachable"}
_REDIRECTS_FOR_NOW = frozenset({302, 303, 307})
_WRONG_ADDRESS = frozenset({301, 308, 404, 405})


class Verdict(Enum):
    """What to do about a POST that did not return a swap."""

    REJECTED = auto()  # the service rejected this row
    NO_CREDITS = auto()
    KEY_REJECTED = auto()
    NO_SLOT = auto()  # others hold the slot
    UNAVAILABLE = auto()  # any row would meet this now; it may pass
    WRONG_ADDRESS = auto()  # any row would meet this, until the base URL is corrected
    UNKNOWN = auto()  # nothing is proven; it may be about this row alone


# The first class that fits counts.
_BY_CLASS: tuple[tuple[type[AIFaceSwapError], Verdict], ...] = (
    (ConcurrencyLimitError, Verdict.NO_SLOT),
    (RateLimitError, Verdict.UNAVAILABLE),
    (APIConnectionError, Verdict.UNAVAILABLE),
    (AuthenticationError, Verdict.KEY_REJECTED),
    (InsufficientCreditsError, Verdict.NO_CREDITS),
)


def verdict(error: AIFaceSwapError) -> Verdict:
    """What an error of a POST says about the row and about the run."""
    for kind, found in _BY_CLASS:
        if isinstance(error, kind):
            return found
    if isinstance(error, APIStatusError):
        return _verdict_of_status(error)
    is_page = isinstance(error, APIResponseError) and not error.permanent
    return Verdict.UNAVAILABLE if is_page else Verdict.UNKNOWN


def _verdict_of_status(error: APIStatusError) -> Verdict:
    if error.code in _FOR_THIS_ROW and error.status < 500:  # noqa: PLR2004 - not a server's failure
        return Verdict.REJECTED
    if error.status in _WRONG_ADDRESS:
        return Verdict.WRONG_ADDRESS
    return Verdict.UNAVAILABLE if _is_for_all(error) else Verdict.UNKNOWN


def _is_for_all(error: APIStatusError) -> bool:
    """Whether a firewall, a proxy or a switched-off API responded, whatever the row was."""
    if error.status == 503 or error.status in _REDIRECTS_FOR_NOW:  # noqa: PLR2004 - HTTP's own
        return True
    has_page = error.code is None
    return has_page and (error.status in (403, 408) or error.status >= 500)  # noqa: PLR2004


def may_have_reached_the_api(error: AIFaceSwapError) -> bool:
    """Whether the service may have created the swap; not if only its address was wrong."""
    return error.may_have_succeeded and any(map(_leaves_open, _attempts(error)))


def is_about_content(error: AIFaceSwapError | None) -> bool:
    """Whether the same row would fail for the same reason again."""
    if isinstance(error, SwapFailedError):
        reason: object = error.swap.error if hasattr(error, "swap") else None
        if isinstance(reason, Mapping):
            reason = cast("Mapping[str, object]", reason).get("code")
        return isinstance(reason, str) and reason in _FOR_CONTENT
    return isinstance(error, APIStatusError) and error.code in _FOR_CONTENT


def _leaves_open(attempt: AIFaceSwapError) -> bool:
    has_wrong_address = getattr(attempt, "status", None) in _WRONG_ADDRESS
    is_sent = getattr(attempt, "sent", False)
    return is_sent and not has_wrong_address and not is_documented_rejection(attempt)


def _attempts(error: AIFaceSwapError) -> Iterator[AIFaceSwapError]:
    """The errors of all attempts of a call, the last one first."""
    attempt: BaseException | None = error
    while isinstance(attempt, AIFaceSwapError):
        yield attempt
        attempt = attempt.__cause__ or attempt.__context__
