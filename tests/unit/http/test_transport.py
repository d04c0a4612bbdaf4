"""Calls over sockets: attempts, deadlines, keys, and what a broken server does to them."""

from __future__ import annotations

import asyncio
import gzip
import json
import pickle
import tracemalloc
import uuid
import zlib

import aiohttp
import pytest

from aifaceswap import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncClient,
    AuthenticationError,
    Budget,
    ConcurrencyLimitError,
    ConfigurationError,
    ContentRejectedError,
    DailyLimitError,
    RateLimitError,
    ServerError,
    Swap,
)
from support.samples import KEY, URLS, client_of
from support.scripted import SWAP, ScriptedServer, answer, raw, refusal, reset, stall


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_creation_is_sent_as_the_contract_says() -> None:
    """Method, path, key, content type, a uuid4 as idempotency key, and only the fields given."""
    async with ScriptedServer(answer(201)) as server, client_of(server) as client:
        swap = await client.swaps.create(**URLS, metadata={"order": 7})
    (request,) = server.requests
    assert swap.id == "tsk_1"
    assert (request.method, request.path) == ("POST", "/api/v1/swaps")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("aifaceswap-python/")
    assert uuid.UUID(request.headers["idempotency-key"]).version == 4
    assert json.loads(request.body) == {**URLS, "type": "image", "metadata": {"order": 7}}


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(reset, id="reset after it has committed"),
        pytest.param(stall, id="stalls"),
        pytest.param(raw(b""), id="closes"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"), id="cuts its answer"),
        pytest.param(raw(b"\x16\x03\x01 not HTTP\r\n\r\n"), id="does not speak HTTP"),
        pytest.param(answer(200, b"<html>Busy</html>", {"Content-Type": "text/html"}), id="HTML"),
        pytest.param(answer(200, b""), id="empty"),
        pytest.param(answer(200, b'{"id": "tsk_1", "sta'), id="half a JSON"),
        pytest.param(answer(200, b"x", {"Content-Encoding": "gzip"}), id="no gzip"),
        pytest.param(answer(502, b"<html>Bad gateway</html>"), id="502 by a proxy"),
        pytest.param(refusal(408, "timeout"), id="408"),
        pytest.param(refusal(500, "internal_error"), id="500"),
        pytest.param(refusal(503, "api_temporarily_disabled", {"Retry-After": "7"}), id="503"),
        pytest.param(refusal(504, "gateway_timeout"), id="504"),
        pytest.param(refusal(429, "rate_limited", {"Retry-After": "3"}), id="429"),
        pytest.param(refusal(429, "rate_limited_concurrent"), id="429 without Retry-After"),
    ],
)
async def test_what_may_pass_is_sent_again_with_the_same_key_and_body(failure: object) -> None:
    """Every attempt of a creation is the same to the byte, so that it is paid once."""
    async with (
        ScriptedServer(failure, failure, answer(201)) as server,  # type: ignore[arg-type]
        client_of(server) as client,
    ):
        swap = await client.swaps.create(**URLS)
    assert swap.id == "tsk_1"
    assert len(server.requests) == 3
    assert len(set(server.keys)) == 1
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "validation_error", APIStatusError),
        (401, "invalid_api_key", AuthenticationError),
        (402, "insufficient_credits", APIStatusError),
        (409, "conflict", APIStatusError),
        (422, "nsfw_content_detected", ContentRejectedError),
        (429, "rate_limited_daily", DailyLimitError),
        (501, "new_code", ServerError),
    ],
)
async def test_what_will_not_pass_is_raised_at_once(
    status: int, code: str, kind: type[APIStatusError]
) -> None:
    """A final refusal is not tried again, and its error carries the key."""
    async with ScriptedServer(refusal(status, code)) as server, client_of(server) as client:
        with pytest.raises(kind) as caught:
            await client.swaps.create(**URLS)
    assert len(server.requests) == 1
    assert caught.value.code == code
    assert caught.value.request_id == "req_1"
    assert caught.value.attempts == 1
    assert caught.value.idempotency_key == server.keys[0]


async def test_the_callers_own_key_is_sent() -> None:
    """A key that the caller has stored is the key of every attempt."""
    async with ScriptedServer(reset, answer(201)) as server, client_of(server) as client:
        await client.swaps.create(**URLS, idempotency_key="order-7")
    assert server.keys == ["order-7", "order-7"]


async def test_each_creation_has_a_key_of_its_own() -> None:
    """Two swaps with the same arguments are two swaps."""
    async with ScriptedServer(answer(201)) as server, client_of(server) as client:
        await client.swaps.create(**URLS)
        await client.swaps.create(**URLS)
    assert len(set(server.keys)) == 2


