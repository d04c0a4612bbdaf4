"""The values: what a request may hold, and how a swap is read."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifaceswap import errors
from aifaceswap.errors import InvalidRequestError
from aifaceswap.models import (
    Account,
    Credits,
    RateLimit,
    Response,
    Swap,
    SwapPage,
    SwapRequest,
    SwapStatus,
    SwapType,
    WebhookEvent,
    without_queries,
    without_query,
)
from support.samples import FACE

PROPERTY = settings(max_examples=100, deadline=None)

TARGET = "https://example.com/target.gif"


def request_with(**fields: Any) -> SwapRequest:
    return SwapRequest(**{"source_url": FACE, "target_url": TARGET, **fields})


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def a_cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


# --- requests ------------------------------------------------------------------------------


def test_a_request_of_two_urls() -> None:
    """Two URLs are enough: the target is an image then, and all else is left to the service."""
    request = request_with()

    assert (request.source_url, request.target_url, request.type) == (FACE, TARGET, SwapType.IMAGE)
    assert [
        request.webhook_url,
        request.target_face_index,
        request.enable_face_enhancer,
        request.metadata,
    ] == [None] * 4


def test_a_request_with_everything() -> None:
    """Every field is kept as it was given."""
    fields: dict[str, Any] = {
        "source": None,
        "target": None,
        "source_url": FACE,
        "target_url": TARGET,
        "type": SwapType.GIF,
        "webhook_url": "https://example.com/hook?id=1",
        "target_face_index": 0,
        "enable_face_enhancer": False,
        "metadata": {"order": 7, "tags": ["a", None, 1.5, True], "": {}},
    }

    assert fields == attrs.asdict(SwapRequest(**fields))


@pytest.mark.parametrize("field", ["source_url", "target_url", "webhook_url"])
@pytest.mark.parametrize(
    "url", ["", "http://example.com/", "https://localhost/", "a.jpg", 1, b"https://example.com/"]
)
def test_urls_are_public(field: str, url: object) -> None:
    """Each URL of a request is one that the service can fetch; the error names the field."""
    with pytest.raises(InvalidRequestError, match=f"^{field} must ") as caught:
        request_with(**{field: url})

    assert (field, url) == (caught.value.field, caught.value.value)


@pytest.mark.parametrize("field", ["source", "target"])
def test_a_face_and_a_target_are_needed(field: str) -> None:
    """Each is a file or a URL, and not both."""
    with pytest.raises(InvalidRequestError, match=f"^{field} is missing; pass {field}="):
        request_with(**{f"{field}_url": None})
    text = f"^{field} must not be combined with {field}_url"
    with pytest.raises(InvalidRequestError, match=text):
        request_with(**{field: "face.jpg"})


@pytest.mark.parametrize("file", ["face.jpg", Path("a/b"), b"GIF89a", BytesIO(b"GIF89a")])
def test_a_file_stands_in_place_of_a_url(file: Any) -> None:
    """It is read later; the type of a local target is not known before."""
    request = SwapRequest(source=file, target_url=TARGET)
    assert (request.source, request.source_url, request.type) == (file, None, "image")
    request = SwapRequest(source_url=FACE, target=file)
    assert (request.target, request.target_url, request.type) == (file, None, None)
    assert hash(request) == hash(SwapRequest(source_url=FACE, target=file))
    assert len(repr(SwapRequest(source_url=FACE, target=b"GIF89a" * 1000))) < 500


def test_a_url_is_a_url_in_either_place() -> None:
    """And is checked as one."""
    assert request_with() == SwapRequest(source=FACE, target=TARGET)
    with pytest.raises(InvalidRequestError, match=r"^source must be .*https"):
        SwapRequest(source="ftp://example.com/a.jpg", target=TARGET)
    with pytest.raises(InvalidRequestError, match=r"^target must be a path, bytes, an open"):
        SwapRequest(source=FACE, target=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["image", "gif", SwapType.IMAGE, SwapType.GIF])
def test_types(value: str) -> None:
    """The type may be a string or a member; it is a member then."""
    request = request_with(type=value)

    assert value == request.type
    assert isinstance(request.type, SwapType)


@pytest.mark.parametrize(
    "value", ["", "IMAGE", "video", "image ", 1, True, b"image", ["image"], {}]
)
def test_other_types(value: object) -> None:
    """No other type can be sent."""
    with pytest.raises(InvalidRequestError, match=r"^type must ") as caught:
        request_with(type=value)

    assert ("type", value) == (caught.value.field, caught.value.value)


@pytest.mark.parametrize("index", [None, 0, 1, 99])
def test_face_indices(index: int | None) -> None:
    """Faces are counted from 0."""
    assert index == request_with(target_face_index=index).target_face_index


@pytest.mark.parametrize("index", [-1, True, False, 1.0, math.nan, "1", [1]], ids=repr)
def test_what_is_no_face_index(index: object) -> None:
    """A face index is a whole number from 0 up, and no boolean."""
    with pytest.raises(InvalidRequestError, match=r"^target_face_index must "):
        request_with(target_face_index=index)


def test_a_huge_face_index_is_refused_in_our_words() -> None:
    """A number too long to be written has an error of ours all the same."""
    with pytest.raises(InvalidRequestError, match=r"^target_face_index must .*; got <int>$"):
        request_with(target_face_index=-(10**5000))


@pytest.mark.parametrize("value", [None, True, False])
def test_booleans(value: bool | None) -> None:
    """The enhancer is on, off, or left to the service."""
    assert value is request_with(enable_face_enhancer=value).enable_face_enhancer


@pytest.mark.parametrize("value", [0, 1, "true", "", [], 1.0], ids=repr)
def test_what_is_no_boolean(value: object) -> None:
    """Nothing that merely counts as true or false is taken for it."""
    with pytest.raises(InvalidRequestError, match=r"^enable_face_enhancer must "):
        request_with(enable_face_enhancer=value)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": None},
        {"ü": "\U0001f600", "": ""},
        {"a": {"b": [1, 2.5, [True], {}]}},
        {"large": 10**100},
    ],
)
def test_metadata(metadata: dict[str, Any]) -> None:
    """Any JSON object is metadata."""
    assert metadata == request_with(metadata=metadata).metadata


def test_any_mapping_is_metadata() -> None:
    """It need not be a dict; what is kept is one."""
    kept = request_with(metadata=MappingProxyType({"a": (1, 2)})).metadata

    assert kept == {"a": [1, 2]}
    assert isinstance(kept, dict)


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("a", 1)],
        "text",
        1,
        True,
        {1: "a"},
        {None: "a"},
        {True: "a"},
        {"a": {1: "b"}},
        {"a": [({"b": {2.5: 1}},)]},
        {"a": {1: "x", "1": "y"}},
        {"a": math.nan},
        {"a": [math.inf]},
        {"a": {"b": -math.inf}},
        {"a": {1, 2}},
        {"a": b"bytes"},
        {"a": ...},
        {"a": datetime(2026, 1, 1, tzinfo=UTC)},
        {("a",): 1},
    ],
    ids=lambda value: errors.short_repr(value)[:30],
)
def test_what_is_no_metadata(metadata: object) -> None:
    """What JSON has no words for is refused before anything is sent."""
    with pytest.raises(InvalidRequestError, match=r"^metadata must ") as caught:
        request_with(metadata=metadata)

    assert caught.value.field == "metadata"


@pytest.mark.parametrize(
    "metadata",
    [a_cycle(), {"a": nested(100_000)}, {"a": 10**5000}],
    ids=["cycle", "too deep", "too long a number"],
)
def test_metadata_without_an_end(metadata: dict[str, Any]) -> None:
    """Cycles, and what is too deep or too long to be written, are refused as well."""
    with pytest.raises(InvalidRequestError, match=r"^metadata must be JSON serializable "):
        request_with(metadata=metadata)


def test_metadata_is_the_requests_own() -> None:
    """What the caller changes after the request was made has no part in it, at any depth."""
    given: dict[str, Any] = {"tags": ["a"], "more": {"x": 1}}
    request = request_with(metadata=given)

    given["new"] = ["b"]
    given["tags"].append("b")
    given["more"]["x"] = math.nan

    assert request.metadata == {"tags": ["a"], "more": {"x": 1}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANYTHING = JSON | st.binary() | st.dictionaries(st.integers(), JSON, max_size=2)


@PROPERTY
@given(
    st.dictionaries(
        st.sampled_from([field.name for field in attrs.fields(SwapRequest)]), ANYTHING, max_size=3
    )
)
def test_a_request_is_made_or_refused(fields: dict[str, object]) -> None:
    """Whatever the arguments are, there is a request, or an error that names one of them."""
    try:
        request = request_with(**fields)
    except InvalidRequestError as error:
        assert {error.field, f"{error.field}_url"} & fields.keys()  # noqa: PT017
        value = fields.get(error.field)
        assert error.value is value or error.field == "metadata"  # noqa: PT017
    else:
        assert fields.get("metadata") == request.metadata


# --- swaps ---------------------------------------------------------------------------------

RESULT = "https://cdn.example.com/r.jpg?signature=secret"

# Status, result, error, is_finished, has_failed.
ENDS: list[tuple[str, str | None, object, bool, bool]] = [
    ("queued", None, None, False, False),
    ("preparing", None, None, False, False),
    ("processing", None, None, False, False),
    ("processing", RESULT, None, True, False),
    ("processing", None, "a warning", False, False),
    ("queued", RESULT, {"code": "x"}, True, False),
    ("done", RESULT, None, True, False),
    ("done", None, None, True, False),
    ("done", RESULT, "a warning", True, False),
    ("failed", None, {"code": "x"}, True, True),
    ("failed", None, None, True, True),
    ("failed", RESULT, "x", True, True),
    ("paused", None, None, False, False),
    ("paused", "", "", False, False),
    ("paused", None, {}, False, False),
    ("archived", RESULT, None, True, False),
    ("archived", RESULT, "a warning", True, False),
    ("cancelled", None, "by the user", True, True),
    ("cancelled", None, {"code": "x"}, True, True),
    ("", None, None, False, False),
    ("DONE", None, None, False, False),
]


@pytest.mark.parametrize(("status", "result", "error", "finished", "failed"), ENDS)
def test_the_end_of_a_swap(
    status: str, result: str | None, error: object, finished: bool, failed: bool
) -> None:
    """Known statuses decide alone; an unknown one has ended with a result or an error."""
    swap = Swap(id="tsk_1", status=status, result_url=result, error=error)

    assert (finished, failed) == (swap.is_finished, swap.has_failed)


@pytest.mark.parametrize("status", SwapStatus)
def test_members_and_strings_are_read_alike(status: SwapStatus) -> None:
    """A swap that was made with a plain string behaves like one with the member."""
    one, other = Swap(id="tsk_1", status=status), Swap(id="tsk_1", status=status.value)

    assert one == other
    assert (one.is_finished, one.has_failed) == (other.is_finished, other.has_failed)


@PROPERTY
@given(st.text(), st.none() | st.text(), JSON)
def test_only_what_has_ended_has_failed(status: str, result: str | None, error: object) -> None:
    """Whatever a swap says, it has not failed before it has ended, nor with status done."""
    swap = Swap(id="tsk_1", status=status, result_url=result, error=error)

    assert swap.is_finished or not swap.has_failed
    assert not (status == "done" and swap.has_failed)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, None),
        ("no face found", "no face found"),
        ({"code": "no_face", "message": "No face found."}, "no_face: No face found."),
        ({"code": "no_face"}, "no_face"),
        ({"message": "No face found."}, "No face found."),
        ({"code": None, "message": "No face found."}, "No face found."),
        ({"code": 17, "message": ""}, "17"),
        ({"reason": "no face"}, '{"reason": "no face"}'),
        ({"when": datetime(2026, 1, 1, tzinfo=UTC)}, '{"when": "2026-01-01 00:00:00+00:00"}'),
        ({}, "{}"),
        (["a", 1], "['a', 1]"),
        (404, "404"),
        (False, "False"),
        ("", ""),
    ],
    ids=repr,
)
def test_the_words_of_an_error(error: object, words: str | None) -> None:
    """Whatever the form of a swap's error, there are words for it."""
    assert words == Swap(id="tsk_1", status="failed", error=error).error_message


