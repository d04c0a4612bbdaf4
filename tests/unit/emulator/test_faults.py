"""Faults of requests: what they do on the wire, and to a client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap import AsyncClient, InsufficientCreditsError
from aifaceswap.emulator import Emulator, Fault, Limits, RealClock, VirtualClock, _actions, faults
from aifaceswap.emulator._server.broken_responses import _reset
from aifaceswap.emulator._service.fault_injector import FaultInjector
from support.emulator_wire import BODY, JSON_TYPE, connected, creation, exchange, raw
from support.emulator_world import SWAP
from support.virtual_time import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aifaceswap.emulator.faults import Action

START = 1_767_225_600


@asynccontextmanager
async def applied(*actions: Action, match: str = "POST /swaps") -> AsyncIterator[Emulator]:
    """An emulator that does these to the first requests, one each."""
    script = [Fault(match, action) for action in actions]
    async with Emulator(clock=VirtualClock(), faults=script) as emulator:
        yield emulator


# --- each action on the wire ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "code", "retry_after"),
    [
        (faults.Status(503), "api_temporarily_disabled", None),
        (faults.Status(429, retry_after=7), "rate_limited", "7"),
        (faults.Status(429, "rate_limited_daily", retry_after=1.5), "rate_limited_daily", "1.5"),
        (faults.Status(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), None, None),
        (faults.Status(418), "error", None),
        (faults.Status(599, "x_new", "Über."), "x_new", None),
    ],
)
async def test_a_status_is_an_error_of_the_api_without_effect(
    action: faults.Status, code: str | None, retry_after: str | None
) -> None:
    """Envelope, request id, limits and Retry-After are as of the API; no swap is made."""
    async with applied(action) as emulator:
        await exchange(emulator, raw(method="GET", path="/api/v1/me"))
        status, headers, body = await exchange(emulator, creation())
        error = json.loads(body)["error"]

        assert (action.status, code or error["code"]) == (status, error["code"])
        assert (action.message, headers["x-request-id"]) == (error["message"], error["request_id"])
        assert headers["x-ratelimit-remaining"] == "59"
        assert headers.get("retry-after") == retry_after or isinstance(action.retry_after, str)
        assert (emulator.swaps, emulator.balance) == ((), 1000)
        assert (await exchange(emulator, creation()))[0] == 201


async def test_latency_is_of_the_event_loop() -> None:
    """The swap is there when the wait begins; the answer comes when the loop's time is up."""
    loop = asyncio.get_running_loop()
    async with applied(faults.Latency(0.05)) as emulator, connected(emulator) as wire:
        await wire.send(creation())
        while not emulator.swaps:
            await asyncio.sleep(0)
        started = loop.time()
        status, _, _ = await wire.answer()
        ended = loop.time()

    assert status == 201
    assert ended - started > 0.03


async def read_until_silence(reader: asyncio.StreamReader) -> bytes:
    sent = b""
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.5):
                sent += await reader.readexactly(1)
    return sent


@pytest.mark.parametrize(("after", "begins"), [("nothing", b""), ("half", b"HTTP/1.1 201 ")])
async def test_a_stall_lasts_until_the_emulator_gives_up(after: str, begins: bytes) -> None:
    """Nothing, or half an answer, and then silence; a stop does not wait for it."""
    async with applied(faults.Stall(after)) as emulator, connected(emulator) as wire:
        await wire.send(creation())
        while not emulator.swaps:
            await asyncio.sleep(0)
        sent = await read_until_silence(wire.reader)
        assert sent.startswith(begins)
        assert bool(sent) == bool(begins)
        length, _, body = sent.lower().partition(b"\r\n\r\n")
        assert not sent or int(length.rpartition(b"content-length: ")[2]) // 2 == len(body)

        emulator.reset()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(wire.reader.readexactly(1), 5)