async def test_reads_carry_no_key_and_any_other_request_does() -> None:
    """The general request is as safe to repeat as a creation."""
    async with ScriptedServer(answer(200, {})) as server, client_of(server) as client:
        read = await client.request("get", "/anything", params={"deep": True})
        write = await client.request("DELETE", "/anything/1")
    assert server.keys == [None, write.idempotency_key]
    assert read.idempotency_key is None
    assert write.idempotency_key is not None
    assert server.requests[0].path == "/api/v1/anything?deep=true"


async def test_attempts_end_after_max_retries() -> None:
    """The last error is raised, with the number of attempts and the key."""
    async with ScriptedServer(reset) as server, client_of(server, max_retries=2) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.swaps.create(**URLS)
    assert len(server.requests) == 3
    assert caught.value.attempts == 3
    assert caught.value.sent
    assert caught.value.idempotency_key == server.keys[0]


async def test_an_attempt_ends_after_its_timeout() -> None:
    """A server that stalls costs one timeout for each attempt."""
    async with ScriptedServer(stall) as server, client_of(server, timeout=7, max_retries=0) as c:
        began = now()
        with pytest.raises(APITimeoutError, match=r"within 7 s") as caught:
            await c.me()
        assert now() - began == pytest.approx(7, abs=0.1)
    assert isinstance(caught.value, TimeoutError)


async def test_a_call_ends_at_its_deadline() -> None:
    """The deadline cuts the attempt that is under way, and nothing is tried after it."""
    async with ScriptedServer(stall) as server, client_of(server, timeout=7, deadline=10) as client:
        began = now()
        with pytest.raises(APITimeoutError) as caught:
            await client.swaps.create(**URLS)
        assert now() - began <= 10.1
    assert caught.value.attempts == len(server.requests) == 2
    assert caught.value.idempotency_key == server.keys[0]


async def test_a_body_that_trickles_ends_at_the_timeout() -> None:
    """The timeout covers the last byte of the answer, not the first."""

    async def trickle(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(1)

    async with ScriptedServer(trickle) as server, client_of(server, timeout=9, max_retries=0) as c:
        began = now()
        with pytest.raises(APITimeoutError):
            await c.me()
        assert now() - began == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize("value", ["20", "20.5", "Thu, 01 Jan 2026 00:00:20 GMT"])
async def test_retry_after_is_never_undercut(value: str) -> None:
    """Seconds or a date, taken by the server's own clock."""
    headers = {"Retry-After": value, "Date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    failure = refusal(429, "rate_limited", headers)
    async with ScriptedServer(failure, answer(200, {})) as server, client_of(server) as client:
        began = now()
        await client.request("GET", "/x")
        assert 20.0 <= now() - began <= 21.1


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "1e9", "", "Thu, 99 Foo"])
async def test_nonsense_in_retry_after_is_passed_over(value: str) -> None:
    """The usual backoff takes its place."""
    failure = refusal(503, "api_temporarily_disabled", {"Retry-After": value})
    async with ScriptedServer(failure, answer(200, {})) as server, client_of(server) as client:
        began = now()
        await client.request("GET", "/x")
        assert now() - began <= 0.6


async def test_a_retry_after_beyond_the_deadline_is_raised_at_once() -> None:
    """Waiting in vain helps nobody: the error says how long it would have been."""
    failure = refusal(429, "rate_limited", {"Retry-After": "600"})
    async with ScriptedServer(failure) as server, client_of(server) as client:
        began = now()
        with pytest.raises(RateLimitError) as caught:
            await client.me()
        assert now() - began <= 0.1
    assert caught.value.retry_after == 600.0


async def test_a_redirect_is_not_followed() -> None:
    """The key goes to the base URL and nowhere else; the error says where it would have gone."""
    async with ScriptedServer(answer(200, {})) as other:
        location = f"{other.base_url}/me?token=secret"
        redirect = answer(307, b"", {"Location": location})
        async with ScriptedServer(redirect) as server, client_of(server) as client:
            with pytest.raises(APIStatusError, match="redirect to http://127") as caught:
                await client.me()
    assert other.requests == []
    assert "secret" not in str(caught.value)


