"""`/_emulator/`: the emulator is looked at and steered over HTTP, by nobody else's page."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aifaceswap.emulator import Emulator, Fault, RealClock, VirtualClock, faults
from support.emulator_receiver import Receiver, create
from support.emulator_wire import BODY, JSON_TYPE, control, creation, exchange, raw

PAGE = "http://127.0.0.1:8700"


async def test_the_overview_says_what_there_is(emulator: Emulator) -> None:
    """Where the API is, with which key, and every path below; with or without the last slash."""
    status, overview = await control(emulator, "GET", "")
    _, _, body = await exchange(emulator, b"GET /_emulator HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (status, overview) == (200, json.loads(body))
    assert overview["base_url"] == emulator.base_url
    assert overview["api_key"] == emulator.api_key
    for path in overview["routes"]:
        status, _ = await control(emulator, "PURGE", path.removeprefix("/_emulator/"))
        assert status == 405


async def test_steering_is_no_request_to_the_api(emulator: Emulator) -> None:
    """No key, no record, no limit, no fault, no request id of the API's."""
    _, first, _ = await exchange(emulator, raw(method="GET", path="/api/v1/me"))
    emulator.add_fault(Fault("*", faults.Status(500), times=None))
    for _ in range(100):
        assert (await control(emulator, "GET", "clock"))[0] == 200
    emulator.reset()
    _, again, _ = await exchange(emulator, raw(method="GET", path="/api/v1/me"))

    assert len(emulator.requests) == 1
    assert first == again


async def test_requests_are_shown(emulator: Emulator) -> None:
    """The latest, oldest first, with which faults applied; a key that is not ours is not shown."""
    await exchange(emulator, creation("k"))
    foreign = creation().replace(b"key_emulator", b"sk_real_secret").replace(b"Bearer", b"bearer")
    await exchange(emulator, foreign)
    emulator.add_fault(Fault("GET /me", faults.Reset(commit=False)))
    with pytest.raises(ConnectionError):
        await exchange(emulator, raw(method="GET", path="/api/v1/me?a=1"))
    status, shown = await control(emulator, "GET", "requests")
    first, second, third = shown["data"]

    assert (status, shown["total"]) == (200, 3)
    assert (first["method"], first["path"], first["status"]) == ("POST", "/api/v1/swaps", 201)
    assert (first["idempotency_key"], json.loads(first["body"])) == ("k", json.loads(BODY))
    assert ["Authorization", "Bearer key_emulator"] in first["headers"]
    assert "sk_real_secret" not in json.dumps(second)
    assert third["fault"] == {"action": "reset", "commit": False}
    assert (third["status"], third["query"]) == (0, "a=1")
    _, last = await control(emulator, "GET", "requests?limit=1")
    assert (last["total"], last["data"]) == (3, [third])


async def test_swaps_are_shown_with_their_pictures(emulator: Emulator) -> None:
    """As the API shows them and what it does not tell, with a link for the one who asks."""
    await exchange(emulator, creation("k"))
    await create(emulator, source_url="https://example.com/forever.jpg")
    emulator.advance(3)
    _, shown = await control(emulator, "GET", "swaps", headers={"Host": "localhost:8700"})
    done, endless = shown["data"]

    assert done["result_url"].startswith("http://localhost:8700/results/tsk_")
    assert (done["status"], done["progress"], done["api_key"]) == ("done", 100, "key_emulator")
    assert (done["idempotency_key"], done["finishes_at"]) == ("k", 1_767_225_603)
    assert (endless["status"], endless["finishes_at"]) == ("processing", None)


async def test_deliveries_are_shown_and_made_again() -> None:
    """With every attempt; redelivery and settle take effect at once."""
    async with (
        Receiver([500]).serve() as receiver,
        Emulator(
            clock=VirtualClock(),
            deliver_to=receiver.origin,
            faults=[Fault("webhook", faults.Duplicate())],
        ) as emulator,
    ):
        swap_id = await create(emulator)
        assert (await control(emulator, "POST", "advance", {"seconds": 3}))[0] == 200
        assert (await control(emulator, "POST", "settle"))[0] == 200
        _, shown = await control(emulator, "GET", "deliveries")
        (delivery,) = shown["data"]
        path = f"deliveries/{delivery['id']}/redeliver"
        status, answer = await control(emulator, "POST", path)
        await control(emulator, "POST", "settle")
        _, after = await control(emulator, "GET", "deliveries")

    assert (delivery["swap_id"], delivery["state"]) == (swap_id, "pending")
    assert json.loads(delivery["body"])["event"] == "swap.completed"
    assert delivery["attempts"][0]["fault"] == {"action": "duplicate"}
    assert delivery["attempts"][0]["status"] == 500
    assert (status, answer["id"]) == (202, delivery["id"])
    assert (after["data"][0]["state"], len(receiver.received)) == ("delivered", 3)