def test_a_stop_does_not_wait_for_a_stall() -> None:
    """Not even for the moment that other requests are given to end."""

    async def stop() -> float:
        loop = asyncio.get_running_loop()
        async with Emulator(faults=[Fault("*", faults.Stall())]) as emulator:
            async with connected(emulator) as wire:
                await wire.send(creation())
                while not emulator.swaps:
                    await asyncio.sleep(0)
                began = loop.time()
                await emulator.__aexit__()
                ended = loop.time()
            await emulator.__aenter__()
        return ended - began

    assert run_virtual(stop) < 0.1


async def test_a_client_that_gives_up_ends_the_stall() -> None:
    """No task stays behind for a client that has gone."""
    async with applied(faults.Stall()) as emulator:
        async with connected(emulator) as wire:
            await wire.send(creation())
            while not emulator.swaps:
                await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while any("RequestHandler" in repr(task) for task in asyncio.all_tasks()):
                await asyncio.sleep(0)


@pytest.mark.parametrize(("commit", "swaps", "status"), [(True, 1, 201), (False, 0, 0)])
async def test_a_reset_comes_before_or_after_the_commit(
    commit: bool, swaps: int, status: int
) -> None:
    """The connection is reset, not just closed; the record says what became of the request."""
    async with applied(faults.Reset(commit=commit)) as emulator, connected(emulator) as wire:
        await wire.send(creation())
        with pytest.raises(ConnectionResetError):
            await wire.rest()
        (record,) = emulator.requests

        assert len(emulator.swaps) == swaps
        assert (record.status, record.fault) == (status, faults.Reset(commit=commit))
        assert (await exchange(emulator, creation()))[0] == 201


async def test_a_connection_is_closed_while_the_next_request_is_on_its_way() -> None:
    """The answer is whole and promises nothing; what follows on that connection meets its end."""
    async with applied(faults.Close()) as emulator, connected(emulator) as wire:
        await wire.send(creation())
        status, headers, _ = await wire.answer()
        assert (status, headers.get("connection")) == (201, None)
        await wire.send(creation())
        assert await wire.rest() == b""
        assert (len(emulator.swaps), len(emulator.requests)) == (1, 1)
        assert (await exchange(emulator, creation()))[0] == 201


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
async def test_a_body_is_truncated(keep: float) -> None:
    """The head promises all of the body, of which a part comes."""
    async with applied(faults.Truncate(keep)) as emulator, connected(emulator) as wire:
        await wire.send(creation())
        head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
        (length,) = (
            int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-l")
        )

        assert len(body) == int(length * keep)
        assert len(emulator.swaps) == 1


@pytest.mark.parametrize(
    ("action", "status", "kind", "begins"),
    [
        (faults.Body(), 201, "text/html", b"<html>"),
        (faults.Body(status=502), 502, "text/html", b"<html>"),
        (faults.Body('{"id":', "application/json"), 201, "application/json", b'{"id":'),
        (faults.Body("", "text/plain", 204), 204, "text/plain", b""),
    ],
)
async def test_another_body_takes_the_place_of_the_answers(
    action: faults.Body, status: int, kind: str, begins: bytes
) -> None:
    """A proxy's page, broken JSON, nothing: the swap is made, and the connection stays."""
    async with applied(action) as emulator, connected(emulator) as wire:
        await wire.send(creation())
        answered, headers, body = await wire.answer()
        assert (status, kind) == (answered, headers["content-type"])
        assert body.startswith(begins)
        assert "x-request-id" in headers
        await wire.send(creation())
        assert (await wire.answer())[0] == 201
        assert len(emulator.swaps) == 2


async def test_an_answer_is_blown_up_and_still_json() -> None:
    """As many bytes as asked for; blanks at the end."""
    async with applied(faults.Oversized(300_001), faults.Oversized(1)) as emulator:
        _, _, large = await exchange(emulator, creation())
        _, _, small = await exchange(emulator, creation())

    assert len(large) == 300_001
    assert json.loads(large)["id"] == emulator.swaps[0].id
    assert json.loads(small)["id"] == emulator.swaps[1].id


