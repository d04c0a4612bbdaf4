"""The facts of the API, one test each, in the order of the provider's documents.

The docstring is the fact, the mark says how sure it is. `emulated` tells why the real service is
not asked.
"""

from __future__ import annotations

import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from aifaceswap.emulator import Limits
from conformance.service import METADATA, Answer, Receiver, Service, read_items

documented = pytest.mark.sure("documented")
inferred = pytest.mark.sure("inferred")
assumed = pytest.mark.sure("assumed")
costs = pytest.mark.costs
emulated = pytest.mark.emulated

IN_BETWEEN = {"preparing", "processing"}
LIMITS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
MINUTE = emulated("it would use up the key's minute")
ANOTHER_KEY = emulated("it takes a second key")
FAULTS = emulated("it cannot be made to do this")
MANY = emulated("it would cost many credits")
RISKY = emulated("if it were lenient it would cost credits for nothing")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_swap(answer: Answer) -> Any:
    """The swap of a creation's answer."""
    assert 200 <= answer.status <= 299, answer.body
    return answer.value


def magic(service: Service, name: str) -> dict[str, Any]:
    """A creation that the emulator answers as the file name says."""
    return service.fields(source_url=f"https://example.com/{name}")


# --- the key -------------------------------------------------------------------------------


@documented
@pytest.mark.parametrize("header", ["", "Bearer", "Basic a2V5OmtleQ=="])
def test_a_missing_or_malformed_authorization(service: Service, header: str) -> None:
    """401 `unauthorized` without a well-formed Authorization header."""
    answer = service.send("GET", "/me", headers={"Authorization": header})

    assert (answer.status, answer.code) == (401, "unauthorized")


@documented
def test_a_key_that_is_not_live(service: Service) -> None:
    """401 `invalid_api_key` for what is not a live key."""
    answer = service.get("/me", api_key=f"{service.api_key}x")

    assert (answer.status, answer.code) == (401, "invalid_api_key")


@documented
@emulated("its key is still needed")
def test_a_revoked_key(service: Service) -> None:
    """A revoked key is no live key."""
    assert service.emulator is not None
    assert service.get("/me").status == 200
    service.emulator.revoke_key(service.api_key)

    assert service.get("/me").code == "invalid_api_key"


@documented
@ANOTHER_KEY
def test_lists_and_limits_belong_to_the_key(service: Service) -> None:
    """Two keys of one user see different lists, and have limits of their own."""
    assert service.emulator is not None
    service.emulator.add_key("key_other")
    service.create(service.fields())
    mine, others = service.get("/swaps"), service.get("/swaps", api_key="key_other")

    assert (len(read_items(mine)), len(read_items(others))) == (1, 0)
    assert (mine.headers["x-ratelimit-remaining"], others.headers["x-ratelimit-remaining"]) == (
        "58",
        "59",
    )


# --- GET /me -------------------------------------------------------------------------------


@documented
def test_the_account(service: Service) -> None:
    """GET /me tells the user, the credits and the rate limit."""
    account = service.get("/me").value

    assert isinstance(account["user_id"], str)
    assert isinstance(account["email_verified"], bool)
    assert isinstance(account["subscription_tier"], str)
    credit = [account["credits"][n] for n in ("permanent", "monthly", "subscription", "total")]
    limit = [account["rate_limit"][n] for n in ("limit", "window_seconds", "remaining")]
    assert all(map(is_number, credit + limit))


@documented
def test_the_limit_of_the_minute(service: Service) -> None:
    """A key has 60 requests in 60 seconds."""
    limit = service.get("/me").value["rate_limit"]

    assert (limit["limit"], limit["window_seconds"]) == (60, 60)


@documented
def test_the_account_counts_toward_the_minute(service: Service) -> None:
    """GET /me is a request like any other: fewer than all are left."""
    answer = service.get("/me")

    assert 0 <= answer.value["rate_limit"]["remaining"] < 60
    assert 0 <= int(answer.headers["x-ratelimit-remaining"]) < 60


@documented
def test_looking_costs_nothing(service: Service) -> None:
    """GET /me and GET /swaps cost no credits."""
    before = service.balance()
    service.get("/swaps")

    assert before == service.balance()


