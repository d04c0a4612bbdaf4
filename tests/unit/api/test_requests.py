"""How calls are built, before anything is sent."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings

import aifaceswap
from aifaceswap._api import requests
from aifaceswap._api.requests import Call
from aifaceswap.errors import (
    InvalidRequestError,
)
from aifaceswap.models import Account, Swap, SwapPage, SwapRequest, SwapType
from support.samples import FACE, TARGET

PROPERTY = settings(max_examples=200, deadline=None)

REQUEST = SwapRequest(source_url=FACE, target_url=TARGET)
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
GET_SWAP = requests.get_swap("tsk_1")


def test_create() -> None:
    """A creation is one POST whose bytes and key are settled before its first attempt."""
    call = requests.create_swap(REQUEST, "key-1")

    assert call == Call(
        method="POST",
        path="/swaps",
        into=Swap,
        body=(
            b'{"source_url":"https://example.com/face.jpg",'
            b'"target_url":"https://example.com/target.jpg","type":"image"}'
        ),
        headers={"Content-Type": "application/json"},
        idempotency_key="key-1",
        is_repeated=True,
        purpose="create",
        template="/swaps",
    )
    assert not requests.create_swap(REQUEST).is_repeated


def test_create_with_everything() -> None:
    """Every field of a request is in the body, under the API's names."""
    fields: dict[str, Any] = {
        "source_url": FACE,
        "target_url": TARGET,
        "type": SwapType.GIF,
        "webhook_url": "https://example.com/hook",
        "target_face_index": 2,
        "enable_face_enhancer": True,
        "metadata": {"größe": [1, None]},
    }

    call = requests.create_swap(SwapRequest(**fields))

    assert call.body is not None
    assert fields == json.loads(call.body)
    assert call.body.isascii()


def test_each_creation_has_a_fresh_key() -> None:
    """Without a key of the caller's own each creation gets a uuid4."""
    keys = [requests.create_swap(REQUEST).idempotency_key or "" for _ in range(100)]

    assert len(set(keys)) == 100
    assert all(UUID4.fullmatch(key) and uuid.UUID(key).version == 4 for key in keys)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX: 1", "ü", 5], ids=repr)
def test_a_key_that_cannot_be_sent(key: Any) -> None:
    """A caller's own key is checked; an empty one is not replaced in silence."""
    with pytest.raises(InvalidRequestError, match=r"^idempotency_key must "):
        requests.create_swap(REQUEST, key)
    with pytest.raises(InvalidRequestError, match=r"^idempotency_key must "):
        requests.any_request("POST", "/x", into=dict, idempotency_key=key)


def test_metadata_too_deep_for_a_body() -> None:
    """Nesting that a request may hold but no body can say is refused as the argument it is."""
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    try:
        request = SwapRequest(source_url=FACE, target_url=TARGET, metadata={"a": deep})
    except InvalidRequestError as error:  # where the stack is too small for the request already
        assert error.field == "metadata"  # noqa: PT017
        return

    with pytest.raises(InvalidRequestError, match=r"^metadata must ") as caught:
        requests.create_swap(request)

    assert request.metadata is caught.value.value


def test_get() -> None:
    """One swap is read without a body or a key."""
    call = Call(
        method="GET", path="/swaps/tsk_1", into=Swap, template="/swaps/{id}", swap_id="tsk_1"
    )
    assert call == GET_SWAP
    assert requests.get_swap("tsk_1", purpose="poll").purpose == "poll"


@pytest.mark.parametrize("swap_id", ["", ".", "..", "a/b", "../me", "a?b", "a%2fb", 5, None])
def test_get_needs_an_id(swap_id: Any) -> None:
    """What is no id never gets into a path."""
    with pytest.raises(InvalidRequestError, match=r"^swap_id must "):
        requests.get_swap(swap_id)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({}, "/swaps?limit=25"),
        ({"limit": 1}, "/swaps?limit=1"),
        ({"limit": 100, "cursor": "abc"}, "/swaps?limit=100&cursor=abc"),
        ({"cursor": "a+b/c=&limit=1"}, "/swaps?limit=25&cursor=a%2Bb%2Fc%3D%26limit%3D1"),
    ],
    ids=["default", "limit", "cursor", "opaque cursor"],
)
def test_list(arguments: Mapping[str, Any], path: str) -> None:
    """A page is asked for by its size and, after the first, by the cursor as it came."""
    call = Call(method="GET", path=path, into=SwapPage, template="/swaps")
    assert call == requests.list_swaps(**arguments)
    assert requests.list_swaps(**arguments, purpose="poll").purpose == "poll"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": True}, "limit"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": 5}, "cursor"),
        ({"cursor": "\ud800"}, "cursor"),
    ],
    ids=repr,
)
def test_list_within_bounds(arguments: Mapping[str, Any], field: str) -> None:
    """A page has 1 to 100 swaps, and a cursor is never empty."""
    with pytest.raises(InvalidRequestError) as caught:
        requests.list_swaps(**arguments)

    assert field == caught.value.field


