"""Lifecycle, credits, idempotency, limits and paging, without IO."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap.emulator import Limits
from support.emulator_world import START, make_world


def test_a_swap_goes_through_its_states() -> None:
    """Queued, preparing, processing, done; progress only grows; a result at the end."""
    world = make_world(duration=10.0)
    swap_id = world.create().value["id"]
    seen = []
    for _ in range(11):
        seen.append(world.get(f"/swaps/{swap_id}").value)
        world.now += 1
    progress = [swap["progress"] for swap in seen]

    assert [status for status, _ in itertools.groupby(swap["status"] for swap in seen)] == [
        "queued",
        "preparing",
        "processing",
        "done",
    ]
    assert sorted(progress) == progress
    assert (progress[0], progress[-1]) == (0, 100)
    assert [swap["result_url"] for swap in seen[:-1]] == [None] * 10
    assert seen[-1]["result_url"].startswith(f"http://127.0.0.1:1/results/{swap_id}.jpg?")


def test_a_swap_without_duration_is_done_at_the_next_look() -> None:
    """With duration 0 a creation still answers queued, and a GET done."""
    world = make_world(duration=0.0, limits=Limits(None, None, 1))
    created = [world.create().value for _ in range(3)]

    assert [swap["status"] for swap in created] == ["queued"] * 3
    assert world.get(f"/swaps/{created[0]['id']}").value["status"] == "done"


@pytest.mark.parametrize(
    ("name", "after", "status", "error"),
    [
        ("fails.jpg", 3.0, "failed", {"code", "message"}),
        ("fails-bare.jpg", 3.0, "failed", str),
        ("fails-silent.jpg", 3.0, "failed", None),
        ("instant.jpg", 0.0, "done", None),
        ("slow.jpg", 29.9, "processing", None),
        ("slow.jpg", 30.0, "done", None),
        ("forever.jpg", 1e6, "processing", None),
        ("new-status.jpg", 2.5, "enhancing", None),
        ("new-status.jpg", 3.0, "done", None),
    ],
)
def test_a_magic_file_name_gives_its_life(
    name: str, after: float, status: str, error: object
) -> None:
    """Some file names make a swap fail, dawdle, never end, or show what is new."""
    world = make_world()
    swap_id = world.create(target_url=f"https://example.com/{name}").value["id"]
    world.now += after
    swap = world.get(f"/swaps/{swap_id}").value

    assert status == swap["status"]
    assert (status == "done") == (swap["result_url"] is not None)
    match error:
        case set():
            assert error == set(swap["error"])
        case None:
            assert swap["error"] is None
        case _:
            assert isinstance(swap["error"], str)


def test_new_fields_can_be_had() -> None:
    """One file name adds fields that no document knows."""
    swap = make_world().create(source_url="https://example.com/new-fields.jpg").value

    assert {"eta_seconds", "model"} <= set(swap)


def test_spread_makes_durations_differ_within_bounds() -> None:
    """Durations are drawn from duration ± spread, the same for the same seed."""

    def draw(seed: int) -> list[float]:
        world = make_world(duration=10.0, spread=4.0, seed=seed)
        for _ in range(200):
            world.create()
        return [swap.duration for swap in world.api.state.swaps]

    durations = draw(1)

    assert durations == draw(1) != draw(2)
    assert 6.0 <= min(durations) < 6.5
    assert 13.5 < max(durations) <= 14.0


def test_a_swap_is_charged_once_and_refunded_when_it_fails() -> None:
    """1 credit for an image, 2 for a GIF; a failed one's come back when it has failed."""
    world = make_world(balance=10)
    world.create(type="gif", target_url="https://example.com/a.gif")
    world.create(source_url="https://example.com/fails.jpg")
    before = world.get("/me").value["credits"]["total"]
    world.now += 3
    after = [world.get("/me").value["credits"]["total"] for _ in range(2)]

    assert (before, after) == (7, [8, 8])


def test_credits_run_out_at_exactly_zero() -> None:
    """A swap that costs what is left is made, the next answers 402."""
    world = make_world(balance=2)
    replies = [world.create(type=kind) for kind in ("image", "gif", "image", "image")]

    assert [reply.status for reply in replies] == [201, 402, 201, 402]