async def test_faults_are_switched_on_and_off(emulator: Emulator) -> None:
    """One at a time, off by number or all together; what is shown can be sent again."""
    given = {"match": "GET /me", "do": {"action": "status", "status": 503}, "times": None}
    status, added = await control(emulator, "POST", "faults", given)
    assert (status, added["number"]) == (201, 0)
    assert (await exchange(emulator, raw(method="GET", path="/api/v1/me")))[0] == 503
    _, shown = await control(emulator, "GET", "faults")
    (fault,) = shown["data"]
    assert (fault["seen"], fault["applied"], fault["nth"]) == (1, 1, 1)

    again = {name: fault[name] for name in ("match", "do", "nth", "times", "rate")}
    await control(emulator, "POST", "faults", again)
    assert [each.fault for each in emulator.faults] == [emulator.faults[0].fault] * 2
    status, left = await control(emulator, "DELETE", "faults/0")
    assert (status, [each["number"] for each in left["data"]]) == (200, [1])
    assert await control(emulator, "DELETE", "faults") == (200, {"data": []})


async def test_credits_and_keys(emulator: Emulator) -> None:
    """Top up; a key with limits of its own; revoke it, by its name in the path."""
    _, account = await control(emulator, "POST", "credits", {"add": 5})
    assert account["credits"] == 1005
    given = {"api_key": "key/b?", "limits": {"per_minute": 1, "per_day": None}}
    status, account = await control(emulator, "POST", "keys", given)
    assert (status, account["keys"][1]["limits"]["per_day"]) == (201, None)
    me = raw(method="GET", path="/api/v1/me").replace(b"key_emulator", b"key/b?")
    assert [(await exchange(emulator, me))[0] for _ in range(2)] == [200, 429]
    _, account = await control(emulator, "GET", "account")
    assert (account["keys"][1]["in_window"], account["keys"][1]["today"]) == (1, 1)
    emulator.advance(86_400)
    _, account = await control(emulator, "GET", "account")
    assert (account["keys"][1]["in_window"], account["keys"][1]["today"]) == (0, 0)
    await control(emulator, "DELETE", "keys/key%2Fb%3F")
    assert (await exchange(emulator, me))[0] == 401


async def test_the_clock_is_shown_and_moved(emulator: Emulator) -> None:
    """A virtual clock has no speed; a real one jumps, besides its own going."""
    status, clock = await control(emulator, "POST", "advance", {"seconds": 60})
    assert (status, clock) == (
        200,
        {"now": 1_767_225_660.0, "iso": "2026-01-01T00:01:00.000Z", "speed": 0},
    )
    async with Emulator(clock=RealClock(speed=60)) as other:
        _, before = await control(other, "GET", "clock")
        status, after = await control(other, "POST", "advance", {"seconds": 1e6})
        assert (status, before["speed"], after["speed"]) == (200, 60, 60)
        assert after["now"] - before["now"] >= 1e6


async def test_reset_takes_settings(emulator: Emulator) -> None:
    """An empty body for none; each in place of the constructor's."""
    await exchange(emulator, creation())
    given = {
        "credits": 2,
        "duration": 1,
        "limits": {"per_minute": 5},
        "deliver_to": "http://127.0.0.1:9",
        "faults": [{"match": "*", "do": "close"}],
    }
    assert (await control(emulator, "POST", "reset", given))[0] == 200
    _, account = await control(emulator, "GET", "account")
    assert (account["credits"], account["keys"][0]["limits"]["per_minute"]) == (2, 5)
    assert (len(emulator.swaps), len(emulator.faults)) == (0, 1)
    assert (await control(emulator, "POST", "reset"))[0] == 200
    assert (emulator.balance, emulator.faults) == (1000, ())


