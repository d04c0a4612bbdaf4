"""The exception tree: its shape, its words, and that every error survives pickling."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable

import pytest
from multidict import CIMultiDict

import aifaceswap
from aifaceswap import errors
from aifaceswap._api.responses import RawResponse, status_error
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BulkStoppedError,
    ConcurrencyLimitError,
    ConfigurationError,
    ConflictError,
    ContentRejectedError,
    DailyLimitError,
    FileStoreError,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
    SourceUnreachableError,
    SwapFailedError,
    UnprocessableContentError,
    UnresolvedRowError,
    UnsupportedMediaTypeError,
    WaitTimeoutError,
    WebhookVerificationError,
    WebhookVerificationReason,
)
from aifaceswap.models import Swap

DRAWN = re.compile(r"^    (?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<also>\w+)\))?")
SWAP = Swap(id="tsk_1", status="failed", error={"code": "no_face"}, extra={"new": [1]})

ERROR_CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, AIFaceSwapError)
]
STATUS_CLASSES = [cls for cls in ERROR_CLASSES if issubclass(cls, APIStatusError)]

EXAMPLES: list[AIFaceSwapError] = [
    AIFaceSwapError("all wrong", idempotency_key="k-1"),
    ConfigurationError("api_key: there is none"),
    InvalidRequestError("no", field="source_url", value=["x"], idempotency_key="k-1"),
    InvalidRequestError.for_field("limit", 0, "is too small"),
    APIConnectionError("refused", sent=False, attempts=3, idempotency_key="k-1"),
    APITimeoutError("no complete response", sent=True, attempts=2, idempotency_key="k-1"),
    APIResponseError(
        "unreadable",
        status=202,
        body=b"<html>",
        permanent=True,
        request_id="req_1",
        attempts=5,
        idempotency_key="k-1",
    ),
    *(
        cls(
            "the service said no",
            status=429,
            code="some_code",
            request_id="req_1",
            retry_after=1.5,
            headers=CIMultiDict([("Set-Cookie", "a"), ("set-cookie", "b")]),
            body=b"{}",
            attempts=2,
            idempotency_key="k-1",
        )
        for cls in STATUS_CLASSES
    ),
    FileStoreError("no bucket", idempotency_key="k-1"),
    SwapFailedError("no face", swap=SWAP, idempotency_key="k-1"),
    WaitTimeoutError("still queued", swap_id="tsk_1", swap=SWAP, idempotency_key="k-1"),
    BulkStoppedError("no credits", rows_left=7),
    UnresolvedRowError("sent long ago", candidates=("tsk_1", "tsk_2")),
    JournalError("in use"),
    WebhookVerificationError("old", reason=WebhookVerificationReason.TIMESTAMP_OUTSIDE_TOLERANCE),
]


def name_of(error: object) -> str:
    return type(error).__name__


def the_drawn_tree() -> dict[str, set[str]]:
    """Each class of the drawing, and its bases as far as they are drawn."""
    above: list[str] = []
    tree: dict[str, set[str]] = {}
    for line in (errors.__doc__ or "").splitlines():
        drawn = DRAWN.match(line)
        if drawn is None:
            continue
        depth = len(drawn["indent"]) // 4
        del above[depth:]
        tree[drawn["name"]] = {*above[-1:], *filter(None, [drawn["also"]])} or {"Exception"}
        above.append(drawn["name"])
    return tree


def test_the_drawing_is_the_tree() -> None:
    """The tree in the module's docstring is exactly the tree of the classes."""
    actual = {cls.__name__: {base.__name__ for base in cls.__bases__} for cls in ERROR_CLASSES}

    assert the_drawn_tree() == actual


def test_every_class_has_an_example() -> None:
    """The tests below see every class of the tree."""
    assert set(ERROR_CLASSES) == {type(error) for error in EXAMPLES}


@pytest.mark.parametrize("cls", ERROR_CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_is_exported(cls: type[AIFaceSwapError]) -> None:
    """Every error can be caught by its name in the package."""
    assert cls.__name__ in aifaceswap.__all__
    assert cls is getattr(aifaceswap, cls.__name__)


def pickled(protocol: int) -> Callable[[AIFaceSwapError], AIFaceSwapError]:
    def there_and_back(error: AIFaceSwapError) -> AIFaceSwapError:
        back: AIFaceSwapError = pickle.loads(pickle.dumps(error, protocol))
        return back

    return there_and_back


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle-{n}": pickled(n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("twin", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("error", EXAMPLES, ids=name_of)
def test_errors_survive_copying(
    error: AIFaceSwapError, twin: Callable[[AIFaceSwapError], AIFaceSwapError]
) -> None:
    """A copied or pickled error has its class, its words and all its attributes."""
    error.add_note("seen in the night")

    other = twin(error)

    assert type(error) is type(other)
    assert str(error) == str(other)
    assert vars(error) == vars(other)
    assert error is not other


def test_headers_stay_case_insensitive() -> None:
    """Headers that went through a pickle are still found in any case, repeated ones too."""
    headers = CIMultiDict([("X-Trace", "1"), ("Set-Cookie", "a"), ("Set-Cookie", "b")])

    other = pickle.loads(pickle.dumps(APIStatusError("no", headers=headers)))

    assert other.headers["x-TRACE"] == "1"
    assert other.headers.getall("set-cookie") == ["a", "b"]


@pytest.mark.parametrize("cls", ERROR_CLASSES, ids=lambda cls: cls.__name__)
def test_a_message_is_enough(cls: type[AIFaceSwapError]) -> None:
    """Every error can be made of a message alone, for the tests of our users."""
    error = cls("in short")

    assert error.message == "in short"
    assert error.idempotency_key is None
    assert "in short" in str(error)
    assert error.args == ("in short",)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (InvalidRequestError, ValueError),
        (APITimeoutError, TimeoutError),
        (WaitTimeoutError, TimeoutError),
    ],
    ids=lambda cls: cls.__name__,
)
def test_built_in_bases(cls: type[AIFaceSwapError], builtin: type[Exception]) -> None:
    """Where Python has a word for the failure, its `except` catches ours."""
    with pytest.raises(builtin, match=r"^it was so$"):
        raise cls("it was so")