def test_a_replay_gives_the_swap_as_it_is_now_and_charges_nothing() -> None:
    """The same key and body, however written, answer 200 with the same swap."""
    world = make_world(balance=1)
    first = world.create("k", metadata={"a": 1, "b": [2]})
    world.now += 3
    again = world.create("k", metadata={"b": [2], "a": 1}, webhook_url=None)

    assert (first.status, again.status) == (201, 200)
    assert (first.value["id"], "done") == (again.value["id"], again.value["status"])
    assert len(world.api.state.swaps) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"target_face_index": 1},
        {"type": "gif"},
        {"metadata": {"a": True}},
        {"source_url": "https://example.com/nsfw.jpg"},
    ],
)
def test_a_key_with_another_body_is_a_conflict(change: dict[str, Any]) -> None:
    """409 idempotency_conflict, also where the other body would be refused."""
    world = make_world()
    world.create("k", metadata={"a": 1})
    reply = world.create("k", **{"metadata": {"a": 1}, **change})

    assert (reply.status, reply.code) == (409, "idempotency_conflict")


def test_an_invalid_body_is_refused_before_its_key_is_looked_at() -> None:
    """The schema comes before idempotency."""
    world = make_world()
    world.create("k")

    assert world.create("k", type="video").code == "validation_error"


def test_keys_belong_to_their_api_key() -> None:
    """The same Idempotency-Key under two API keys makes two swaps."""
    world = make_world()
    one, two = world.create("k"), world.create("k", "key_2")

    assert (one.status, two.status) == (201, 201)
    assert one.value["id"] != two.value["id"]


def test_without_a_key_each_creation_is_a_new_swap() -> None:
    """A missing Idempotency-Key is accepted."""
    world = make_world()

    assert world.create().value["id"] != world.create().value["id"]


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_impossible_idempotency_key_is_invalid(key: str) -> None:
    """A key has 1 to 255 characters."""
    reply = make_world().create(key)

    assert reply.code == "validation_error"
    assert reply.value["error"]["message"].startswith("Idempotency-Key: ")


def test_a_402_is_remembered_with_its_key() -> None:
    """After a top-up only a fresh key helps, as documented."""
    world = make_world(balance=0)
    codes = [world.create("old").status]
    world.api.state.credits += 10
    codes += [world.create("old").status, world.create("fresh").status]

    assert codes == [402, 402, 201]
    assert world.create("old", target_face_index=1).status == 409


def test_other_refusals_are_forgotten() -> None:
    """A key whose creation was refused for want of a slot can be sent again."""
    world = make_world(limits=Limits(None, None, 1))
    statuses = [world.create("a").status, world.create("b").status]
    world.now += 3
    statuses.append(world.create("b").status)

    assert statuses == [201, 429, 201]


def test_the_minute_is_a_sliding_window() -> None:
    """Each request frees its place exactly one window after it came."""
    world = make_world(limits=Limits(3, None, None))
    times = [0, 10, 20, 30, 59.5, 60, 60, 69.5, 70]
    statuses = []
    for time in times:
        world.now = START + time
        statuses.append(world.get("/me").status)

    assert statuses == [200, 200, 200, 429, 429, 200, 429, 429, 200]


def test_a_rate_limited_answer_says_how_long_to_wait() -> None:
    """Retry-After is in whole seconds, rounded up, and true."""
    world = make_world(limits=Limits(1, None, None))
    world.get("/me")
    world.now += 0.5
    reply = world.get("/me")
    world.now += int(reply.headers["Retry-After"])

    assert (
        reply.code,
        reply.headers["Retry-After"],
        reply.headers["x-ratelimit-remaining"],
    ) == ("rate_limited", "60", "0")
    assert world.get("/me").status == 200


def test_a_shorter_window_scales_the_minute() -> None:
    """The window's length can be chosen; Retry-After is at least 1."""
    world = make_world(limits=Limits(1, None, None, window=0.25))
    world.get("/me")
    refused = world.get("/me")
    world.now += 0.25

    assert (refused.headers["Retry-After"], world.get("/me").status) == ("1", 200)


def test_unauthenticated_requests_are_not_counted() -> None:
    """401s leave the window alone, 404s and 400s do not."""
    world = make_world(limits=Limits(3, None, None))
    for _ in range(5):
        world.get("/me", key="no")
    statuses = [world.get("/no").status, world.create(type="no").status]
    statuses += [world.get("/me").status, world.get("/me").status]

    assert statuses == [404, 400, 200, 429]


def test_limits_belong_to_the_key() -> None:
    """One key's requests and swaps do not touch another's limits."""
    world = make_world(limits=Limits(2, None, 1))
    statuses = [world.create(api_key=key).status for key in ("key_1", "key_1", "key_1", "key_2")]

    assert statuses == [201, 429, 429, 201]


def test_the_day_is_a_utc_day() -> None:
    """The daily count starts anew at midnight UTC by the emulator's clock."""
    world = make_world(limits=Limits(None, 2, None))
    world.now = START + 86_400 - 10
    statuses = [world.get("/me").status for _ in range(2)]
    refused = world.get("/me")
    world.now += 10

    assert statuses == [200, 200]
    assert (refused.code, refused.headers["Retry-After"]) == ("rate_limited_daily", "10")
    assert world.get("/me").status == 200