# --- every answer ----------------------------------------------------------------------------


@documented
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/me"), ("GET", "/swaps?limit=0"), ("PUT", "/swaps")]
)
def test_the_limit_headers(service: Service, method: str, path: str) -> None:
    """Every answer says how many requests are allowed and left, and the time of the reset."""
    headers = service.send(method, path).headers
    limit, remaining, reset = (int(headers[name]) for name in LIMITS)

    assert 0 <= remaining <= limit
    assert abs(reset - _now(service)) < 3600


def _now(service: Service) -> float:
    return service.emulator.clock.now() if service.emulator else datetime.now(UTC).timestamp()


@documented
@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/swaps?limit=0", 400), ("PUT", "/swaps", 405)]
)
def test_the_error_envelope(service: Service, method: str, path: str, status: int) -> None:
    """Every answer that is no 2xx says its code, a message and the id of the request."""
    answer = service.send(method, path)
    error = answer.value["error"]

    assert status == answer.status
    assert all(isinstance(error[name], str) for name in ("code", "message", "request_id"))
    assert error["request_id"].startswith("req_")
    assert answer.headers.get_content_type() == "application/json"


@documented
def test_a_method_that_is_not_there(service: Service) -> None:
    """405 `method_not_allowed` for a method that the path does not have."""
    answer = service.send("PUT", "/swaps")

    assert (answer.status, answer.code) == (405, "method_not_allowed")


@inferred
def test_a_path_that_is_not_there(service: Service) -> None:
    """404 `not_found` for a path that is not there."""
    answer = service.get("/nothing-here")

    assert (answer.status, answer.code) == (404, "not_found")


@assumed
def test_every_answer_has_an_id(service: Service) -> None:
    """Answers carry `x-request-id`, also where they are no errors."""
    assert service.get("/me").headers["x-request-id"].startswith("req_")


# --- GET /swaps --------------------------------------------------------------------------------


def fill(service: Service, count: int) -> None:
    """Have swaps in the list, where that costs nothing."""
    for number in range(count if service.emulator else 0):
        service.pause(1)
        service.create(service.fields(metadata={"number": number}))


@documented
def test_the_newest_comes_first(service: Service) -> None:
    """The list begins with the newest swap."""
    fill(service, 3)
    times = [datetime.fromisoformat(swap["created_at"]) for swap in _need(service, 2)]

    assert sorted(times, reverse=True) == times


def _need(service: Service, count: int) -> list[Any]:
    items = read_items(service.get("/swaps"))
    # The emulator's list was filled before.
    if len(items) < count and not service.emulator:
        pytest.skip(f"this key has fewer than {count} swaps to list")
    return items


@documented
def test_a_page_has_25_swaps(service: Service) -> None:
    """A page has up to 25 swaps unless `limit` says otherwise."""
    for _ in range(3):
        fill(service, 9)
        service.pause(60 if service.emulator else 0)

    assert len(_need(service, 25)) == 25


@documented
def test_a_limit(service: Service) -> None:
    """`limit` says how many swaps a page has."""
    fill(service, 2)
    _need(service, 2)

    assert len(read_items(service.get("/swaps?limit=1"))) == 1
    assert service.get("/swaps?limit=100").status == 200


@documented
@pytest.mark.parametrize("limit", ["0", "101", "-1", "x"])
def test_a_limit_out_of_range(service: Service, limit: str) -> None:
    """400 `validation_error` that names `limit` where it is not from 1 to 100."""
    answer = service.get(f"/swaps?limit={limit}")

    assert (answer.status, answer.code) == (400, "validation_error")
    assert "limit" in answer.value["error"]["message"]


@documented
def test_a_cursor_leads_on(service: Service) -> None:
    """`next_cursor`, sent back as `cursor`, gives the page that follows."""
    fill(service, 2)
    first, second = _need(service, 2)[:2]
    page = service.get("/swaps?limit=1")
    following = service.get(f"/swaps?limit=1&cursor={page.value['next_cursor']}")

    assert [first["id"]] == [swap["id"] for swap in read_items(page)]
    assert [second["id"]] == [swap["id"] for swap in read_items(following)]