async def test_headers_are_wrong_or_missing() -> None:
    """Replaced without regard to case, or left out, also those that every server sends."""
    action = faults.Headers(
        set={"X-RateLimit-Remaining": "many", "x-new": "1"}, remove=["DATE", "x-request-id"]
    )
    async with applied(action) as emulator, connected(emulator) as wire:
        await wire.send(creation())
        _, headers, body = await wire.answer()
        assert headers["x-ratelimit-remaining"] == "many"
        assert headers["x-new"] == "1"
        assert not {"date", "x-request-id"} & set(headers)
        assert json.loads(body)["status"] == "queued"
        await wire.send(creation())
        assert (await wire.answer())[0] == 201


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    """Content-Length can be removed, and can lie."""
    script = (
        faults.Headers(remove=["Content-Length"]),
        faults.Headers(set={"content-length": "3"}),
    )
    async with applied(*script) as emulator:
        async with connected(emulator) as wire:
            await wire.send(creation())
            head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
        assert b"content-length" not in head.lower()
        assert json.loads(body)["status"] == "queued"
        _, _, body = await exchange(emulator, creation())
        assert len(body) == 3


async def test_the_clock_of_an_answer_is_wrong() -> None:
    """Date, x-ratelimit-reset and created_at move together; the emulator's time does not."""
    async with Emulator(
        clock=VirtualClock(), faults=[Fault("*", faults.ClockSkew(-3600), times=None)]
    ) as emulator:
        _, headers, body = await exchange(emulator, creation())
        _, _, listed = await exchange(emulator, raw(method="GET"))
        status, _, _ = await exchange(emulator, raw(method="GET", path="/api/v1/nothing"))

    assert parsedate_to_datetime(headers["date"]).timestamp() == START - 3600
    assert int(headers["x-ratelimit-reset"]) == START + 60 - 3600
    assert json.loads(body)["created_at"] == "2025-12-31T23:00:00.000Z"
    assert json.loads(listed)["data"][0]["created_at"] == "2025-12-31T23:00:00.000Z"
    assert status == 404
    assert emulator.swaps[0].created_at == START


async def test_pictures_are_struck_as_well() -> None:
    """The path of a result stands whole in `match`; a HEAD has no body whatever the fault."""
    async with Emulator(clock=VirtualClock(), duration=0) as emulator:
        await exchange(emulator, creation())
        _, _, body = await exchange(emulator, raw(method="GET"))
        link = json.loads(body)["data"][0]["result_url"].removeprefix("http://x")
        for action in (faults.Truncate(0.1), faults.ClockSkew(5), faults.Body()):
            emulator.add_fault(Fault("HEAD /results/*", action))
        async with connected(emulator) as wire:
            await wire.send(raw(method="HEAD", path=link))
            assert (await wire.rest()).endswith(b"\r\n\r\n")
        async with connected(emulator) as wire:
            await wire.send(*[raw(method="HEAD", path=link)] * 2)
            await wire.reader.readuntil(b"\r\n\r\n")
            assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert [record.applied for record in emulator.faults] == [1, 1, 1]


# --- what a client makes of it -------------------------------------------------------------

ANSWERED_ELSEWHERE = [
    faults.Stall(),
    faults.Stall("half"),
    faults.Reset(),
    faults.Truncate(),
    faults.Body(),
    faults.Body(status=502),
    faults.Body('{"id":', "application/json"),
    faults.Oversized(),
]


@pytest.mark.parametrize("action", ANSWERED_ELSEWHERE, ids=repr)
async def test_an_answer_lost_after_the_commit_is_paid_once(action: Action) -> None:
    """The client sends the same key again: one swap, one payment."""
    async with (
        Emulator(clock=VirtualClock(), faults=[Fault("POST /swaps", action)]) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, timeout=0.3) as client,
    ):
        swap = await client.swaps.create(
            source_url=SWAP["source_url"], target_url=SWAP["target_url"]
        )

    assert [record.id for record in emulator.swaps] == [swap.id]
    assert [record.status for record in emulator.requests] == [201, 200]
    assert len({record.idempotency_key for record in emulator.requests}) == 1
    assert emulator.balance == 999


