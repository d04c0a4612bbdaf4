"""How responses are read: a value, or the error that a response stands for."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from aifaceswap._api import requests, responses
from aifaceswap._api.requests import Call
from aifaceswap._api.responses import RawResponse, read_response, read_result
from aifaceswap._http.retry import is_retryable
from aifaceswap.errors import (
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    DailyLimitError,
    InsufficientCreditsError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
)
from aifaceswap.models import RateLimit, Swap, SwapRequest
from support.samples import FACE, TARGET

PROPERTY = settings(max_examples=200, deadline=None)

REQUEST = SwapRequest(source_url=FACE, target_url=TARGET)
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
GET_SWAP = requests.get_swap("tsk_1")
QUEUED = b'{"id":"tsk_1","status":"queued"}'


def named(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Headers as they come, from names written as arguments are."""
    return CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})


def answer(
    status: int = 200, body: bytes = b"", *, whole: bool = True, **headers: str
) -> RawResponse:
    return RawResponse(status, named(headers), body, whole)


def envelope(**fields: object) -> bytes:
    return json.dumps({"error": fields}).encode()


# --- answers that agree --------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 203, 226, 299])
def test_any_2xx_is_a_success(status: int) -> None:
    """Which 2xx the service answers with is not documented: any will do."""
    swap = read_result(requests.create_swap(REQUEST), answer(status, QUEUED))

    assert Swap(id="tsk_1", status="queued") == swap


@pytest.mark.parametrize(
    ("into", "body", "value"),
    [
        (dict, b'{"a": 1}', {"a": 1}),
        (list, b"[1, 2]", [1, 2]),
        (bytes, b"\xff\xd8 no JSON", b"\xff\xd8 no JSON"),
        (bytes, b"", b""),
        (str, b'"a"', "a"),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (list[Swap], b"[" + QUEUED + b"]", [Swap(id="tsk_1", status="queued")]),
        (Swap | None, QUEUED, Swap(id="tsk_1", status="queued")),
        (Swap | None, b"null", None),
    ],
    ids=repr,
)
def test_what_an_answer_is_read_into(into: Any, body: bytes, value: object) -> None:
    """An answer is read into the type that was asked for; bytes stay as they came."""
    assert value == read_result(requests.any_request("GET", "/x", into=into), answer(200, body))


def test_an_answer_with_all_around_it() -> None:
    """A response carries value, status, headers, request id, rate limit, attempts and key."""
    call = requests.any_request("POST", "/x", into=dict, json={}, idempotency_key="key-1")
    came = answer(
        201,
        b'{"a": 1}',
        X_Request_Id="req_1",
        X_RateLimit_Limit="60",
        X_RateLimit_Remaining="59",
        X_RateLimit_Reset="1760000000",
    )

    response = read_response(call, came, 3)

    assert (
        response.value,
        response.status,
        response.request_id,
        response.attempts,
        response.idempotency_key,
    ) == ({"a": 1}, 201, "req_1", 3, "key-1")
    assert RateLimit(limit=60, remaining=59, reset=1_760_000_000) == response.rate_limit
    assert response.headers["x-request-id"] == "req_1"


# --- answers that agree, in words that cannot be read --------------------------------------

HTML = b"<!doctype html>\n<title>502 Bad\tGateway</title>\x1b[31m" + b"x" * 500


@pytest.mark.parametrize(
    ("came", "permanent"),
    [
        (answer(200, HTML), False),
        (answer(200, b""), False),
        (answer(204, b""), True),
        (answer(200, QUEUED[:20]), False),
        (answer(200, b'{"id": NaN}'), False),
        (answer(200, b"[" * 100_000), False),
        (answer(200, b"\xff\xfe"), False),
        (answer(200, QUEUED, whole=False), False),
        (answer(200, b"{}"), True),
        (answer(200, b"[]"), True),
        (answer(200, b"null"), True),
        (answer(200, b'"tsk_1"'), True),
        (answer(200, b'{"id": "tsk_1"}'), True),
        (answer(200, b'{"id": 5, "status": "queued"}'), True),
        (answer(200, b'{"swap": ' + QUEUED + b"}"), True),
        (answer(200, envelope(code="x", message="y")), True),
    ],
    ids=[
        *("page", "empty", "no content", "cut", "NaN", "nested", "other encoding", "oversized"),
        *(
            "empty object",
            "list",
            "null",
            "text",
            "field missing",
            "wrong type",
            "wrapped",
            "error",
        ),
    ],
)
def test_a_success_that_cannot_be_read(came: RawResponse, permanent: bool) -> None:
    """What is no JSON may pass and is tried again; another shape, or a 204, will stay so."""
    with pytest.raises(APIResponseError) as caught:
        read_result(requests.create_swap(REQUEST, "key-1"), came, 2)

    error = caught.value
    assert permanent is error.permanent
    assert permanent is not is_retryable(error)
    assert (came.status, came.body, 2, "key-1") == (
        error.status,
        error.body,
        error.attempts,
        error.idempotency_key,
    )