@inferred
def test_the_end_of_the_list(service: Service) -> None:
    """No `next_cursor`, or null, ends the list."""
    fill(service, 2)
    page = service.get("/swaps?limit=100")
    if len(read_items(page)) == 100:
        pytest.skip("this key has too many swaps to see the end on one page")

    assert page.value.get("next_cursor") is None


@assumed
def test_the_field_of_the_swaps(service: Service) -> None:
    """The swaps of a page are in `data`."""
    assert isinstance(service.get("/swaps").value["data"], list)


@assumed
def test_a_cursor_that_is_none(service: Service) -> None:
    """400 `validation_error` for a cursor that no page gave."""
    answer = service.get("/swaps?cursor=nothing")

    assert (answer.status, answer.code) == (400, "validation_error")


# --- POST /swaps -------------------------------------------------------------------------------


@documented
@costs
def test_a_creation(service: Service) -> None:
    """A creation answers with a queued swap."""
    swap = read_swap(service.creation().answer)

    assert swap["status"] == "queued"
    assert swap["id"].startswith("tsk_")
    assert swap["type"] == "image"
    assert is_number(swap["credit_cost"])
    assert 0 <= swap["progress"] <= 100
    assert (swap["result_url"], swap["error"], swap["webhook_url"]) == (None, None, None)


@documented
@costs
def test_the_time_of_creation(service: Service) -> None:
    """`created_at` is an ISO 8601 time in UTC."""
    text = read_swap(service.creation().answer)["created_at"]

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text)
    assert abs(datetime.fromisoformat(text).timestamp() - _now(service)) < 3600


@documented
@costs
def test_metadata_comes_back(service: Service) -> None:
    """`metadata` is echoed."""
    assert read_swap(service.creation().answer)["metadata"] == METADATA


@assumed
@costs
def test_the_status_of_a_creation(service: Service) -> None:
    """A new swap is answered with 201."""
    assert service.creation().answer.status == 201


@assumed
@costs
def test_the_price(service: Service) -> None:
    """An image costs 1 credit, charged at its creation."""
    creation = service.creation()

    assert read_swap(creation.answer)["credit_cost"] == 1
    assert creation.before - creation.after == 1


@documented
@costs
def test_the_same_swap_sent_again(service: Service) -> None:
    """The same key and body give the same swap, and nothing is charged."""
    creation = service.creation()
    again = service.create(creation.fields, key=creation.key)

    assert read_swap(again)["id"] == read_swap(creation.answer)["id"]
    assert creation.after == service.balance()


@assumed
@costs
def test_the_status_of_a_replay(service: Service) -> None:
    """The same swap sent again is answered with 200."""
    creation = service.creation()

    assert service.create(creation.fields, key=creation.key).status == 200


@assumed
@RISKY
def test_the_same_key_for_another_swap(service: Service) -> None:
    """409 `idempotency_conflict` for the same key with another body."""
    key = service.creation().key
    answer = service.create(service.fields(metadata={"row": 8}), key=key)

    assert (answer.status, answer.code) == (409, "idempotency_conflict")


@documented
@costs
@pytest.mark.parametrize("field", ["source_url", "target_url"])
def test_a_url_that_is_missing(service: Service, field: str) -> None:
    """400 `validation_error` that names the URL that is missing."""
    answer = service.create(service.fields(source_url=None, target_url=None))
    other = service.create({**service.fields(), field: 7})

    assert (answer.status, answer.code) == (400, "validation_error")
    assert (other.status, other.code) == (400, "validation_error")
    assert field in other.value["error"]["message"]


@documented
@costs
def test_a_name_that_does_not_resolve(service: Service) -> None:
    """400 `source_unreachable` where the name of a URL's host does not resolve."""
    answer = service.create(service.fields(source_url="https://nobody.invalid/unreachable.jpg"))

    assert (answer.status, answer.code) == (400, "source_unreachable")