def test_no_other_error_is_a_built_in_one() -> None:
    """No error but those is caught by an `except` for something else."""
    builtin = (ValueError, OSError, LookupError, RuntimeError, TypeError)

    assert {InvalidRequestError, APITimeoutError, WaitTimeoutError} == {
        cls for cls in ERROR_CLASSES if issubclass(cls, builtin)
    }


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            BadRequestError("no", status=400, code="validation_error", request_id="req_1"),
            "400 validation_error: no (request req_1)",
        ),
        (ServerError("an empty body", status=502), "502: an empty body"),
        (RateLimitError("wait", status=429, code="rate_limited"), "429 rate_limited: wait"),
        (APIStatusError("no"), ": no"),
        (NotFoundError("no", status=404, request_id="req_2"), "404: no (request req_2)"),
    ],
    ids=["all", "no code, no id", "no id", "nothing", "no code"],
)
def test_str_of_a_refusal(error: APIStatusError, words: str) -> None:
    """A refusal shows its status, code and message, and the id that support asks for."""
    assert words == str(error)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x" * 300, "f must be short; got '" + "x" * 199 + "…"),
        (10**5000, "f must be short; got <int>"),
        ("y", "f must be short; got 'y'"),
    ],
    ids=["long", "without a repr", "short"],
)
def test_a_refused_value_is_shown(value: object, words: str) -> None:
    """The message shows the value, as far as one line can; the error carries it whole."""
    error = InvalidRequestError.for_field("f", value, "must be short")

    assert words == str(error)
    assert ("f", value) == (error.field, error.value)


# Code, status, class: every row of the contract's table of errors.
DOCUMENTED = [
    ("unauthorized", 401, AuthenticationError),
    ("invalid_api_key", 401, AuthenticationError),
    ("validation_error", 400, BadRequestError),
    ("source_unreachable", 400, SourceUnreachableError),
    ("insufficient_credits", 402, InsufficientCreditsError),
    ("method_not_allowed", 405, APIStatusError),
    ("payload_too_large", 413, PayloadTooLargeError),
    ("unsupported_media_type", 415, UnsupportedMediaTypeError),
    ("nsfw_content_detected", 422, ContentRejectedError),
    ("rate_limited", 429, RateLimitError),
    ("rate_limited_daily", 429, DailyLimitError),
    ("rate_limited_concurrent", 429, ConcurrencyLimitError),
    ("api_temporarily_disabled", 503, ServiceUnavailableError),
]
BY_STATUS = [
    (302, APIStatusError),
    (400, BadRequestError),
    (401, AuthenticationError),
    (402, InsufficientCreditsError),
    (403, APIStatusError),
    (404, NotFoundError),
    (405, APIStatusError),
    (408, APIStatusError),
    (409, ConflictError),
    (413, PayloadTooLargeError),
    (415, UnsupportedMediaTypeError),
    (418, APIStatusError),
    (422, UnprocessableContentError),
    (429, RateLimitError),
    (500, ServerError),
    (502, ServerError),
    (503, ServiceUnavailableError),
    (504, ServerError),
    (599, ServerError),
]


def refusal(status: int, code: str) -> APIStatusError:
    body = f'{{"error": {{"code": "{code}", "message": "m", "request_id": "req_1"}}}}'
    return status_error(RawResponse(status, CIMultiDict[str](), body.encode()), 1, None)


@pytest.mark.parametrize(("code", "status", "cls"), DOCUMENTED, ids=[row[0] for row in DOCUMENTED])
def test_documented_codes(code: str, status: int, cls: type[APIStatusError]) -> None:
    """Each documented code has its class, and the error says it all."""
    error = refusal(status, code)

    assert cls is type(error)
    assert (status, code, "m", "req_1") == (
        error.status,
        error.code,
        error.message,
        error.request_id,
    )


@pytest.mark.parametrize(("code", "status", "cls"), DOCUMENTED, ids=[row[0] for row in DOCUMENTED])
def test_the_code_goes_before_the_status(code: str, status: int, cls: type[APIStatusError]) -> None:
    """A documented code keeps its class under a status that is not documented for it."""
    assert cls is type(refusal(418, code))


@pytest.mark.parametrize(("status", "cls"), BY_STATUS, ids=[str(row[0]) for row in BY_STATUS])
def test_a_new_code_follows_the_status(status: int, cls: type[APIStatusError]) -> None:
    """A code that is new to this package is kept, and the class follows from the status."""
    error = refusal(status, "brand_new")

    assert cls is type(error)
    assert error.code == "brand_new"


def test_every_class_of_the_service_can_come() -> None:
    """No class for refusals is there that no answer leads to."""
    reached = {row[-1] for row in [*DOCUMENTED, *BY_STATUS]}

    assert set(STATUS_CLASSES) == reached


def test_a_swap_error_carries_its_swap() -> None:
    """The errors about a swap carry it, and say by its id how to go on."""
    failed = SwapFailedError("no", swap=SWAP)
    late = WaitTimeoutError("late", swap_id="tsk_1")

    assert SWAP is failed.swap
    assert (late.swap_id, late.swap) == ("tsk_1", None)