def test_me() -> None:
    """The account is read without a body or a key."""
    call = Call(method="GET", path="/me", into=Account, template="/me")
    assert call == requests.get_account()


def test_any_request_with_json() -> None:
    """JSON is written once, with its type and a key."""
    call = requests.any_request(
        "patch",
        "/uploads/ü",
        into=list,
        json={"a": [1, "ü"]},
        params={"dry": True, "n": 1.5},
        headers={"X-Trace": "1"},
        idempotency_key="key-1",
    )

    assert call == Call(
        method="PATCH",
        path="/uploads/%C3%BC?dry=true&n=1.5",
        into=list,
        body=b'{"a":[1,"\\u00fc"]}',
        headers={"X-Trace": "1", "Content-Type": "application/json"},
        idempotency_key="key-1",
        is_repeated=True,
    )


@pytest.mark.parametrize("value", [[], {}, 0, False, "", REQUEST], ids=repr)
def test_any_json_is_sent(value: object) -> None:
    """JSON that counts as false is a body too, and so is one of this package's values."""
    call = requests.any_request("POST", "/x", into=dict, json=value)

    assert call.body is not None
    assert json.loads(call.body) == (
        {"source_url": FACE, "target_url": TARGET, "type": "image"} if value is REQUEST else value
    )


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_one_content_type(name: str) -> None:
    """The caller's own Content-Type stands alone, in whatever case it is written."""
    call = requests.any_request("POST", "/x", into=dict, json={}, headers={name: "a/b"})

    assert call.headers == {"Content-Type": "a/b"}


def test_any_request_with_bytes() -> None:
    """Bytes are sent as they are, without a type of ours."""
    call = requests.any_request("PUT", "/uploads", into=bytes, content=b"\xff\xd8")

    assert (call.body, call.headers) == (b"\xff\xd8", {})
    assert UUID4.fullmatch(call.idempotency_key or "")


@pytest.mark.parametrize("method", ["GET", "get", "HEAD", "OPTIONS"])
def test_reads_have_no_key(method: str) -> None:
    """What only reads carries no idempotency key and no body."""
    call = requests.any_request(method, "/x", into=dict)

    assert (call.idempotency_key, call.body) == (None, None)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY"])
def test_all_else_has_a_key(method: str) -> None:
    """Every method that may change something carries a fresh key."""
    one, other = (requests.any_request(method, "/x", into=dict) for _ in range(2))

    assert UUID4.fullmatch(one.idempotency_key or "")
    assert one.idempotency_key != other.idempotency_key


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"method": "GE T"}, "method"),
        ({"path": "https://evil.example/"}, "path"),
        ({"path": "//evil.example/"}, "path"),
        ({"path": "/../x"}, "path"),
        ({"path": "/x?a=1"}, "path"),
        ({"json": {}, "content": b""}, "content"),
        ({"content": "text"}, "content"),
        ({"content": bytearray(b"x")}, "content"),
        ({"json": float("nan")}, "json"),
        ({"json": ...}, "json"),
        ({"json": {"a": {1, 2}}}, "json"),
        ({"params": {"a": None}}, "params['a']"),
        ({"headers": {"Authorization": "Bearer other"}}, "headers"),
        ({"headers": {"idempotency-key": "x"}}, "headers"),
        ({"headers": {"X-A": "a\nb"}}, "headers['X-A']"),
    ],
    ids=repr,
)
def test_what_cannot_be_requested(arguments: dict[str, Any], field: str) -> None:
    """Each argument is checked before anything is sent, and the error names it."""
    with pytest.raises(InvalidRequestError) as caught:
        requests.any_request(**{"method": "POST", "path": "/x", "into": dict, **arguments})

    assert field == caught.value.field
    if field in {"json", "content"}:
        assert arguments[field] is caught.value.value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"json": {}, "content": b"x"}, "content must not be combined with json"),
        ({"json": {1, 2}}, "json must be JSON serializable "),
    ],
    ids=repr,
)
def test_the_words_for_what_cannot_be_requested(arguments: dict[str, Any], words: str) -> None:
    """They say what is wrong with it."""
    with pytest.raises(InvalidRequestError, match=words):
        requests.any_request("POST", "/x", into=dict, **arguments)


def test_a_call_is_frozen() -> None:
    """What the caller changes later has no part in a call that was built."""
    body: dict[str, Any] = {"a": [1]}
    headers = {"X-A": "1"}
    call = requests.any_request("POST", "/x", into=dict, json=body, headers=headers)

    body["a"].append(2)
    headers["X-A"] = "2"

    assert (call.body, call.headers["X-A"]) == (b'{"a":[1]}', "1")


def test_the_user_agent_has_the_version() -> None:
    """The service can tell which release is calling."""
    assert f"aifaceswap-python/{aifaceswap.__version__}" == requests.USER_AGENT
