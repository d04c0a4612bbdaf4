"""The API's rules, without IO."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aifaceswap.emulator import Limits
from aifaceswap.emulator._service import scenarios
from support.emulator_world import START, SWAP, make_world

CODES = {
    "invalid.jpg": (400, "validation_error"),
    "unreachable.jpg": (400, "source_unreachable"),
    "no-credits.jpg": (402, "insufficient_credits"),
    "too-large.jpg": (413, "payload_too_large"),
    "not-an-image.txt": (415, "unsupported_media_type"),
    "nsfw.jpg": (422, "nsfw_content_detected"),
    "rate-limited.jpg": (429, "rate_limited"),
    "rate-limited-daily.jpg": (429, "rate_limited_daily"),
    "rate-limited-concurrent.jpg": (429, "rate_limited_concurrent"),
    "internal-error.jpg": (500, "internal_error"),
    "disabled.jpg": (503, "api_temporarily_disabled"),
}


def test_a_creation_answers_with_a_queued_swap() -> None:
    """A new swap has every field of the contract and is queued."""
    reply = make_world().create(metadata={"row": 1})
    swap = reply.value

    assert reply.status == 201
    assert re.fullmatch(r"tsk_[0-9a-f]{24}", swap.pop("id"))
    assert swap == {
        "type": "image",
        "status": "queued",
        "credit_cost": 1,
        "progress": 0,
        "created_at": "2026-01-01T00:00:00.000Z",
        "result_url": None,
        "error": None,
        "metadata": {"row": 1},
        "webhook_url": None,
    }


def test_the_same_seed_gives_the_same_ids() -> None:
    """Ids depend on the seed and on nothing else."""
    one, same, other = make_world(seed=1), make_world(seed=1), make_world(seed=2)

    assert one.create().raw == same.create().raw
    assert one.create().value["id"] != other.create().value["id"]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic key_1", "key_1", "Bearer a b"]
)
def test_no_or_a_malformed_authorization_is_unauthorized(header: str | None) -> None:
    """401 unauthorized where the header is missing or malformed."""
    world = make_world()
    reply = world.send("GET", "/api/v1/me", headers={"Authorization": header or ""})

    assert (reply.status, reply.code) == (401, "unauthorized")


def test_an_unknown_or_revoked_key_is_invalid() -> None:
    """401 invalid_api_key where the key is not live."""
    world = make_world()
    world.api.state.accounts["key_2"].live = False

    assert [world.get("/me", key=key).code for key in ("no", "key_2")] == ["invalid_api_key"] * 2


def test_every_answer_carries_an_id_and_the_limits() -> None:
    """Answers of all kinds have x-request-id and x-ratelimit headers; ids are fresh."""
    world = make_world(limits=Limits())
    replies = [
        world.get("/me"),
        world.create(),
        world.get("/nothing"),
        world.get("/me", key="no"),
        world.send("DELETE", "/api/v1/swaps"),
        world.send("GET", "/"),
    ]
    ids = [reply.headers["x-request-id"] for reply in replies]

    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", request_id) for request_id in ids)
    assert ids[2] == replies[2].value["error"]["request_id"]
    assert all(reply.headers["x-ratelimit-limit"] == "60" for reply in replies)
    assert [reply.headers["x-ratelimit-remaining"] for reply in replies[:3]] == ["59", "58", "57"]
    assert all(str(int(START) + 60) == reply.headers["x-ratelimit-reset"] for reply in replies)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/v1/swaps", "GET, POST"),
        ("PUT", "/api/v1/swaps/tsk_1", "GET"),
        ("POST", "/api/v1/me", "GET"),
        ("HEAD", "/api/v1/me", "GET"),
    ],
)
def test_a_wrong_method_is_not_allowed(method: str, path: str, allow: str) -> None:
    """405 with the methods that are allowed."""
    reply = make_world().send(method, path)

    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert allow == reply.headers["Allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1",
        "/api/v1/",
        "/api/v1/swaps/",
        "/api/v1/swaps/a/b",
        "/api/v2/me",
        "/api/v1x/me",
    ],
)
def test_an_unknown_path_is_not_found(path: str) -> None:
    """404 for what is not a route."""
    reply = make_world().send("GET", path)

    assert (reply.status, reply.code) == (404, "not_found")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonx"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "nonsense"},
    ],
)
def test_only_plain_json_bodies_are_read(headers: dict[str, str]) -> None:
    """415 for another Content-Type or any Content-Encoding."""
    reply = make_world().send("POST", "/api/v1/swaps", json_=SWAP, headers=headers)

    assert (reply.status, reply.code) == (415, "unsupported_media_type")


def test_a_content_type_may_have_parameters() -> None:
    """`application/json; charset=utf-8` in any case is JSON."""
    headers = {"Content-Type": "Application/JSON ; charset=utf-8"}

    assert make_world().send("POST", "/api/v1/swaps", json_=SWAP, headers=headers).status == 201


def spell(metadata: str) -> bytes:
    """A creation that is right but for its metadata."""
    return f'{json.dumps(SWAP)[:-1]}, "metadata": {{"a": {metadata}}}}}'.encode()


def test_what_is_spelled_right_is_accepted() -> None:
    """Nesting up to 64 deep and numbers up to the largest float are fine."""
    world = make_world()
    bodies = [spell("[" * 62 + "]" * 62), spell("1e308"), spell('"' + "[" * 100 + '"')]

    assert [world.send("POST", "/api/v1/swaps", body=body).status for body in bodies] == [201] * 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        spell("NaN"),
        spell("-Infinity"),
        spell("1e999"),
        spell("1" * 5000),
        spell("[" * 63 + "]" * 63),
        spell('{"a":' * 63 + "1" + "}" * 63),
        spell('"\\ud8"'),
        b"[" * 100_000,
        json.dumps(SWAP).encode("utf-16"),
    ],
)
def test_a_body_that_is_not_strict_json_is_invalid(body: bytes) -> None:
    """400 validation_error for broken, deep, non-finite or wrongly encoded JSON."""
    reply = make_world().send("POST", "/api/v1/swaps", body=body)

    assert (reply.status, reply.code) == (400, "validation_error")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", None),
        ("type", "video"),
        ("type", ["image"]),
        ("source_url", None),
        ("source_url", 1),
        ("source_url", ""),
        ("source_url", "face.jpg"),
        ("source_url", "http://example.com/a.jpg"),
        ("source_url", "ftp://example.com/a.jpg"),
        ("source_url", "https://"),
        ("source_url", "https:///a.jpg"),
        ("source_url", "https://[::/a.jpg"),
        ("source_url", "https://example.com:99999/a.jpg"),
        ("source_url", "https://example.com/a b.jpg"),
        ("source_url", "https://example.com/a\n.jpg"),
        ("source_url", "https://example.com/" + "a" * 9000),
        ("target_url", "http://example.com/a.jpg"),
        ("webhook_url", "http://example.com/hook"),
        ("webhook_url", "https://127.0.0.1/hook"),
        ("webhook_url", False),
        ("target_face_index", -1),
        ("target_face_index", True),
        ("target_face_index", 1.5),
        ("target_face_index", -1.0),
        ("target_face_index", "0"),
        ("enable_face_enhancer", 1),
        ("enable_face_enhancer", "true"),
        ("metadata", []),
        ("metadata", "x"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    """400 validation_error whose message starts with the field."""
    world = make_world()
    reply = world.create(**{field: value})

    assert (reply.status, reply.code) == (400, "validation_error")
    assert reply.value["error"]["message"].startswith(f"{field}: ")
    assert world.api.state.swaps == []


@pytest.mark.parametrize("field", ["source_url", "target_url"])
@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/a.jpg",
        "https://LOCALHOST./a.jpg",
        "https://nowhere.invalid/a.jpg",
        "https://shop.test/a.jpg",
        "https://SHOP.TEST./a.jpg",
        "https://a..example.com/a.jpg",
        f"https://{'a' * 64}.example.com/a.jpg",
        "https://a.localhost/a.jpg",
        "https://intranet/a.jpg",
        "https://127.0.0.1/a.jpg",
        "https://127.1/a.jpg",
        "https://2130706433/a.jpg",
        "https://0x7f.0.0.1/a.jpg",
        "https://10.1.2.3/a.jpg",
        "https://169.254.169.254/latest",
        "https://192.168.0.1:8443/a.jpg",
        "https://[::1]/a.jpg",
        "https://[::ffff:127.0.0.1]/a.jpg",
        "https://user@127.0.0.1/a.jpg",
        "https://example..com/a.jpg",
    ],
)
def test_a_picture_that_is_not_public_is_unreachable(field: str, url: str) -> None:
    """400 source_unreachable whose message starts with the field."""
    world = make_world()
    reply = world.create(**{field: url})

    assert (reply.status, reply.code) == (400, "source_unreachable")
    assert reply.value["error"]["message"].startswith(f"{field}: ")
    assert world.api.state.swaps == []


@pytest.mark.parametrize(
    "fields",
    [
        {"source_url": "HTTPS://Example.COM:443/a.jpg?x=1#y"},
        {"source_url": "https://8.8.8.8/a.jpg"},
        {"source_url": "https://[2001:4860:4860::8888]/a.jpg"},
        {"source_url": "https://bücher.example/ä.jpg"},
        {"target_face_index": 3, "enable_face_enhancer": False, "metadata": {"a": [1.5, None]}},
        {"webhook_url": "https://shop.test/hooks"},
        {"webhook_url": None, "target_face_index": None, "metadata": None},
        {"target_face_index": 1.0},
        {"a_new_field": {"x": 1}},
        {"metadata": {"lone": "\ud800"}},
    ],
)
def test_a_right_body_is_accepted(fields: dict[str, Any]) -> None:
    """Public https URLs, optional fields, nulls and unknown fields are accepted."""
    reply = make_world().create(**fields)

    assert reply.status == 201
    assert fields.get("metadata") == reply.value["metadata"]


@pytest.mark.parametrize("field", ["source_url", "target_url"])
@pytest.mark.parametrize("name", CODES)
def test_a_magic_file_name_gives_its_error(name: str, field: str) -> None:
    """Each documented error can be had by a file name, on any host, charged nothing."""
    world = make_world()
    reply = world.create(**{field: f"https://a.example.org/some/where/{name}?v=1"})

    assert CODES[name] == (reply.status, reply.code)
    assert (reply.status in {429, 503}) == ("Retry-After" in reply.headers)
    assert world.api.state.credits == 1000.0


def test_every_magic_file_name_is_documented() -> None:
    """The table in docs/emulator.md names those of the code and no others."""
    page = (Path(__file__).parents[3] / "docs" / "emulator.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z-]+\.\w+)` \|", page, re.MULTILINE)

    assert sorted(documented) == sorted([*scenarios.LIVES, *scenarios.PROBLEMS, scenarios.DAILY])


def test_the_daily_magic_says_to_wait_until_midnight() -> None:
    """The daily limit's Retry-After ends at the next UTC midnight."""
    world = make_world()
    world.now += 86_400 - 90.5
    reply = world.create(source_url="https://example.com/rate-limited-daily.jpg")

    assert reply.headers["Retry-After"] == "91"