def test_the_words_for_a_wrong_shape() -> None:
    """The message names the request, the JSON path and the beginning of what came."""
    came = answer(200, b'{"id": "tsk_1", "status": 50}', X_Request_Id="req_1")

    with pytest.raises(APIResponseError) as caught:
        read_result(GET_SWAP, came)

    assert str(caught.value) == (
        "GET /swaps/tsk_1: the service responded with 200, but the body is not a valid Swap "
        '(expected a string, got 50 @ $.status): {"id": "tsk_1", "status": 50} (request req_1)'
    )
    assert caught.value.request_id == "req_1"


def test_the_words_for_a_page() -> None:
    """Of a proxy's page the message shows one short line, fit for a terminal."""
    with pytest.raises(APIResponseError) as caught:
        read_result(requests.list_swaps(cursor="secret"), answer(200, HTML))

    words = str(caught.value)
    assert "<!doctype html> <title>502 Bad Gateway</title>\ufffd[31mxxx" in words
    assert words.isprintable()
    assert len(words) < 400
    assert "secret" not in words


def test_the_words_for_a_type_with_parameters() -> None:
    """It is named as it was asked for."""
    call = requests.any_request("GET", "/x", into=dict[str, int])
    with pytest.raises(APIResponseError, match=r"not a valid dict\[str, int\] \("):
        read_result(call, answer(200, b"[]"))


def test_an_answer_to_head_never_has_a_body() -> None:
    """To ask again would not help."""
    with pytest.raises(APIResponseError) as caught:
        read_result(requests.any_request("HEAD", "/x", into=dict), answer(200, b""))
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"x" * 200, "x" * 200),
        (b"x" * 201, "x" * 200 + "\u2026"),
        (b" " * 200 + b"x" * 200, "x" * 200),
        (b" " * 201 + b"x" * 200, "x" * 199 + "\u2026"),
        (b" " * 399 + b"xy", "x\u2026"),
    ],
    ids=["200", "201", "400 with spaces", "401 with spaces", "cut in its spaces"],
)
def test_a_long_body_is_shown_cut(body: bytes, message: str) -> None:
    """To 200 characters of the first 400 bytes; an ellipsis tells that there was more."""
    with pytest.raises(ServerError) as caught:
        read_result(GET_SWAP, answer(500, body))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (499, None, APIStatusError),
        (500, None, ServerError),
        (499, "rate_limited_daily", DailyLimitError),
        (503, "new_code", ServiceUnavailableError),
        (400, "", BadRequestError),
    ],
)
def test_the_class_of_a_refusal(status: int, code: str | None, kind: type[APIStatusError]) -> None:
    """By the code that is known, else by the status, else by its hundreds."""
    assert responses.error_class(status, code) is kind
    with pytest.raises(kind) as caught:
        read_result(GET_SWAP, answer(status, envelope(code=code, message="No.")))
    assert type(caught.value) is kind


def test_the_words_for_an_oversized_answer() -> None:
    """An answer that was cut for its size says so, even where its beginning is JSON."""
    with pytest.raises(APIResponseError, match=r"larger than 32 bytes"):
        read_result(GET_SWAP, answer(200, QUEUED, whole=False))
    with pytest.raises(APIResponseError, match=r"larger than 3 bytes"):
        read_result(requests.any_request("GET", "/x", into=bytes), answer(200, b"abc", whole=False))


# --- refusals ------------------------------------------------------------------------------