def test_repr_hides_the_signature() -> None:
    """The query of a result URL may be a signature, and is not shown."""
    swap = Swap(id="tsk_1", status=SwapStatus.DONE, progress=100, result_url=RESULT)

    assert repr(swap) == (
        "Swap(id='tsk_1', status=<SwapStatus.DONE: 'done'>, progress=100, "
        "result_url='https://cdn.example.com/r.jpg?…', error=None)"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, None),
        ("", ""),
        ("https://a.example/x.jpg", "https://a.example/x.jpg"),
        ("https://a.example/x.jpg?", "https://a.example/x.jpg?…"),
        ("https://a.example/x.jpg?a=1?b=2#c", "https://a.example/x.jpg?…"),
        ("https://a.example/#x?y", "https://a.example/#x?…"),
    ],
)
def test_urls_are_shown_without_query(url: str | None, shown: str | None) -> None:
    """A shown URL ends before its query."""
    assert shown == without_query(url)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no URL?a=1", "no URL?a=1"),
        ("of https://u:p@a.example/x?a=1, b", "of https://a.example/x?… b"),
        ('{"a": "HTTP://a.example?s=1", "b": "q?"}', '{"a": "HTTP://a.example?…", "b": "q?"}'),
        ("https://a.example/1 https://b.example/?2", "https://a.example/1 https://b.example/?…"),
    ],
)
def test_texts_are_shown_without_queries(text: str, shown: str) -> None:
    """Each URL in them ends before its query; all else stays."""
    assert shown == without_queries(text)


