"""An error describes the complete call: all of its attempts, and whether a new key is safe."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest

from aifaceswap import (
    AIFaceSwapError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncClient,
    Budget,
    ConflictError,
    InsufficientCreditsError,
    RateLimitError,
    ServerError,
    Swap,
    UnprocessableContentError,
)
from support.samples import KEY, URLS, client_of
from support.scripted import SWAP, ScriptedServer, Step, answer, raw, refusal, reset, stall

IN_PROGRESS = refusal(409, "idempotency_in_progress")
CONFLICT = refusal(409, "idempotency_conflict")
PAGE = b"<html>Cloudflare</html>"


def now() -> float:
    return asyncio.get_running_loop().time()


def chain(error: BaseException) -> Iterator[str]:
    """The class of an error and of those that it names as its cause."""
    attempt: BaseException | None = error
    while attempt is not None:
        yield type(attempt).__name__
        attempt = attempt.__cause__


def page(status: int) -> Step:
    return answer(status, PAGE, {"Content-Type": "text/html", "cf-ray": "8c0f-FRA"})


# --- what the error says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "names"),
    [
        (refusal(402, "insufficient_credits"), ["InsufficientCreditsError", "APIConnectionError"]),
        (refusal(400, "validation_error"), ["BadRequestError", "APIConnectionError"]),
        (refusal(429, "rate_limited_daily"), ["DailyLimitError", "APIConnectionError"]),
    ],
)
async def test_a_rejection_after_a_lost_response_proves_nothing(
    last: Step, names: list[str]
) -> None:
    """The first attempt may have created the swap: the error says so, and chains its error."""
    async with ScriptedServer(reset, last) as server, client_of(server) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.swaps.create(**URLS)
    assert list(chain(caught.value)) == names
    assert (caught.value.sent, caught.value.may_have_succeeded) == (True, True)
    assert caught.value.attempts == 2


async def test_a_first_rejection_proves_that_nothing_was_created() -> None:
    """It arrived, but a documented code excludes a swap: a new key is safe."""
    rejected = refusal(402, "insufficient_credits")
    async with ScriptedServer(rejected) as server, client_of(server) as client:
        with pytest.raises(InsufficientCreditsError) as caught:
            await client.swaps.create(**URLS)
    assert (caught.value.sent, caught.value.may_have_succeeded) == (True, False)
    assert caught.value.__cause__ is None


async def test_a_firewalls_page_proves_nothing() -> None:
    """Without a code of the service, nothing excludes a swap; the message has Cloudflare's id."""
    async with ScriptedServer(page(403)) as server, client_of(server) as client:
        with pytest.raises(APIStatusError, match=r"\(cf-ray 8c0f-FRA\)$") as caught:
            await client.swaps.create(**URLS)
    assert caught.value.may_have_succeeded


async def test_sent_is_true_if_any_attempt_arrived() -> None:
    """Although the last one could not even connect."""
    async with ScriptedServer(reset) as server:
        base_url = server.base_url

        async def stop_listening() -> None:
            while not server.requests:
                await asyncio.sleep(0)
            server._server.close()

        stopping = asyncio.create_task(stop_listening())
        async with AsyncClient(KEY, base_url=base_url, budget=None, max_retries=2) as client:
            with pytest.raises(APIConnectionError, match="cannot connect") as caught:
                await client.swaps.create(**URLS)
        await stopping
    assert (caught.value.sent, caught.value.may_have_succeeded) == (True, True)
    assert list(chain(caught.value)) == ["APIConnectionError"] * 3


async def test_all_errors_of_a_call_are_chained() -> None:
    """Each is the cause of the next one, also if the call runs while another error is handled."""
    steps = (reset, page(524), refusal(400, "validation_error"))
    async with ScriptedServer(*steps) as server, client_of(server) as client:
        try:
            json.loads("{")
        except ValueError:
            with pytest.raises(APIStatusError) as caught:
                await client.swaps.create(**URLS)
    assert list(chain(caught.value)) == ["BadRequestError", "ServerError", "APIConnectionError"]


async def test_a_last_attempt_without_time_hides_nothing() -> None:
    """A timeout of 0.1 s shows nothing: the 503 before it is raised, with the timeout as cause."""
    busy = refusal(503, "internal_error", {"Retry-After": "1.9"})
    async with ScriptedServer(busy, stall) as server, client_of(server, deadline=2) as client:
        with pytest.raises(ServerError) as caught:
            await client.swaps.create(**URLS)
    assert isinstance(caught.value.__cause__, APITimeoutError)
    assert (caught.value.attempts, len(server.requests)) == (2, 2)


async def test_a_refused_permit_hides_nothing() -> None:
    """The error of the attempt is raised with the refusal as cause, and the ones before it."""
    async with (
        ScriptedServer(reset, refusal(503, "internal_error")) as server,
        client_of(server, budget=Budget(2, 60.0), deadline=20) as client,
    ):
        with pytest.raises(ServerError) as caught:
            await client.swaps.create(**URLS)
    refused, lost = "RateLimitError", "APIConnectionError"
    assert list(chain(caught.value)) == ["ServiceUnavailableError", refused, lost]
    assert caught.value.attempts == 2