def test_a_refusal_in_the_services_words() -> None:
    """The envelope's code, message and request id are on the error, with all that came."""
    body = envelope(code="insufficient_credits", message="Top up.", request_id="req_1", new=[1])
    came = answer(402, body, X_Request_Id="req_of_a_proxy", X_Other="1")

    with pytest.raises(InsufficientCreditsError) as caught:
        read_result(requests.create_swap(REQUEST, "key-1"), came, 3)

    error = caught.value
    assert (
        error.code,
        error.message,
        error.request_id,
    ) == ("insufficient_credits", "Top up.", "req_1")
    assert (402, body, 3, "key-1", None) == (
        error.status,
        error.body,
        error.attempts,
        error.idempotency_key,
        error.retry_after,
    )
    assert error.headers["x-other"] == "1"


@pytest.mark.parametrize(
    ("body", "code", "message", "request_id"),
    [
        (envelope(code="c", message="m", request_id="r"), "c", "m", "r"),
        (envelope(message="m"), None, "m", "req_h"),
        (envelope(code="c"), "c", '{"error": {"code": "c"}}', "req_h"),
        (envelope(code=5, message=["x"], request_id=None), None, None, "req_h"),
        (envelope(), None, '{"error": {}}', "req_h"),
        (b'{"error": "in short"}', None, "in short", "req_h"),
        (b'{"error": null}', None, '{"error": null}', "req_h"),
        (b'{"error": ["x"]}', None, '{"error": ["x"]}', "req_h"),
        (b'{"detail": "Not Found"}', None, '{"detail": "Not Found"}', "req_h"),
        (b"[]", None, "[]", "req_h"),
        (b"null", None, "null", "req_h"),
        (b"", None, "an empty body", "req_h"),
        (b" \r\n", None, "an empty body", "req_h"),
        (b"\x1c", None, "an empty body", "req_h"),
        (b"Bad Gateway\r\n", None, "Bad Gateway", "req_h"),
        (b'{"error": {"code": "c", "mes', None, '{"error": {"code": "c", "mes', "req_h"),
        (b"\xff\xfe\x00", None, "\ufffd\ufffd\ufffd", "req_h"),
        (b"[" * 100_000, None, "[" * 200 + "…", "req_h"),
        (HTML, None, None, "req_h"),
    ],
    ids=lambda value: ascii(value[:24]) if isinstance(value, bytes) else None,
)
def test_refusals_of_any_form(
    body: bytes, code: str | None, message: str | None, request_id: str
) -> None:
    """A refusal is readable whatever its body is: what is missing is None, never an accident."""
    with pytest.raises(ServerError) as caught:
        read_result(GET_SWAP, answer(500, body, X_Request_Id="req_h"))

    error = caught.value
    assert (code, request_id, body) == (error.code, error.request_id, error.body)
    assert message is None or message == error.message
    assert 0 < len(error.message) <= 201


def test_a_cut_body_of_a_refusal() -> None:
    """A refusal that was cut for its size is still that refusal."""
    with pytest.raises(ServiceUnavailableError):
        read_result(GET_SWAP, answer(503, b"x" * 1000, whole=False))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is an error that says where it leads, without the query."""
    came = answer(status, b"", Location="https://other.example/x?token=secret")

    with pytest.raises(
        APIStatusError, match=r"https://other\.example/x\?… ?, which is not"
    ) as caught:
        read_result(GET_SWAP, came)

    assert (status, APIStatusError) == (caught.value.status, type(caught.value))
    assert "secret" not in str(caught.value)
    assert not is_retryable(caught.value)


@pytest.mark.parametrize("status", [100, 101, 199, 300, 304, 399])
def test_only_a_2xx_is_a_success(status: int) -> None:
    """A readable body under any other status is a refusal all the same."""
    with pytest.raises(APIStatusError) as caught:
        read_result(GET_SWAP, answer(status, QUEUED))

    assert status == caught.value.status


# --- headers -------------------------------------------------------------------------------

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "0"}, 0.0),
        ({"Retry_After": "30"}, 30.0),
        ({"Retry_After": "1.5"}, 1.5),
        ({"Retry_After": "007"}, 7.0),
        ({"Retry_After": "999999999999"}, 1e9),
        ({"Retry_After": DATE, "Date": DATE}, 0.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:29:30 GMT", "Date": DATE}, 90.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": DATE}, 0.0),
        ({"Retry_After": "Wed, 21 Oct 2026 09:29:30 +0200", "Date": DATE}, 90.0),
        ({"Retry_After": "Wednesday, 21-Oct-26 07:29:30 GMT", "Date": DATE}, 90.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:29:30 -0000", "Date": DATE}, 90.0),
        ({"Retry_After": ""}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-5"}, None),
        ({"Retry_After": "+5"}, None),
        ({"Retry_After": "1e3"}, None),
        ({"Retry_After": "5s"}, None),
        ({"Retry_After": "5, 6"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "inf"}, None),
        ({"Retry_After": "0x10"}, None),
        ({"Retry_After": "\u0665"}, None),
        ({"Retry_After": "9" * 400}, 1e9),
        ({"Retry_After": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 +9999"}, None),
        ({"Retry_After": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
    ],
    ids=repr,
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds or a date are understood, the latter by the answer's own clock; nonsense is None."""
    assert seconds == responses.read_retry_after(named(headers))


