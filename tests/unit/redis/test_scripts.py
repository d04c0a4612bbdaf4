"""The rules of the shared rate limiter, step by step, with a clock that the tests move."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.redis_scripts import KEYS, LEASE, START, ScriptedClock
from support.redis_server import RedisServer


@pytest.fixture
def scripts(redis_server: RedisServer) -> ScriptedClock:
    """Five requests in ten seconds; the window is known."""
    scripts = ScriptedClock.on(redis_server)
    scripts.known()
    return scripts


def test_a_permit_is_free_one_window_after_its_response(scripts: ScriptedClock) -> None:
    """Not after its request: the service may have counted it as late as its response."""
    for number in range(5):
        assert scripts.acquire(f"{number}")[0] == 1
    scripts.now += 3
    for number in range(5):
        scripts.settle(f"{number}")
    scripts.now += 9.999
    assert scripts.acquire("late")[0] == 0
    scripts.now += 0.002

    assert scripts.acquire("late")[0] == 1


def test_the_delay_is_that_of_the_place_in_the_queue(scripts: ScriptedClock) -> None:
    """Who waits behind others is told when the permit after theirs becomes free."""
    for number in range(5):
        scripts.acquire(f"{number}")
        scripts.settle(f"{number}")
        scripts.now += 1

    assert scripts.acquire("first one") == (0, 5.0, "rate_limited")
    assert scripts.acquire("second", "read") == (0, 6.0, "rate_limited")
    assert scripts.acquire("first one") == (0, 5.0, "rate_limited")


def test_the_same_question_takes_one_permit(scripts: ScriptedClock) -> None:
    """A client that lost the response asks again with the same id."""
    scripts.requests = 1

    assert [scripts.acquire("a")[0] for _ in range(3)] == [1, 1, 1]
    assert scripts.acquire("b", max_wait=0)[0] == -1


def test_a_cancelled_permit_is_free_at_once(scripts: ScriptedClock) -> None:
    """Its request was never sent."""
    scripts.acquire("a")
    scripts.cancel("a")

    assert scripts.in_use() == 0


def test_a_cancellation_that_overtakes_its_question(scripts: ScriptedClock) -> None:
    """On another connection, or when the server slept: the question then takes no permit."""
    scripts.cancel("a")

    assert scripts.acquire("a")[0] == 0
    assert scripts.in_use() == scripts.waiting() == 0


def test_the_permit_of_a_killed_holder_ends_with_its_lease(scripts: ScriptedClock) -> None:
    """Its request may have been counted until then: it is free one window later."""
    for number in range(5):
        scripts.acquire(f"{number}")
    scripts.now += LEASE + scripts.per - 0.001
    assert scripts.acquire("a", max_wait=0)[0] == -1
    scripts.now += 0.002

    assert scripts.acquire("a")[0] == 1


def test_the_place_of_a_killed_waiter_is_given_up(scripts: ScriptedClock) -> None:
    """It has not asked for a while: those behind it do not wait for it."""
    for number in range(5):
        scripts.acquire(f"{number}")
        scripts.settle(f"{number}")
        scripts.now += 1.7
    assert scripts.acquire("killed") == (0, 1.5, "rate_limited")
    assert scripts.acquire("next")[0] == 0
    scripts.now += 1.501

    assert scripts.acquire("next")[0] == 1
    assert scripts.waiting() == 0


def test_processes_take_turns(scripts: ScriptedClock) -> None:
    """Who came first goes first, however often the others ask."""
    for number in range(5):
        scripts.acquire(f"{number}")
        scripts.settle(f"{number}")
    order = []
    waiting = ["a 0", "b 0", "c 0"]
    for _ in range(60):
        for name in sorted(waiting, reverse=True):
            if scripts.acquire(name)[0] == 1:
                order.append(name[0])
                waiting[waiting.index(name)] = f"{name[0]} {len(order)}"
                scripts.settle(name)
        scripts.now += 0.25

    # The first question of a round of three is c's: from then on they alternate.
    assert len(order) == 5
    assert order[:3] == ["c", "b", "a"]


def test_every_fourth_permit_is_for_a_poll(scripts: ScriptedClock) -> None:
    """Create requests go first while both wait, and polls never starve."""
    scripts.requests, scripts.per = 1, 2.0
    order: list[str] = []
    for _ in range(36):
        for kind in ("poll", "create"):
            name = f"{kind} {order.count(kind)}"
            if scripts.acquire(name, kind)[0] == 1:
                order.append(kind)
                scripts.settle(name)
        scripts.now += 0.5

    assert order[1:9] == 2 * ["create", "create", "create", "poll"]


def test_no_requests_are_left_for_today(redis_server: RedisServer) -> None:
    """The day is UTC's by the server's clock; a request that was never sent does not count."""
    scripts = ScriptedClock.on(redis_server, per_day=2)
    scripts.now = START - START % 86_400 + 86_300
    for name in ("a", "cancelled", "b"):
        assert scripts.acquire(name)[0] == 1
        (scripts.cancel if name == "cancelled" else scripts.settle)(name)

    assert scripts.acquire("c", max_wait=99) == (-1, 100.0, "rate_limited_daily")
    assert scripts.acquire("c") == (0, 100.0, "rate_limited_daily")
    scripts.now += 100.001
    assert scripts.acquire("c")[0] == 1


def test_a_pause_is_for_all_and_for_its_purpose(scripts: ScriptedClock) -> None:
    """A 429 of concurrency pauses create requests only; the longer pause counts."""
    scripts.penalize(5, "rate_limited_concurrent", "create")
    scripts.penalize(2, "rate_limited_concurrent", "create")

    assert scripts.acquire("a", max_wait=1) == (-1, 5.0, "rate_limited_concurrent")
    assert scripts.acquire("b", "poll")[0] == 1
    scripts.penalize(3)
    assert scripts.acquire("c", "read", max_wait=1) == (-1, 3.0, "rate_limited")
    assert scripts.waiting() == 0


def test_one_request_goes_first_if_nothing_is_known(redis_server: RedisServer) -> None:
    """Its headers say how many requests of others the window holds."""
    scripts = ScriptedClock.on(redis_server, requests=60, per=60.0)
    assert scripts.acquire("first")[0] == 1
    assert scripts.acquire("second") == (0, 0.05, "")
    assert scripts.acquire("impatient", max_wait=0)[0] == 1
    scripts.cancel("impatient")
    scripts.cancel("second")
    scripts.settle("first", 60, 22, scripts.now + 20)

    granted = [scripts.acquire(f"{n}", max_wait=0)[0] for n in range(30)]
    # Of 38 that the service counted 37 are others'; 60 - 37 - 1 are left.
    assert granted.count(1) == 22
    scripts.now += 20.1
    assert scripts.acquire("probe", max_wait=0)[0] == 1
    assert scripts.acquire("after it", max_wait=1) == (0, 0.05, "")


def test_a_first_request_without_a_response_holds_up_for_two_seconds(
    redis_server: RedisServer,
) -> None:
    """Its process may have been killed."""
    scripts = ScriptedClock.on(redis_server, requests=60, per=60.0)
    scripts.acquire("first")
    scripts.now += 1.9
    assert scripts.acquire("second")[0] == 0
    scripts.now += 0.2

    assert scripts.acquire("second")[0] == 1


def test_a_cancelled_first_request_leaves_its_place_to_the_next(redis_server: RedisServer) -> None:
    """Nothing was learned: the next one goes alone, too."""
    scripts = ScriptedClock.on(redis_server, requests=60, per=60.0)
    scripts.acquire("first")
    scripts.cancel("first")

    assert scripts.acquire("second")[0] == 1
    assert scripts.acquire("third")[0] == 0


def test_after_a_pause_and_after_an_outage_one_request_goes_first(
    redis_server: RedisServer,
) -> None:
    """The service says when to come back, not what is free; requests of an outage are unknown."""
    scripts = ScriptedClock.on(redis_server, requests=60, per=60.0)
    scripts.known()
    scripts.penalize(1)
    scripts.now += 1.1
    assert [scripts.acquire(name)[0] for name in ("a", "b")] == [1, 0]
    scripts.settle("a")
    assert scripts.acquire("b")[0] == 1

    assert scripts.acquire("c", unsure=True)[0] == 1
    assert scripts.acquire("d")[0] == 0


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"), [(10_000, 0, 3600), (1000, 0, 5), (60, 0, 3600), (0, 0, 5)]
)
def test_headers_of_other_windows_are_ignored(
    redis_server: RedisServer, limit: float, remaining: float, reset: float
) -> None:
    """A day's or a path's limit, and a reset that cannot be of this window."""
    scripts = ScriptedClock.on(redis_server, requests=60, per=60.0)
    scripts.acquire("first")
    scripts.settle("first", 60, 59, scripts.now + 30)
    scripts.acquire("second")
    scripts.settle("second", limit, remaining, scripts.now + reset)

    assert scripts.acquire("third", max_wait=0)[0] == 1


def test_a_lower_limit_of_the_service_is_kept(redis_server: RedisServer) -> None:
    """Headers can lower what may be sent, never raise it."""
    scripts = ScriptedClock.on(redis_server, requests=60, per=60.0)
    for limit, fits in ((30, 30), (60, 60), (90, 60)):
        redis_server.command("FLUSHALL")
        scripts.acquire("first")
        scripts.settle("first", limit, limit - 1, scripts.now + 60)

        granted = [scripts.acquire(f"{n}", max_wait=0)[0] for n in range(70)]
        assert granted.count(1) == fits - 1


# --- any order of events -------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "arrive", "settle", "cancel", "kill", "pause"]),
        st.integers(0, 7),
        st.sampled_from(["create", "read", "poll"]),
        st.sampled_from([0.0, 0.01, 0.3, 2.0, 11.0]),
    ),
    max_size=60,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=EVENTS)
def test_no_window_of_the_service_holds_too_many(
    redis_server: RedisServer, events: list[tuple[str, int, Any, float]]
) -> None:
    """Whatever happens in whatever order: a strict sliding window never refuses a request.

    Afterwards every permit is free again, and every key expires.
    """
    redis_server.command("FLUSHALL")
    scripts = ScriptedClock.on(redis_server, requests=3, per=10.0)
    names = [f"{place} 0" for place in range(8)]
    permits: dict[str, float] = {}  # granted, with the moment
    arrived: list[float] = []
    for kind, place, purpose, seconds in events:
        name = names[place]
        if kind == "ask" and name not in permits:
            if scripts.acquire(name, purpose)[0] == 1:
                permits[name] = scripts.now
        elif kind == "arrive" and name in permits and scripts.now < permits[name] + LEASE:
            arrived.append(scripts.now)
            assert sum(scripts.now - 10.0 < moment for moment in arrived) <= 3
            scripts.settle(name)
        elif kind == "settle" and name in permits:
            scripts.settle(name)
        elif kind == "cancel":
            scripts.cancel(name)
        elif kind == "pause":
            scripts.penalize(seconds, "rate_limited", purpose)
        if kind in {"arrive", "settle", "cancel", "kill"}:
            permits.pop(name, None)
            names[place] = f"{place} {int(name.split()[1]) + 1}"
        scripts.now += seconds

    kept = [key for key in KEYS if scripts.client.exists(key)]
    assert all(0 < scripts.client.ttl(key) <= 172_800 for key in kept)
    scripts.now += LEASE + 10.0 + 11.0
    assert [scripts.acquire(f"last {n}")[0] for n in range(3)] == [1, 1, 1]
