"""What the end of a POST proves, for each kind of error."""

from __future__ import annotations

import pytest

from aifaceswap import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    Swap,
    SwapFailedError,
)
from aifaceswap._api.responses import RawResponse, status_error
from aifaceswap._http.attempts import _outcome_is_unknown
from aifaceswap.bulk._verdicts import (
    Verdict,
    is_about_content,
    may_have_reached_the_api,
    verdict,
)


def response(status: int, code: str | None, attempts: int = 1) -> AIFaceSwapError:
    """The error of a response with the envelope, or with a page if there is no code."""
    envelope = f'{{"error": {{"code": "{code}", "message": "No."}}}}'
    body = b"<html>" if code is None else envelope.encode()
    return status_error(RawResponse(status, {}, body), attempts, "key")


@pytest.mark.parametrize(
    ("error", "expected", "may_exist"),
    [
        # The service's clear word.
        (response(400, "validation_error"), Verdict.REJECTED, False),
        (response(400, "source_unreachable"), Verdict.REJECTED, False),
        (response(413, "payload_too_large"), Verdict.REJECTED, False),
        (response(415, "unsupported_media_type"), Verdict.REJECTED, False),
        (response(422, "nsfw_content_detected"), Verdict.REJECTED, False),
        (response(402, "insufficient_credits"), Verdict.NO_CREDITS, False),
        (response(401, "invalid_api_key"), Verdict.KEY_REJECTED, False),
        (response(429, "rate_limited_concurrent"), Verdict.NO_SLOT, False),
        (response(429, "rate_limited_daily"), Verdict.UNAVAILABLE, False),
        (response(503, "api_temporarily_disabled"), Verdict.UNAVAILABLE, False),
        (response(405, "method_not_allowed"), Verdict.WRONG_ADDRESS, False),
        (APIConnectionError("refused", sent=False), Verdict.UNAVAILABLE, False),
        # Pages of proxies and firewalls, codes that are not documented, silence.
        (response(524, None), Verdict.UNAVAILABLE, True),
        (response(502, None), Verdict.UNAVAILABLE, True),
        (response(403, None), Verdict.UNAVAILABLE, True),
        (response(302, None), Verdict.UNAVAILABLE, True),
        (response(503, None), Verdict.UNAVAILABLE, True),
        (response(429, None), Verdict.UNAVAILABLE, True),
        (response(401, None), Verdict.KEY_REJECTED, True),
        (response(402, None), Verdict.NO_CREDITS, True),
        (response(404, None), Verdict.WRONG_ADDRESS, True),
        (response(301, None), Verdict.WRONG_ADDRESS, True),
        (response(400, None), Verdict.UNKNOWN, True),
        (response(409, "idempotency_in_progress"), Verdict.UNKNOWN, True),
        (response(422, "no_face"), Verdict.UNKNOWN, True),
        (response(403, "forbidden"), Verdict.UNKNOWN, True),
        (response(500, "internal_error"), Verdict.UNKNOWN, True),
        (response(500, "validation_error"), Verdict.UNKNOWN, True),
        (APITimeoutError("late", sent=True), Verdict.UNAVAILABLE, True),
        (APIResponseError("a page", permanent=False), Verdict.UNAVAILABLE, True),
        (APIResponseError("a shape", permanent=True), Verdict.UNKNOWN, True),
        (AIFaceSwapError("anything"), Verdict.UNKNOWN, False),
    ],
)
def test_only_a_documented_code_proves_that_there_is_no_swap(
    error: AIFaceSwapError, expected: Verdict, *, may_exist: bool
) -> None:
    """And says whether the row, the run or a while is concerned."""
    assert (verdict(error), _outcome_is_unknown(error)) == (expected, may_exist)


def test_a_wrong_address_reaches_no_api() -> None:
    """A page with 404 leaves the row free for another service; a lost attempt before it binds."""
    wrong = response(404, None)
    wrong.may_have_succeeded = True
    assert not may_have_reached_the_api(wrong)
    wrong.__cause__ = APIConnectionError("reset", sent=True)
    assert may_have_reached_the_api(wrong)
    wrong.__cause__ = APIConnectionError("refused", sent=False)
    assert not may_have_reached_the_api(wrong)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (response(422, "nsfw_content_detected"), True),
        (response(413, "payload_too_large"), True),
        (response(400, "source_unreachable"), False),
        (
            SwapFailedError.of(Swap(id="tsk_1", status="failed", error="nsfw_content_detected")),
            True,
        ),
        (
            SwapFailedError.of(
                Swap(id="tsk_1", status="failed", error={"code": "nsfw_content_detected"})
            ),
            True,
        ),
        (SwapFailedError.of(Swap(id="tsk_1", status="failed", error={"code": ["odd"]})), False),
        (SwapFailedError.of(Swap(id="tsk_1", status="failed")), False),
        (SwapFailedError("damaged"), False),
        (None, False),
    ],
)
def test_what_would_fail_again_for_its_content(
    error: AIFaceSwapError | None, *, expected: bool
) -> None:
    """Whether the service said so at once or when the swap had finished."""
    assert is_about_content(error) is expected