@pytest.mark.parametrize("date", [None, "", "yesterday"], ids=["none", "empty", "nonsense"])
def test_a_date_without_a_clock(date: str | None) -> None:
    """Where the answer does not tell its time, ours is taken."""
    until = email.utils.formatdate(time.time() + 120, usegmt=True)
    headers = {"Retry_After": until} if date is None else {"Retry_After": until, "Date": date}

    seconds = responses.read_retry_after(named(headers))

    assert seconds is not None
    assert 110 < seconds <= 120


def test_retry_after_is_on_the_error() -> None:
    """The error says how long the service asks to wait."""
    with pytest.raises(RateLimitError) as caught:
        read_result(GET_SWAP, answer(429, envelope(code="rate_limited"), Retry_After="17"))

    assert caught.value.retry_after == 17.0


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({}, None),
        (
            {"X_RateLimit_Limit": "60", "x_ratelimit_remaining": "0", "X_RATELIMIT_RESET": "99"},
            RateLimit(limit=60, remaining=0, reset=99),
        ),
        (
            {"x_ratelimit_limit": "60", "x_ratelimit_remaining": "12"},
            RateLimit(limit=60, remaining=12),
        ),
        (
            {"x_ratelimit_limit": "60", "x_ratelimit_remaining": "12", "x_ratelimit_reset": "x"},
            RateLimit(limit=60, remaining=12),
        ),
        ({"x_ratelimit_limit": "60"}, None),
        ({"x_ratelimit_remaining": "60"}, None),
        ({"x_ratelimit_limit": "60", "x_ratelimit_remaining": "-1"}, None),
        ({"x_ratelimit_limit": "60, 60;w=60", "x_ratelimit_remaining": "12"}, None),
        ({"x_ratelimit_limit": "NaN", "x_ratelimit_remaining": "12"}, None),
        ({"x_ratelimit_limit": "", "x_ratelimit_remaining": ""}, None),
        (
            {"x_ratelimit_limit": "9" * 12, "x_ratelimit_remaining": "12"},
            RateLimit(limit=999_999_999_999, remaining=12),
        ),
        ({"x_ratelimit_limit": "9" * 13, "x_ratelimit_remaining": "12"}, None),
        ({"x_ratelimit_limit": "\u0663", "x_ratelimit_remaining": "12"}, None),
        ({"x_ratelimit_limit": "9" * 500, "x_ratelimit_remaining": "12"}, None),
    ],
    ids=repr,
)
def test_rate_limit_headers(headers: dict[str, str], limit: RateLimit | None) -> None:
    """What the headers say of the requests left is taken where it makes sense."""
    assert limit == responses.read_rate_limit(named(headers))


# --- whatever comes ------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "message", "request_id", "id", "status", "data"])
            | st.text(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=8,
)
BODIES = st.binary() | JSON.map(json.dumps).map(str.encode) | st.sampled_from([QUEUED, HTML])
DATES = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Wed", "Wednesday", "", "x"]),
    st.integers(-1, 40),
    st.sampled_from(["Oct", "Feb", "", "x"]),
    st.sampled_from([0, 1, 26, 99, 1969, 2026, 9999, 10000, 10**12]),
    st.integers(-1, 30),
    st.integers(-1, 70),
    st.integers(-1, 70),
    st.sampled_from(["GMT", "-0000", "+0000", "+9999", "-2359", "EST", "", "x", "+" + "9" * 30]),
)
VALUES = st.text(max_size=20) | DATES | st.integers().map(str) | st.floats().map(str)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("Retry-After", "Date", "Location", "X-Request-Id", "X-RateLimit-Limit"),
            *("X-RateLimit-Remaining", "X-RateLimit-Reset"),
        ]
    ),
    VALUES,
)
CALLS: list[Call[Any]] = [
    requests.create_swap(REQUEST, "key-1"),
    GET_SWAP,
    requests.list_swaps(),
    requests.get_account(),
    *(requests.any_request("GET", "/x", into=into) for into in (dict, list, bytes, list[Swap])),
]