async def test_a_connection_that_is_closed_at_the_worst_moment_costs_nothing() -> None:
    """The client's second creation meets the end of its connection, and is made once."""
    async with (
        Emulator(clock=VirtualClock(), faults=[Fault("POST /swaps", faults.Close())]) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url) as client,
    ):
        for _ in range(2):
            await client.swaps.create(source_url=SWAP["source_url"], target_url=SWAP["target_url"])

    assert (len(emulator.swaps), emulator.balance) == (2, 998)


async def test_an_error_of_the_api_reaches_the_client_as_its_own() -> None:
    """A 402 that the emulator would not give by itself."""
    async with (
        applied(faults.Status(402)) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url) as client,
    ):
        with pytest.raises(InsufficientCreditsError, match="Injected fault"):
            await client.swaps.create(source_url=SWAP["source_url"], target_url=SWAP["target_url"])


# --- scripts -------------------------------------------------------------------------------


async def statuses(emulator: Emulator, count: int, request: bytes | None = None) -> list[int]:
    async with connected(emulator) as wire:
        found = []
        for _ in range(count):
            await wire.send(request or raw(method="GET", path="/api/v1/me"))
            found.append((await wire.answer())[0])
        return found


async def test_faults_of_one_match_strike_one_after_the_other() -> None:
    """A list of faults is a script, and says afterwards what became of each."""
    script = [
        Fault("GET /me", faults.Status(500)),
        Fault("GET /me", faults.Status(502), times=2),
        Fault("GET /me", faults.Status(503), nth=5),
        Fault("GET /swaps", faults.Status(504)),
    ]
    async with Emulator(clock=VirtualClock(), faults=script) as emulator:
        assert await statuses(emulator, 6) == [500, 502, 502, 200, 503, 200]
        assert [(record.seen, record.applied) for record in emulator.faults] == [
            (6, 1),
            (6, 2),
            (6, 1),
            (0, 0),
        ]


async def test_a_fault_without_an_end_strikes_for_ever() -> None:
    """times=None, from the nth on."""
    script = [Fault("*", faults.Status(500), nth=3, times=None)]
    async with Emulator(clock=VirtualClock(), faults=script) as emulator:
        assert await statuses(emulator, 5) == [200, 200, 500, 500, 500]


async def test_chance_is_the_seeds() -> None:
    """The same seed strikes the same requests, another one others; about as many as asked for."""

    async def draw(seed: int) -> list[int]:
        script = [Fault("* /me", faults.Status(500), rate=0.3)]
        limits = Limits(None, None, None)
        async with Emulator(seed=seed, limits=limits, faults=script) as emulator:
            return await statuses(emulator, 200)

    first = await draw(1)
    assert await draw(1) == first
    assert await draw(2) != first
    assert 30 < first.count(500) < 90


async def test_chance_starts_again_with_a_reset() -> None:
    """What a run did can be replayed."""
    script = [Fault("*", faults.Status(500), rate=0.5)]
    async with Emulator(clock=VirtualClock(), faults=script) as emulator:
        first = await statuses(emulator, 40)
        emulator.reset()
        assert await statuses(emulator, 40) == first


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.lists(st.sampled_from(["GET /a", "GET /b", "POST /a"]), max_size=40),
    st.integers(0, 2**63 - 1),
)
def test_draws_depend_on_seed_and_order_alone(
    rates: list[float], subjects: list[str], seed: int
) -> None:
    """Two injectors of one seed agree on every request, one of another's matches regardless."""

    def run(others: int) -> list[Action | None]:
        injector = FaultInjector(seed)
        for place, rate in enumerate(rates):
            injector.add(Fault("GET *", faults.Status(500 + place), rate=rate))
        found: list[Action | None] = []
        for subject in subjects:
            for _ in range(others):
                injector.strike_request("PUT", "/elsewhere")
            method, _, path = subject.partition(" ")
            found.append(injector.strike_request(method, path))
        return found

    assert run(0) == run(3)