async def test_a_gzip_bomb_does_not_fill_the_memory() -> None:
    """What is decompressed counts against the cap, and the error says what was too large."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1024 * 1024)
    bomb = b"".join(compressor.compress(block) for _ in range(600)) + compressor.flush()
    assert len(bomb) < 1024 * 1024
    server_answer = answer(200, bomb, {"Content-Encoding": "gzip"})
    async with ScriptedServer(server_answer) as server, client_of(server, max_retries=1) as client:
        tracemalloc.start()
        with pytest.raises(APIResponseError, match="larger than") as caught:
            await client.swaps.create(**URLS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024
    assert caught.value.idempotency_key == server.keys[0]


async def test_a_compressed_answer_is_read() -> None:
    """Honest compression is welcome."""
    body = gzip.compress(json.dumps(SWAP).encode())
    gzipped = answer(200, body, {"Content-Encoding": "gzip"})
    async with ScriptedServer(gzipped) as server, client_of(server) as client:
        assert (await client.swaps.get("tsk_1")).id == "tsk_1"


async def test_an_undocumented_shape_is_raised_with_its_path() -> None:
    """It would be the same again: one attempt, and the error shows path and beginning."""
    wrong = answer(200, {**SWAP, "status": 7})
    async with ScriptedServer(wrong) as server, client_of(server) as client:
        with pytest.raises(APIResponseError, match=r"got 7 @ \$\.status.*tsk_1"):
            await client.swaps.create(**URLS)
    assert len(server.requests) == 1


async def test_a_get_is_sent_once_for_each_attempt() -> None:
    """Aiohttp's silent second GET on a closed connection is an attempt of ours, or none."""
    async with (
        ScriptedServer(answer(200, {}), reset, answer(200, {})) as server,
        client_of(server, max_retries=0) as client,
    ):
        await client.request("GET", "/x")
        with pytest.raises(APIConnectionError):
            await client.request("GET", "/x")
    assert len(server.requests) == 2


async def test_a_closed_keep_alive_connection_costs_no_wait() -> None:
    """The first loss of a connection is answered at once, with the same key."""
    async with (
        ScriptedServer(answer(201), reset, answer(201)) as server,
        client_of(server) as client,
    ):
        await client.swaps.create(**URLS)
        began = now()
        await client.swaps.create(**URLS)
        assert now() - began <= 0.1
    assert server.keys[1] == server.keys[2]


async def test_a_server_that_is_not_there_is_an_error_that_says_so() -> None:
    """Nothing was sent, and the error knows it."""
    async with ScriptedServer(stall) as server:
        base_url = server.base_url
    async with AsyncClient(KEY, base_url=base_url, budget=None, max_retries=1) as client:
        with pytest.raises(APIConnectionError, match=r"cannot connect to 127\.0\.0\.1") as caught:
            await client.me()
    assert not caught.value.sent
    assert caught.value.attempts == 2


async def test_the_budget_is_asked_before_each_attempt() -> None:
    """A retry is a request like any other."""
    budget = Budget(2, 60.0)
    async with (
        ScriptedServer(reset, answer(200, {})) as server,
        client_of(server, budget=budget) as client,
    ):
        await client.request("GET", "/x")
        began = now()
        await client.request("GET", "/x")
        assert now() - began == pytest.approx(60.0, abs=1.0)


async def test_the_attempts_clock_starts_after_the_budget() -> None:
    """A wait for the budget is no timeout."""
    async with (
        ScriptedServer(answer(200, {})) as server,
        client_of(server, budget=Budget(1, 60.0), timeout=5) as client,
    ):
        await client.request("GET", "/x")
        await client.request("GET", "/x")
    assert len(server.requests) == 2


async def test_a_full_budget_beyond_the_deadline_is_a_rate_limit_error() -> None:
    """It is raised at once, and nothing was sent."""
    async with (
        ScriptedServer(answer(200, {})) as server,
        client_of(server, budget=Budget(1, 60.0), deadline=30) as client,
    ):
        await client.request("GET", "/x")
        began = now()
        with pytest.raises(RateLimitError) as caught:
            await client.swaps.create(**URLS)
        assert now() - began <= 0.1
    assert caught.value.attempts == 0
    assert caught.value.idempotency_key
    assert len(server.requests) == 1


async def test_a_429_pauses_every_call_of_the_client() -> None:
    """Not the task alone that met it."""
    failure = refusal(429, "rate_limited", {"Retry-After": "30"})
    async with (
        ScriptedServer(failure, answer(200, {})) as server,
        client_of(server, budget=Budget()) as client,
    ):
        first = asyncio.create_task(client.request("GET", "/x"))
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        began = now()
        await client.request("GET", "/y")
        assert now() - began == pytest.approx(29.0, abs=0.2)
        await first


async def test_too_many_unfinished_swaps_pause_creations_alone() -> None:
    """Polls go on: they are how swaps are seen to end."""
    failure = refusal(429, "rate_limited_concurrent", {"Retry-After": "30"})
    async with (
        ScriptedServer(failure, answer(200)) as server,
        client_of(server, budget=Budget(), max_retries=0) as client,
    ):
        with pytest.raises(ConcurrencyLimitError):
            await client.swaps.create(**URLS)
        began = now()
        await client.swaps.get("tsk_1")
        assert now() - began <= 0.1
        await client.swaps.create(**URLS)
        assert now() - began == pytest.approx(30.0, abs=0.2)