CREDITS = Credits(permanent=1, monthly=2, subscription=3, total=6, extra={"bonus": [1]})
LIMIT = RateLimit(limit=60, remaining=59, window_seconds=60)
SWAP = Swap(
    id="tsk_1",
    status=SwapStatus.FAILED,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    error={"code": ["unhashable"]},
    metadata={"a": []},
    extra={"b": {}},
)
VALUES: list[Any] = [
    request_with(metadata={"a": []}),
    SWAP,
    SwapPage(data=(SWAP, SWAP), next_cursor="c"),
    CREDITS,
    LIMIT,
    Account(
        user_id="u", email_verified=True, subscription_tier="pro", credits=CREDITS, rate_limit=LIMIT
    ),
    WebhookEvent(event="swap.failed", swap=SWAP),
]


def class_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", VALUES, ids=class_of)
def test_values_are_hashable(value: Any) -> None:
    """Every value can stand in a set, with whatever the service put into it."""
    assert {value} == {copy.copy(value), copy.deepcopy(value)}


@pytest.mark.parametrize("value", VALUES, ids=class_of)
def test_values_are_frozen(value: Any) -> None:
    """No field of a value can be set."""
    for field in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, None)


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("value", VALUES, ids=class_of)
def test_values_survive_copying(value: Any, twin: Callable[[Any], Any]) -> None:
    """A copied or pickled value equals the first one."""
    assert value == twin(value)