@settings(max_examples=300, deadline=None)
@given(
    call=st.sampled_from(CALLS),
    status=st.integers(0, 999) | st.sampled_from([200, 201, 400, 401, 429, 503]),
    headers=HEADERS,
    body=BODIES,
    whole=st.booleans(),
)
def test_any_answer_is_a_value_or_our_error(
    call: Call[Any], status: int, headers: dict[str, str], body: bytes, whole: bool
) -> None:
    """Whatever comes, there is a value, a refusal or an unreadable success, and nothing else."""
    came = RawResponse(status, CIMultiDict(headers), body, whole)

    try:
        response = read_response(call, came, 2)
    except APIStatusError as error:
        assert not 200 <= status <= 299
        assert (status, body, 2) == (error.status, error.body, error.attempts)  # noqa: PT017
        assert call.idempotency_key == error.idempotency_key  # noqa: PT017
        assert error.retry_after is None or error.retry_after >= 0  # noqa: PT017
        assert error.message  # noqa: PT017
    except APIResponseError as error:
        assert 200 <= status <= 299
        assert (status, body, 2) == (error.status, error.body, error.attempts)  # noqa: PT017
        assert call.idempotency_key == error.idempotency_key  # noqa: PT017
    else:
        assert whole
        assert status == response.status
        assert 200 <= status <= 299


@PROPERTY
@given(DATES | VALUES, DATES | VALUES)
def test_any_retry_after_is_seconds_or_nothing(text: str, date: str) -> None:
    """Whatever the two headers say, there is a number of seconds from 0 up, or None."""
    seconds = responses.read_retry_after(CIMultiDict({"Retry-After": text, "Date": date}))

    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        (401, "invalid_api_key", AuthenticationError),
        (400, "validation_error", BadRequestError),
    ],
    ids=["bad key", "bad body"],
)
def test_no_error_holds_what_was_sent(status: int, code: str, cls: type[APIStatusError]) -> None:
    """An error knows the answer and the call's key for idempotency, not the request."""
    call = requests.any_request(
        "POST", "/x", into=dict, json={"private": "zq9Secret"}, headers={"X-Private": "zq9Secret"}
    )

    with pytest.raises(cls) as caught:
        read_result(call, answer(status, envelope(code=code, message="no")))

    assert "zq9Secret" not in f"{caught.value!r} {vars(caught.value)}"


# --- ids ------------------------------------------------------------------------------------


def test_a_swap_of_another_request_is_not_accepted() -> None:
    """A poll that gets the response of another request is tried again."""
    other = answer(200, b'{"id":"tsk_2","status":"done"}')

    with pytest.raises(APIResponseError, match="about another swap, 'tsk_2'") as caught:
        read_result(GET_SWAP, other)

    assert is_retryable(caught.value)


@pytest.mark.parametrize(
    ("headers", "ending"),
    [
        ({"cf_ray": "8c0f1d2e3a4b5c6d-FRA"}, "x (cf-ray 8c0f1d2e3a4b5c6d-FRA)"),
        ({"cf_ray": "8c0f", "x_request_id": "req_7"}, "x (request req_7)"),
        ({"cf_ray": "a b\x1b[31m"}, "x"),
        ({"cf_ray": "a" * 65}, "x"),
        ({"cf_ray": ""}, "x"),
    ],
)
@pytest.mark.parametrize("status", [200, 403, 524])
def test_the_ray_id_stands_in_for_a_request_id(
    status: int, headers: dict[str, Any], ending: str
) -> None:
    """Cloudflare's support asks for it where the service gave no id; nothing odd is shown."""
    with pytest.raises((APIResponseError, APIStatusError)) as caught:
        read_result(GET_SWAP, answer(status, b"x", **headers))

    assert str(caught.value).endswith(ending)