async def test_a_request_never_sent_costs_no_permit() -> None:
    """A refused connection is no request to the service."""
    async with ScriptedServer(stall) as server:
        base_url = server.base_url
    budget = Budget(1, 1000.0)
    async with AsyncClient(KEY, base_url=base_url, budget=budget) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.me()
    assert caught.value.attempts == 5


async def test_the_key_is_in_no_error_and_no_repr() -> None:
    """Neither in messages, nor in what hangs on the error, nor in the frames' variables."""
    failures = [reset, raw(b"HTTP/9"), answer(200, b"<html>"), refusal(500, "internal_error")]
    for failure in failures:
        async with ScriptedServer(failure) as server, client_of(server, max_retries=0) as client:
            with pytest.raises(AIFaceSwapError) as caught:
                await client.swaps.create(**URLS)
        error: BaseException | None = caught.value
        assert KEY not in repr(client) + repr(vars(client))
        assert KEY.encode() not in pickle.dumps(error)
        while error is not None:
            assert KEY not in f"{error!r} {error} {error.args} {vars(error)}"
            frame = error.__traceback__
            while frame is not None:
                if "aifaceswap" in frame.tb_frame.f_code.co_filename:
                    assert KEY not in repr(frame.tb_frame.f_locals)
                frame = frame.tb_next
            error = error.__cause__ or error.__context__


async def test_a_client_refuses_to_be_pickled() -> None:
    """The key would be in it."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(AsyncClient(KEY))


async def test_a_session_of_the_callers_own_is_used_and_left_open() -> None:
    """Who opened it closes it."""
    async with ScriptedServer(answer(200, {})) as server, aiohttp.ClientSession() as session:
        async with client_of(server, session=session) as client:
            await client.request("GET", "/x")
        assert not session.closed
        assert len(server.requests) == 1
        await session.close()
        with pytest.raises(ConfigurationError, match="session"):
            await client.request("GET", "/x")


async def test_a_proxy_of_the_environment_is_not_used_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those are often for browsers; this is a server."""
    async with ScriptedServer(answer(200, {})) as proxy, ScriptedServer(answer(200, {})) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        async with client_of(server) as client:
            await client.request("GET", "/x")
        assert proxy.requests == []


async def test_a_cancelled_creation_tells_its_key() -> None:
    """Who cancels a paid call can still send it again without paying twice."""
    async with ScriptedServer(stall) as server, client_of(server) as client:
        task = asyncio.create_task(client.swaps.create(**URLS))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert caught.value.__notes__ == [f"aifaceswap: idempotency key: {server.keys[0]}"]


async def test_cancelling_leaves_no_connection_or_task_behind() -> None:
    """In whatever phase of an attempt it comes."""
    async with ScriptedServer(stall, reset, answer(200, b"{", length=99)) as server:
        client = client_of(server)
        before = asyncio.all_tasks()
        for delay in (0.0, 0.000_002, 0.000_01, 0.01, 1.0):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay):
                    await client.swaps.create(**URLS)
        await client.aclose()
        served = {task for task in asyncio.all_tasks() if "_connected" in repr(task)}
        assert asyncio.all_tasks() - served == before - served


async def test_the_answer_of_a_general_request_is_whole() -> None:
    """Value, status, headers, ids, limits, attempts and key."""
    headers = {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "59",
        "X-RateLimit-Reset": "1790000000",
        "X-Request-Id": "req_9",
    }
    async with (
        ScriptedServer(reset, answer(202, SWAP, headers)) as server,
        client_of(server) as client,
    ):
        response = await client.request("PUT", "/swaps/1", json={"a": [1]}, into=Swap)
    assert response.value.id == "tsk_1"
    assert (response.status, response.attempts, response.request_id) == (202, 2, "req_9")
    assert response.headers["x-ratelimit-limit"] == "60"
    assert response.rate_limit is not None
    assert response.rate_limit.remaining == 59
    assert response.idempotency_key == server.keys[0]
    assert server.requests[0].body == b'{"a":[1]}'


async def test_bytes_go_out_and_come_back_as_they_are() -> None:
    """What the package has no model for can still be sent and read."""
    async with ScriptedServer(answer(200, b"\x00\xff")) as server, client_of(server) as client:
        response = await client.request(
            "POST", "/files", content=b"\x01", headers={"Content-Type": "image/png"}, into=bytes
        )
    assert response.value == b"\x00\xff"
    assert server.requests[0].headers["content-type"] == "image/png"