def test_me_says_who_and_what_is_left() -> None:
    """GET /me has the documented fields."""
    world = make_world(limits=Limits(), balance=7.5)
    world.create()
    me = world.get("/me").value

    assert me.pop("user_id").startswith("usr_")
    assert me == {
        "email_verified": True,
        "subscription_tier": "free",
        "credits": {"permanent": 6.5, "monthly": 0, "subscription": 0, "total": 6.5},
        "rate_limit": {"limit": 60, "window_seconds": 60, "remaining": 58},
    }


@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_a_creation(body: bytes) -> None:
    """Whatever the body is, the answer is a 400 in the envelope."""
    reply = make_world().send("POST", "/api/v1/swaps", body=body)

    assert (reply.status, reply.code) == (400, "validation_error")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # drawing takes long on a busy machine
@given(
    fields=st.dictionaries(
        st.sampled_from(
            [
                "type",
                "source_url",
                "target_url",
                "webhook_url",
                "target_face_index",
                "enable_face_enhancer",
                "metadata",
                "other",
            ]
        ),
        JSON | st.from_regex(r"https?://[a-z0-9.:\[\]@-]*(/\w*)?", fullmatch=True),
    )
)
def test_no_fields_break_a_creation(fields: dict[str, Any]) -> None:
    """Whatever the fields are, the answer is a swap or an error of the contract."""
    reply = make_world().create(**fields)

    assert reply.status in {201, 400}
    assert reply.status == 201 or reply.code in {"validation_error", "source_unreachable"}


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "X"]),
    path=st.text(max_size=30).map(lambda text: f"/api/v1/{text}") | st.text(max_size=30),
    authorization=st.text(max_size=20) | st.just("Bearer key_1"),
    query=st.text(max_size=30) | st.sampled_from(["limit=5", "limit=1&limit=2", "cursor=%ff"]),
)
def test_no_request_line_breaks_the_api(
    method: str, path: str, authorization: str, query: str
) -> None:
    """Whatever is asked, the answer is a known status with the envelope."""
    world = make_world()
    sent = path.replace("?", "") + "?" + query
    reply = world.send(method, sent, headers={"Authorization": authorization})

    assert reply.status in {200, 400, 401, 404, 405}
    assert reply.status == 200 or reply.value["error"]["request_id"]