async def test_faults_are_switched_on_and_off_while_it_runs() -> None:
    """By number, or all; a number is never given again."""
    async with Emulator(clock=VirtualClock()) as emulator:
        first = emulator.add_fault(Fault("*", faults.Status(500), times=None))
        second = emulator.add_fault(Fault("webhook", faults.Drop()))
        assert await statuses(emulator, 1) == [500]
        emulator.remove_fault(first)
        emulator.remove_fault(second)
        assert await statuses(emulator, 1) == [200]
        with pytest.raises(KeyError):
            emulator.remove_fault(first)
        third = emulator.add_fault(Fault("*", faults.Status(500)))
        emulator.clear_faults()
        assert await statuses(emulator, 1) == [200]

    assert len({first, second, third}) == 3
    assert emulator.faults == ()


async def test_what_is_no_fault_cannot_be_added() -> None:
    """The message says what would be right."""
    with pytest.raises(TypeError, match=r"fault must be a Fault\(...\); got 'reset'"):
        Emulator().add_fault(cast("Fault", "reset"))


@pytest.mark.parametrize(
    ("match", "method", "path", "fits"),
    [
        ("POST /swaps", "POST", "/swaps", True),
        ("POST /swaps", "GET", "/swaps", False),
        ("POST /swaps", "POST", "/swaps/1", False),
        ("GET /swaps/*", "GET", "/swaps/tsk_1", True),
        ("GET /swaps/*", "GET", "/swaps", False),
        ("* /me", "PUT", "/me", True),
        ("GET *", "GET", "/results/tsk_1.jpg", True),
        ("*", "BREW", "/anything", True),
        ("*", "webhook", "swap.completed", True),
        ("GET /a.c", "GET", "/abc", False),
    ],
)
def test_matches(match: str, method: str, path: str, fits: bool) -> None:
    """Method and path, a star for anything; nothing else has a meaning."""
    injector = FaultInjector(0)
    injector.add(Fault(match, faults.Close()))

    assert (injector.strike_request(method, path) is not None) == fits
    assert injector.strike_webhook("swap.completed") is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Fault("swaps", faults.Close()), ValueError, "match must be such as 'POST /swaps'"),
        (lambda: Fault("post /swaps", faults.Close()), ValueError, "match must .* 'post /swaps'"),
        (lambda: Fault("", faults.Close()), ValueError, "match must be such as"),
        (lambda: Fault("webhook swap.ended", faults.Drop()), ValueError, "match must be such as"),
        (lambda: Fault(cast("str", 7), faults.Drop()), TypeError, "match must be a str; got 7"),
        (lambda: Fault("*", faults.Drop()), ValueError, "do must be for a request, .* got Drop"),
        (lambda: Fault("webhook", faults.Close()), ValueError, "do must be for a webhook"),
        (lambda: Fault("*", cast("Any", "close")), ValueError, "do must be for a request"),
        (lambda: Fault("*", faults.Close(), nth=0), ValueError, "nth must be at least 1; got 0"),
        (lambda: Fault("*", faults.Close(), times=0), ValueError, "times must be at least 1"),
        (lambda: Fault("*", faults.Close(), rate=1.1), ValueError, "rate must .* at most 1; got"),
        (lambda: faults.Status(200), ValueError, "status must be from 400 to 599; got 200"),
        (lambda: faults.Status(500, ""), ValueError, "code must not be empty"),
        (lambda: faults.Status(500, "a\nb"), ValueError, "code must be printable text"),
        (lambda: faults.Status(500, retry_after=-1), ValueError, "retry_after must be at least 0"),
        (lambda: faults.Status(500, retry_after="a\r\nb"), ValueError, "retry_after must be a h"),
        (lambda: faults.Latency(-1), ValueError, "seconds must be at least 0; got -1"),
        (lambda: faults.Stall("whole"), ValueError, "after must be 'nothing' or 'half'; got"),
        (lambda: faults.Reset(cast("bool", 1)), TypeError, "commit must be True or False; got 1"),
        (lambda: faults.Truncate(1.0), ValueError, "keep must be at least 0 and less than 1; got"),
        (lambda: faults.Body("\ud800"), ValueError, "text must be printable text"),
        (lambda: faults.Body(cast("str", b"")), TypeError, "text must be a str; got b''"),
        (lambda: faults.Body(content_type="a\nb"), ValueError, "content_type must be a header's"),
        (lambda: faults.Oversized(0), ValueError, "size must be at least 1; got 0"),
        (lambda: faults.Headers(set={"a b": "c"}), ValueError, "set must name headers such as"),
        (lambda: faults.Headers(set={"a": "b\r\n"}), ValueError, r"set\['a'\] must be a header's"),
        (lambda: faults.Headers(set=cast("Any", 7)), TypeError, "set must be a dict; got 7"),
        (lambda: faults.Headers(remove=["a:"]), ValueError, "remove must name headers such as"),
        (lambda: faults.Headers(remove=cast("Any", "a")), TypeError, "remove must be a list of"),
        (lambda: faults.ClockSkew(float("nan")), ValueError, "seconds must be a finite number"),
    ],
)
def test_impossible_faults_are_refused(make: Any, error: type[Exception], message: str) -> None:
    """Errors name the field, the value and what would be right."""
    with pytest.raises(error, match=message):
        make()