async def test_a_first_refused_permit_was_not_sent() -> None:
    """Nothing was: any key is safe."""
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=Budget(1, 60.0), max_wait=0) as client,
    ):
        await client.swaps.get("tsk_1")
        with pytest.raises(RateLimitError) as caught:
            await client.swaps.create(**URLS)
    assert (caught.value.sent, caught.value.may_have_succeeded) == (False, False)


async def test_a_connect_timeout_was_not_sent() -> None:
    """A host that drops connections got no body; its message says that there is no connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(3)]
        for waiting in full:
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with AsyncClient(KEY, base_url=url, timeout=1, max_retries=1, budget=None) as client:
            with pytest.raises(APITimeoutError, match=r"^no connection within 1 s$") as caught:
                await client.swaps.create(**URLS)
        for waiting in full:
            waiting.close()
    assert (caught.value.sent, caught.value.may_have_succeeded) == (False, False)


# --- what is retried -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 507, 520, 521, 522, 524, 526, 530, 599])
async def test_every_server_error_is_retried(status: int) -> None:
    """With the same key, whatever page a proxy has put in the place of a response."""
    async with ScriptedServer(page(status), answer()) as server, client_of(server) as client:
        assert (await client.swaps.create(**URLS)).id == "tsk_1"
    assert len(set(server.keys)) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("first", [reset, stall, page(524), raw(b"")])
@pytest.mark.parametrize("conflict", [IN_PROGRESS, CONFLICT, page(409)])
async def test_a_409_after_an_unknown_result_is_waited_out(first: Step, conflict: Step) -> None:
    """The first attempt is still being carried out: the same key succeeds once it is done."""
    steps = (first, *[conflict] * 8, answer())
    async with ScriptedServer(*steps) as server, client_of(server, max_retries=1) as client:
        assert (await client.swaps.create(**URLS)).id == "tsk_1"
    assert len(set(server.keys)) == 1


@pytest.mark.parametrize("conflict", [IN_PROGRESS, refusal(409, "busy", {"Retry-After": "2"})])
async def test_a_409_in_progress_ends_at_the_deadline(conflict: Step) -> None:
    """It is raised then; a swap may exist."""
    async with ScriptedServer(conflict) as server, client_of(server, deadline=30) as client:
        began = now()
        with pytest.raises(ConflictError) as caught:
            await client.swaps.create(**URLS)
        assert 15 < now() - began <= 30
    assert caught.value.may_have_succeeded
    assert len(server.requests) < 25


async def test_a_409_for_a_new_key_is_not_retried() -> None:
    """Nobody can have sent it before."""
    async with ScriptedServer(CONFLICT) as server, client_of(server) as client:
        with pytest.raises(ConflictError):
            await client.swaps.create(**URLS)
    assert len(server.requests) == 1


async def test_a_409_for_a_key_of_the_caller_is_retried_a_few_times() -> None:
    """Another process may have sent it a moment ago; if the key is used up, that is found soon."""
    async with ScriptedServer(CONFLICT) as server, client_of(server) as client:
        with pytest.raises(ConflictError):
            await client.swaps.create(**URLS, idempotency_key="order-7")
    assert len(server.requests) == 5


async def test_a_422_is_not_always_about_the_content() -> None:
    """Only its own code says that the images are not allowed."""
    async with ScriptedServer(refusal(422, "key_reused")) as server, client_of(server) as client:
        with pytest.raises(UnprocessableContentError) as caught:
            await client.swaps.create(**URLS)
    assert type(caught.value) is UnprocessableContentError


async def test_429s_do_not_use_up_the_retries() -> None:
    """The deadline and `max_wait` limit them; another failure still has its retries."""
    limited = refusal(429, "rate_limited_concurrent", {"Retry-After": "2"})
    steps = (*[limited] * 9, page(524), answer())
    async with ScriptedServer(*steps) as server, client_of(server, max_retries=1) as client:
        assert (await client.swaps.create(**URLS)).id == "tsk_1"


async def test_429s_end_at_max_wait() -> None:
    """It is a total over all waits of the call."""
    limited = refusal(429, "rate_limited", {"Retry-After": "2"})
    async with ScriptedServer(limited) as server, client_of(server, max_wait=9) as client:
        began = now()
        with pytest.raises(RateLimitError) as caught:
            await client.swaps.create(**URLS)
        assert 4 <= now() - began <= 9
    assert caught.value.attempts == len(server.requests) <= 5
    assert not caught.value.may_have_succeeded


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", ["0", "Mon, 01 Jan 2024 00:00:00 GMT"])
async def test_a_retry_after_of_nothing_still_backs_off(status: int, retry_after: str) -> None:
    """A service that says 0 gets no burst of requests."""
    failure = refusal(status, "internal_error", {"Retry-After": retry_after})
    async with ScriptedServer(failure) as server, client_of(server, deadline=20) as client:
        began = now()
        with pytest.raises(APIStatusError):
            await client.swaps.create(**URLS)
        elapsed = now() - began
    assert elapsed > 0.5
    assert len(server.requests) <= (5 if status == 503 else 25)


async def test_a_retry_after_of_400_digits_is_raised_at_once() -> None:
    """It is longer than any deadline."""
    failure = refusal(429, "rate_limited", {"Retry-After": "9" * 400})
    async with ScriptedServer(failure) as server, client_of(server) as client:
        began = now()
        with pytest.raises(RateLimitError) as caught:
            await client.swaps.create(**URLS)
        assert now() - began < 0.1
    assert caught.value.retry_after == 1e9


async def test_without_retries_there_is_one_attempt() -> None:
    """Also after a 429 or a 409 in progress."""
    for step in (refusal(429, "rate_limited"), IN_PROGRESS, reset):
        async with ScriptedServer(step) as server, client_of(server, max_retries=0) as client:
            with pytest.raises(AIFaceSwapError):
                await client.swaps.create(**URLS)
        assert len(server.requests) == 1


# --- whatever ends a call ----------------------------------------------------------------------


class SoftTimeLimit(BaseException):
    """As a job queue raises it in the middle of a job."""


@pytest.mark.parametrize("kind", [SoftTimeLimit, SystemExit, KeyError])
async def test_a_foreign_exception_names_key_and_id(kind: type[BaseException]) -> None:
    """What the program itself raises during `run()` gets a note with both."""

    def stop(_: Swap) -> None:
        raise kind("stop")

    done = {**SWAP, "status": "processing"}
    async with ScriptedServer(answer(201), answer(200, done)) as server, client_of(server) as c:
        with pytest.raises(kind) as caught:
            await c.swaps.run(**URLS, idempotency_key="order-7", on_update=stop)
    assert "aifaceswap: idempotency key: order-7, swap id: tsk_1" in caught.value.__notes__


async def test_a_timeout_around_run_names_key_and_id() -> None:
    """The swap is paid and keeps running: the cause of the `TimeoutError` says which it is."""
    running = {**SWAP, "status": "processing"}
    async with ScriptedServer(answer(200, running)) as server, client_of(server) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(9):
                await client.swaps.run(**URLS)
    cause = caught.value.__cause__ or caught.value.__context__
    assert cause is not None
    assert cause.__notes__ == [
        f"aifaceswap: idempotency key: {server.keys[0]}, swap id: tsk_1",
    ]


async def test_an_error_while_run_waits_has_key_and_id() -> None:
    """As attributes, whatever the class."""
    async with (
        ScriptedServer(answer(201), refusal(401, "invalid_api_key")) as server,
        client_of(server) as client,
    ):
        with pytest.raises(AIFaceSwapError) as caught:
            await client.swaps.run(**URLS)
    assert caught.value.idempotency_key == server.keys[0]
    assert caught.value.swap_id == "tsk_1"


# --- what was charged is returned ----------------------------------------------------------------


async def test_a_response_of_long_headers_is_read() -> None:
    """Proxies add policies and cookies of many kilobytes."""
    long = answer(201, headers={"Content-Security-Policy": "x" * 60_000})
    async with ScriptedServer(long) as server, client_of(server) as client:
        assert (await client.swaps.create(**URLS)).id == "tsk_1"
    assert len(server.requests) == 1


async def test_no_word_of_an_oversized_header_is_shown() -> None:
    """It may be a signed link."""
    secret = answer(302, b"", {"Location": "https://example.com/?secret=" + "x" * 70_000})
    async with ScriptedServer(secret) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.swaps.create(**URLS)
    assert str(caught.value) == "the response is not HTTP (ClientResponseError)"


async def test_bytes_on_an_idle_connection_are_not_the_next_response() -> None:
    """The connection is closed, and the next request gets a response of its own."""
    stale = {**SWAP, "id": "tsk_stale"}
    extra = b'HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\n{"id": "tsk_stale", "status": "queued"}'

    async def respond_twice(request: object, writer: asyncio.StreamWriter) -> None:
        await answer(201)(request, writer)  # type: ignore[arg-type]
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(extra)

    async with ScriptedServer(respond_twice, answer(201)) as server, client_of(server) as client:
        first = await client.swaps.create(**URLS)
        await asyncio.sleep(0.1)
        second = await client.swaps.create(**URLS)
    assert (first.id, second.id) == ("tsk_1", "tsk_1") != (stale["id"], stale["id"])
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_swap_of_another_request_is_asked_for_again() -> None:
    """`get()` does not return what an intermediary mixed up."""
    other = answer(200, {**SWAP, "id": "tsk_2"})
    async with ScriptedServer(other, answer()) as server, client_of(server) as client:
        assert (await client.swaps.get("tsk_1")).id == "tsk_1"
    assert len(server.requests) == 2