@pytest.mark.parametrize(
    ("method", "path", "body", "wanted"),
    [
        ("GET", "nothing", b"", (404, "There is nothing here.")),
        ("GET", "clock/x", b"", (404, "There is nothing here.")),
        ("GET", "faults/0/x", b"", (404, "There is nothing here.")),
        ("PUT", "clock", b"", (405, "PUT is not allowed here; use GET.")),
        ("DELETE", "faults/7", b"", (404, "No '7' here.")),
        ("DELETE", "faults/x", b"", (404, "No 'x' here.")),
        ("DELETE", "keys/x", b"", (404, "No 'x' here.")),
        ("POST", "deliveries/x/redeliver", b"", (404, "No 'x' here.")),
        ("POST", "advance", b"", (400, "The body: must be JSON: Expecting")),
        ("POST", "advance", b"{\n}", (400, "The body: seconds: is missing")),
        ("POST", "advance", b'{"seconds": -1}', (400, "seconds must be at least 0 and at most")),
        ("POST", "advance", b'{"seconds": "1"}', (400, "The body: seconds: must be a n")),
        ("POST", "credits", b'{"add": -1}', (400, "credits must be 0 or more; got -1")),
        ("POST", "keys", b'{"api_key": ""}', (400, "The body: api_key: must be visible")),
        ("POST", "keys", b'{"api_key": "a", "limits": 7}', (400, "The body: limits: must")),
        ("POST", "faults", b'{"match": "x", "do": "drop"}', (400, "The body: match: must")),
        ("POST", "reset", b'{"credits": -1}', (400, "credits must be at least 0; got -1")),
        ("POST", "reset", b'{\n"faults": [{}]}', (400, "The body: faults[0].match: is m")),
        ("GET", "requests?limit=0", b"", (400, "limit: must be an integer from 1 to 10000.")),
        ("GET", "requests?limit=%C2%B2", b"", (400, "limit: must be an integer from 1 to 10000.")),
        ("POST", "advance", b"x" * 1_100_000, (413, "The body is too large.")),
    ],
)
async def test_mistakes_get_the_envelope(
    emulator: Emulator, method: str, path: str, body: bytes, wanted: tuple[int, str]
) -> None:
    """As the API's own errors, with a request id."""
    status, answer = await control(emulator, method, path, body=body)

    assert status == wanted[0]
    assert answer["error"]["message"].startswith(wanted[1])
    assert answer["error"]["request_id"].startswith("req_")
    assert emulator.clock.now() == VirtualClock().now()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8700"}, 200),
        ({"Host": "localhost:8700"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "[::1]:8700"}, 200),
        ({"Host": "127.0.0.1:8700", "Origin": PAGE, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Host": "evil.example:8700"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "evil"}, 403),
        ({"Host": "192.0.2.1"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "127.0.0.1:8700", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:8700", "Origin": "http://127.0.0.1:3000"}, 403),
        ({"Host": "127.0.0.1:8700", "Origin": "https://127.0.0.1:8700"}, 403),
        ({"Host": "127.0.0.1:8700", "Origin": "null"}, 403),
        ({"Host": "127.0.0.1:8700", "Origin": f"{PAGE}.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_pages_of_others_cannot_steer(
    emulator: Emulator, headers: dict[str, str], status: int
) -> None:
    """Neither from another origin, nor by a name that resolves to this machine."""
    for method, path, value in (("POST", "advance", {"seconds": 1}), ("GET", "account", None)):
        before = emulator.clock.now()
        answered, answer = await control(emulator, method, path, value, headers=headers)
        assert answered == status
        assert (answer.get("error") is None) == (status == 200)
        assert (emulator.clock.now() > before) == (status == 200 and method == "POST")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8700", 200),
        ("emulator:8700", 200),
        ("192.0.2.1:8700", 200),
        ("[2001:db8::1]:8700", 200),
        ("evil.example", 403),
        ("", 403),
    ],
)
async def test_others_are_let_in_where_it_listens_to_them(host: str, status: int) -> None:
    """By address or by a name without a dot: what cannot be a stranger's."""
    async with Emulator(host="0.0.0.0") as emulator:
        assert (await control(emulator, "GET", "clock", headers={"Host": host}))[0] == status


async def test_two_hosts_are_one_too_many(emulator: Emulator) -> None:
    """What a proxy and we could read differently is refused."""
    request = b"GET /_emulator/clock HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
    status, _, _ = await exchange(emulator, request)

    assert status in {400, 403}


async def test_answers_are_for_programs(emulator: Emulator) -> None:
    """JSON that no browser guesses about, caches or hands to another page."""
    request = b"GET /_emulator/clock HTTP/1.1\r\nHost: localhost\r\n\r\n"
    _, headers, _ = await exchange(emulator, request)

    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


async def test_only_its_own_paths_are_the_controls(emulator: Emulator) -> None:
    """What merely begins alike is as unknown to the API as ever."""
    for path in ("/_emulatorx", "/_emulator%2Fclock", "//_emulator/clock"):
        status, _, _ = await exchange(emulator, raw(b"", JSON_TYPE, method="GET", path=path))
        assert status == 404
    assert len(emulator.requests) == 3


def test_many_keys_have_many_limits() -> None:
    """Lists and limits belong to the key: also those of unfinished swaps."""

    async def check(emulator: Emulator) -> list[Any]:
        given = {"api_key": "key_b", "limits": {"concurrent": 1}}
        await control(emulator, "POST", "keys", given)
        other = creation().replace(b"key_emulator", b"key_b")
        mine = [(await exchange(emulator, creation()))[0] for _ in range(3)]
        theirs = [(await exchange(emulator, other))[0] for _ in range(3)]
        return [*mine, *theirs]

    with Emulator(clock=VirtualClock()) as emulator:
        assert asyncio.run(check(emulator)) == [201, 201, 201, 201, 429, 429]