@documented
@costs
@pytest.mark.parametrize("field", ["source_url", "target_url"])
def test_a_host_that_is_not_public(service: Service, field: str) -> None:
    """400 `source_unreachable` where a URL's host is not public."""
    answer = service.create(service.fields(**{field: "https://127.0.0.1/face.jpg"}))

    assert (answer.status, answer.code) == (400, "source_unreachable")


@documented
@RISKY
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "video"),
        ("source_url", "http://example.com/face.jpg"),
        ("target_url", "http://example.com/face.jpg"),
        ("webhook_url", "http://example.com/hook"),
        ("target_face_index", "0"),
        ("enable_face_enhancer", "yes"),
        ("metadata", "row 7"),
    ],
)
def test_a_field_of_the_wrong_form(service: Service, field: str, value: object) -> None:
    """400 `validation_error` that names the field, where it is not what it should be."""
    answer = service.create(service.fields(**{field: value}))

    assert (answer.status, answer.code) == (400, "validation_error")
    assert field in answer.value["error"]["message"]


@inferred
@RISKY
def test_the_first_face_is_0(service: Service) -> None:
    """400 `validation_error` for a negative `target_face_index`: the first face is 0."""
    answer = service.create(service.fields(target_face_index=-1))

    assert (answer.status, answer.code) == (400, "validation_error")


@documented
@costs
def test_a_body_that_is_not_json(service: Service) -> None:
    """415 `unsupported_media_type` where Content-Type is not JSON."""
    answer = service.create(service.fields(), headers={"Content-Type": "text/plain"})

    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@inferred
@MANY
def test_a_gif(service: Service) -> None:
    """A target may be a GIF."""
    assert read_swap(service.create(service.fields(type="gif")))["type"] == "gif"


@documented
@MANY
def test_every_field(service: Service) -> None:
    """The optional fields are taken, and `webhook_url` is echoed."""
    fields = {
        "webhook_url": "https://shop.example.com/hooks/swap",
        "target_face_index": 1,
        "enable_face_enhancer": True,
        "metadata": {},
    }
    swap = read_swap(service.create(service.fields(**fields)))

    assert (swap["webhook_url"], swap["metadata"]) == (fields["webhook_url"], {})


@documented
@FAULTS
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("no-credits.jpg", 402, "insufficient_credits"),
        ("too-large.jpg", 413, "payload_too_large"),
        ("not-an-image.txt", 415, "unsupported_media_type"),
        ("nsfw.jpg", 422, "nsfw_content_detected"),
        ("disabled.jpg", 503, "api_temporarily_disabled"),
    ],
)
def test_other_refusals(service: Service, name: str, status: int, code: str) -> None:
    """What the pictures or the account are refused for has a status and a code."""
    answer = service.create(magic(service, name))

    assert (answer.status, answer.code) == (status, code)


@documented
@emulated("it would take a key without credits", credits=0)
def test_a_fresh_key_after_a_refusal_for_credits(service: Service) -> None:
    """After 402 the swap has to be sent with a fresh key."""
    assert service.emulator is not None
    refused = service.create(service.fields(), key="one")
    service.emulator.top_up(1)
    again = service.create(service.fields(), key="one")
    fresh = service.create(service.fields(), key="two")

    assert (refused.status, refused.code) == (402, "insufficient_credits")
    assert (again.status, again.code) == (402, "insufficient_credits")
    assert read_swap(fresh)["status"] == "queued"


# --- GET /swaps/{id} ---------------------------------------------------------------------------


@inferred
def test_a_swap_that_is_not_there(service: Service) -> None:
    """404 for an id that this key has not."""
    assert service.get("/swaps/tsk_nothing").status == 404


@inferred
@ANOTHER_KEY
def test_a_swap_of_another_key(service: Service) -> None:
    """Another key's swap answers like a missing one."""
    assert service.emulator is not None
    service.emulator.add_key("key_other")
    swap_id = read_swap(service.creation().answer)["id"]

    assert service.get(f"/swaps/{swap_id}", api_key="key_other").status == 404


@documented
@costs
def test_a_swap_ends(service: Service) -> None:
    """A swap ends as `done`, with a result, or as `failed`; `progress` is from 0 to 100."""
    seen = service.finish()

    assert seen[-1]["status"] in {"done", "failed"}
    assert all(0 <= swap["progress"] <= 100 for swap in seen)
    assert (seen[-1]["result_url"] is not None) == (seen[-1]["status"] == "done")