def test_every_action_is_a_frozen_value_of_some_use() -> None:
    """Each has a name in files and stands in exactly the unions that say where it may strike."""
    assert len(faults.ACTIONS) == 22
    for name, action in faults.ACTIONS.items():
        assert name == _actions.name_of(action)
        assert attrs.has(action)
        assert action.__doc__


async def test_without_faults_the_date_is_the_clocks() -> None:
    """Date follows the emulator's time, virtual or scaled."""
    async with Emulator(clock=VirtualClock()) as emulator:
        emulator.advance(86_400)
        _, headers, _ = await exchange(emulator, raw(method="GET", path="/api/v1/me"))
        assert parsedate_to_datetime(headers["date"]).timestamp() == START + 86_400
    async with Emulator(clock=RealClock(speed=1000)) as emulator:
        _, headers, _ = await exchange(emulator, raw(method="GET", path="/nothing"))
        now = emulator.clock.now()
        assert now - 60 < parsedate_to_datetime(headers["date"]).timestamp() <= now


async def test_a_fault_strikes_a_request_that_cannot_be_read() -> None:
    """Also one with a body that is too large, or without a key."""
    async with applied(faults.Reset(), faults.Status(500), match="*") as emulator:
        async with connected(emulator) as wire:
            await wire.send(raw(b"", "Content-Length: 99999999", JSON_TYPE))
            with pytest.raises(ConnectionResetError):
                await wire.rest()
        head = (
            b"POST /api/v1/swaps HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
            % len(BODY)
        )
        assert (await exchange(emulator, head + BODY))[0] == 500


def test_a_reset_is_a_reset_for_blocking_sockets_as_well() -> None:
    """SO_LINGER makes it one, whoever reads."""
    with Emulator(faults=[Fault("*", faults.Reset())]) as emulator:
        host, port = emulator.origin.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(creation())
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_connection_that_has_gone_is_not_reset() -> None:
    """The client was faster."""

    class Gone:
        transport: asyncio.Transport | None = None
        doomed = False

        async def hold(self, seconds: float | None = None) -> None: ...

    _reset(Gone())