def test_unfinished_swaps_are_limited() -> None:
    """429 rate_limited_concurrent until a swap has ended; Retry-After says when."""
    world = make_world(limits=Limits(None, None, 2))
    world.create()
    world.now += 1
    world.create()
    refused = world.create()
    world.now += 2

    assert (refused.code, refused.headers["Retry-After"]) == ("rate_limited_concurrent", "2")
    assert [world.create().status, world.create().status] == [201, 429]


def test_swaps_that_never_end_hold_their_slots() -> None:
    """forever.jpg holds a slot for good, and Retry-After stays a number."""
    world = make_world(limits=Limits(None, None, 1))
    world.create(source_url="https://example.com/forever.jpg")
    world.now += 1e6
    refused = world.create()

    assert (refused.code, refused.headers["Retry-After"]) == ("rate_limited_concurrent", "60")


def test_pages_hold_every_swap_once_newest_first() -> None:
    """Following next_cursor to its end gives all, also while new ones come in."""
    world = make_world()
    made = [world.create().value["id"] for _ in range(7)]
    world.create(api_key="key_2")
    seen: list[str] = []
    cursor = ""
    while True:
        page = world.get(f"/swaps?limit=3{cursor}").value
        seen += [swap["id"] for swap in page["data"]]
        world.create()
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert made[::-1] == seen


def test_the_page_size_is_25_unless_given() -> None:
    """The limit defaults to 25; a last page has a null cursor."""
    world = make_world()
    for _ in range(26):
        world.create()
    default, whole = world.get("/swaps").value, world.get("/swaps?limit=100").value

    assert (len(default["data"]), len(whole["data"])) == (25, 26)
    assert default["next_cursor"] is not None
    assert whole["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=-1", "limit=", "limit=1.0", "limit=%D9%A3"),
        *("cursor=", "cursor=x", "cursor=MQ", "cursor=%00", "cursor=%F0%9F%98%80"),
        "limit=1&limit=2",
        "&".join("a" * 200),
    ],
)
def test_a_bad_query_is_invalid(query: str) -> None:
    """400 validation_error for page sizes out of range and cursors of others."""
    world = make_world()
    world.create()

    assert world.get(f"/swaps?{query}").code == "validation_error"


def test_a_cursor_belongs_to_its_key() -> None:
    """Another key's cursor is as bad as a made-up one."""
    world = make_world()
    for key in ("key_1", "key_1", "key_2", "key_2"):
        world.create(api_key=key)
    cursor = world.get("/swaps?limit=1").value["next_cursor"]

    assert world.get(f"/swaps?cursor={cursor}", key="key_2").code == "validation_error"


def test_another_keys_swap_is_not_found() -> None:
    """Swaps of other keys answer like missing ones."""
    world = make_world()
    swap_id = world.create().value["id"]

    assert [
        world.get(f"/swaps/{swap_id}").status,
        world.get(f"/swaps/{swap_id}", key="key_2").status,
        world.get("/swaps/tsk_0").status,
    ] == [200, 404, 404]


@given(st.lists(st.floats(0, 40), max_size=60), st.integers(1, 5))
def test_no_window_ever_holds_more_than_the_limit(gaps: list[float], limit: int) -> None:
    """Over any 60 seconds at most `limit` requests are let through, and none too few."""
    world = make_world(limits=Limits(limit, None, None))
    passed: list[float] = []
    for gap in gaps:
        world.now += gap
        recent = sum(world.now - time < 60 - 1e-5 for time in passed)
        status = world.get("/me").status
        edge = any(abs(world.now - time - 60) < 1e-5 for time in passed)
        assert edge or (200 if recent < limit else 429) == status
        if status == 200:
            passed.append(world.now)


@given(st.lists(st.sampled_from(["create", "fail", "wait", "replay"]), max_size=40))
def test_credits_are_never_lost_or_made(steps: list[str]) -> None:
    """Balance plus the cost of all swaps that have not failed is what there was."""
    world = make_world(balance=20, limits=Limits(None, None, 5))
    for number, step in enumerate(steps):
        match step:
            case "create":
                world.create(str(number))
            case "fail":
                world.create(str(number), source_url="https://example.com/fails.jpg")
            case "replay":
                world.create(str(number - 1))
            case _:
                world.now += 1.5
    total = world.get("/me").value["credits"]["total"]
    swaps = world.api.state.swaps
    kept = sum(swap.cost for swap in swaps if swap.status(world.now) != "failed")

    assert total + kept == 20
    assert sum(swap.finish > world.now for swap in swaps if swap.finish < math.inf) <= 5