@documented
@costs
def test_a_result_is_an_https_url(service: Service) -> None:
    """`result_url` is an https URL (the emulator has http, there as for all else)."""
    swap = service.finish()[-1]
    if swap["status"] != "done":
        pytest.skip(f"the swap has failed: {swap['error']}")

    assert swap["result_url"].startswith(f"{urlsplit(service.url).scheme}://")


@inferred
@costs
def test_the_states_in_between(service: Service) -> None:
    """Before it ends a swap is `queued`, `preparing` or `processing`."""
    assert {swap["status"] for swap in service.finish()[:-1]} <= {"queued", *IN_BETWEEN}


# --- limits ------------------------------------------------------------------------------------


@documented
@MINUTE
def test_more_than_the_minute_allows(service: Service) -> None:
    """429 `rate_limited` over 60 requests in a sliding minute, and `Retry-After` is true."""
    statuses = {service.get("/me").status for _ in range(60)}
    refused = service.get("/me")

    assert statuses == {200}
    assert (refused.status, refused.code) == (429, "rate_limited")
    service.pause(int(refused.headers["Retry-After"]))
    assert service.get("/me").status == 200


@documented
@emulated("it would use up the key's day", limits=Limits(per_day=30))
def test_more_than_the_day_allows(service: Service) -> None:
    """429 `rate_limited_daily` over so many requests in a UTC day: 10,000 unless told otherwise."""
    statuses = {service.get("/me").status for _ in range(30)}
    refused = service.get("/me")

    assert Limits().per_day == 10_000
    assert statuses == {200}
    assert (refused.status, refused.code) == (429, "rate_limited_daily")
    service.pause(int(refused.headers["Retry-After"]))
    assert service.get("/me").status == 200


@documented
@MANY
def test_more_swaps_at_once_than_allowed(service: Service) -> None:
    """429 `rate_limited_concurrent` with 10 unfinished swaps."""
    statuses = {service.create(service.fields()).status for _ in range(10)}
    refused = service.create(service.fields())

    assert all(200 <= status <= 299 for status in statuses)
    assert (refused.status, refused.code) == (429, "rate_limited_concurrent")
    service.pause(int(refused.headers["Retry-After"]))
    assert 200 <= service.create(service.fields()).status <= 299


# --- webhooks ----------------------------------------------------------------------------------


@documented
@emulated("no machine of ours can be reached by it")
@pytest.mark.parametrize(
    ("name", "event", "status"),
    [("face.jpg", "swap.completed", "done"), ("fails.jpg", "swap.failed", "failed")],
)
def test_a_delivery(
    service: Service, receiver: Receiver, name: str, event: str, status: str
) -> None:
    """When a swap ends, it is posted to `webhook_url` with an event, signed with the API key."""
    assert service.emulator is not None
    webhook_url = "https://shop.example.com/hooks/swap"
    created = read_swap(service.create({**magic(service, name), "webhook_url": webhook_url}))
    service.pause(10)
    service.emulator.settle_blocking()
    ((headers, body),) = receiver.received
    fields = json.loads(body)

    assert event == fields.pop("event")
    assert {**created, "status": status}.keys() == fields.keys()
    assert (created["id"], status) == (fields["id"], fields["status"])
    signed = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["x-aifaceswap-signature"])
    assert signed is not None
    assert abs(int(signed[1]) - _now(service)) <= 300
    assert signed[2] == _sign(service.api_key, signed[1], body)


def _sign(api_key: str, timestamp: str, body: bytes) -> str:
    return hmac.digest(api_key.encode(), f"{timestamp}.".encode() + body, "sha256").hex()


@documented
def test_the_worked_example_of_a_signature() -> None:
    """The documents' own example of a signature is what these tests would make."""
    body = b'{"event":"swap.completed","id":"tsk_1"}'

    assert (
        _sign("key_test_123", "1760000000", body)
        == "cee582b09284b4f073d461a5cea4c948301100115120c7ab36c27f5d40ee6cfb"
    )