def test_a_page_is_a_sequence_of_its_swaps() -> None:
    """A page can be iterated over and has a length; an empty one is false."""
    page = SwapPage(data=(SWAP, SWAP))

    assert list(page) == [SWAP, SWAP]
    assert len(page) == 2
    assert not SwapPage(data=())


def test_extras_are_not_shared() -> None:
    """Each value has an `extra` of its own."""
    one, other = Swap(id="tsk_1", status="done"), Swap(id="tsk_2", status="done")

    assert one.extra == {}
    assert one.extra is not other.extra


def test_a_responses_repr_has_no_headers() -> None:
    """The headers of an answer, cookies among them, are not shown."""
    response = Response(value=1, status=200, headers={"Set-Cookie": "secret"})

    assert "secret" not in repr(response)
    assert (response.value, response.status, response.attempts) == (1, 200, 1)


@pytest.mark.parametrize("metadata", [{"name": "\ud800"}, {"\udfff": 1}, {"a": [{"b": "\ud800"}]}])
def test_metadata_is_unicode(metadata: dict[str, Any]) -> None:
    """Half a surrogate pair cannot be stored or sent on by anybody."""
    with pytest.raises(InvalidRequestError, match=r"^metadata must be JSON .*surrogates"):
        request_with(metadata=metadata)
