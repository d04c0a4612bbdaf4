"""Waits: shared polls, adapting intervals, terminal states, deliveries; in virtual time."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from aifaceswap import (
    AsyncClient,
    AuthenticationError,
    Budget,
    InvalidRequestError,
    NotFoundError,
    Swap,
    SwapFailedError,
    WaitTimeoutError,
)
from aifaceswap.emulator import Emulator, Limits
from support.samples import URLS
from support.scripted import SWAP, Received, ScriptedServer, answer, refusal, reset, stall

DONE = {**SWAP, "status": "done", "progress": 100, "result_url": "https://example.com/r.jpg"}
LIFE = 30.0


def now() -> float:
    return asyncio.get_running_loop().time()


def polls(emulator: Emulator) -> int:
    return sum(request.method == "GET" for request in emulator.requests)


async def create(client: AsyncClient, number: int) -> list[Swap]:
    return list(await asyncio.gather(*(client.swaps.create(**URLS) for _ in range(number))))


async def requests_of(number: int) -> int:
    """The polls that so many waits for fresh 30 s swaps cost."""
    limits = Limits(per_minute=None, per_day=None, concurrent=None)
    async with (
        Emulator(duration=LIFE, limits=limits, credits=10_000) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=None) as client,
    ):
        swaps = await create(client, number)
        ended = await asyncio.gather(*(client.swaps.wait(swap) for swap in swaps))
        assert {swap.status for swap in ended} == {"done"}
        return polls(emulator)


async def test_a_hundred_waits_cost_no_more_than_one() -> None:
    """One list call shows them all."""
    assert await requests_of(100) <= await requests_of(1)


async def test_a_thousand_waits_cost_ten_pages_for_each_poll() -> None:
    """A page shows a hundred swaps."""
    assert await requests_of(1000) <= 10 * await requests_of(10)


async def test_a_wait_returns_the_finished_swap(client: AsyncClient, emulator: Emulator) -> None:
    """Soon after it has ended: within a polling interval."""
    swap = await client.swaps.create(**URLS)
    began = now()
    ended = await client.swaps.wait(swap)
    assert (ended.id, ended.status) == (swap.id, "done")
    assert ended.result_url is not None
    assert LIFE <= now() - began <= LIFE * 1.25


async def test_polls_follow_what_swaps_have_been_taking(
    client: AsyncClient, emulator: Emulator
) -> None:
    """Once a duration is known, about five polls are spent on a swap."""
    await client.swaps.run(**URLS)
    before = polls(emulator)
    await client.swaps.run(**URLS)
    assert 5 <= polls(emulator) - before <= 7


async def test_the_first_poll_comes_soon(emulator: Emulator) -> None:
    """A swap that takes a moment is waited for a moment."""
    async with (
        Emulator(duration=0.5) as quick,
        AsyncClient(quick.api_key, base_url=quick.base_url) as client,
    ):
        began = now()
        await client.swaps.run(**URLS)
        assert now() - began <= 1.1


async def test_no_poll_is_closer_than_a_second_nor_further_than_fifteen(
    client: AsyncClient, emulator: Emulator
) -> None:
    """However long a swap has been taking."""
    swap = await client.swaps.create(
        source_url="https://example.com/forever.jpg", target_url=URLS["target_url"]
    )
    with pytest.raises(WaitTimeoutError):
        await client.swaps.wait(swap, timeout=300)
    times = [request.at for request in emulator.requests if request.method == "GET"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 0.99
    assert 14.9 <= max(gaps) <= 15.1


async def test_polls_are_fewer_when_few_requests_are_left() -> None:
    """Where others use the key up, polls stand back."""

    def queued(remaining: int) -> ScriptedServer:
        headers = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": str(remaining)}
        return ScriptedServer(answer(200, SWAP, headers))

    counts = []
    for remaining in (59, 3):
        async with (
            queued(remaining) as server,
            AsyncClient("key", base_url=server.base_url, budget=None) as client,
        ):
            with pytest.raises(WaitTimeoutError):
                await client.swaps.wait("tsk_1", timeout=60)
            counts.append(len(server.requests))
    assert counts[1] <= counts[0] / 2


async def test_a_swap_that_failed_is_an_error(client: AsyncClient) -> None:
    """It says why, in the service's words, and carries swap and key."""
    with pytest.raises(SwapFailedError) as caught:
        await client.swaps.run(
            source_url="https://example.com/fails.jpg",
            target_url=URLS["target_url"],
            idempotency_key="order-7",
        )
    assert caught.value.swap.status == "failed"
    assert str(caught.value.swap.error_message) in str(caught.value)
    assert caught.value.idempotency_key == "order-7"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": "done", "result_url": "https://example.com/r.jpg"}, "done"),
        ({"status": "failed", "error": None}, "failed"),
        ({"status": "failed", "error": "bare words"}, "failed"),
        ({"status": "delivered", "result_url": "https://example.com/r.jpg"}, "done"),
        ({"status": "rejected", "error": {"code": "new", "message": "No."}}, "failed"),
        ({"status": "processing", "result_url": "https://example.com/r.jpg"}, "done"),
        ({"status": "paused"}, "goes on"),
        ({"status": "processing", "progress": 100, "error": "odd"}, "goes on"),
    ],
)
async def test_which_states_end_a_wait(fields: dict[str, object], outcome: str) -> None:
    """Failed, any status with a result, and an unknown one with an error that stays."""
    async with (
        ScriptedServer(answer(200, {**SWAP, **fields})) as server,
        AsyncClient("key", base_url=server.base_url, budget=None) as client,
    ):
        errors = {"failed": SwapFailedError, "goes on": WaitTimeoutError}
        if outcome == "done":
            assert (await client.swaps.wait("tsk_1", timeout=30)).status == fields["status"]
        else:
            with pytest.raises(errors[outcome]):
                await client.swaps.wait("tsk_1", timeout=30)


async def test_a_finished_swap_needs_no_request(client: AsyncClient, emulator: Emulator) -> None:
    """Waiting for what has ended is free."""
    ended = await client.swaps.run(**URLS)
    before = len(emulator.requests)
    assert await client.swaps.wait(ended) == ended
    assert len(emulator.requests) == before


async def test_a_wait_for_an_id_polls_at_once(client: AsyncClient, emulator: Emulator) -> None:
    """It may have ended long ago."""
    ended = await client.swaps.run(**URLS)
    await asyncio.sleep(5)
    began = now()
    assert (await client.swaps.wait(ended.id)).id == ended.id
    assert now() - began <= 0.1


async def test_a_wait_that_times_out_says_how_the_swap_was(client: AsyncClient) -> None:
    """The swap goes on: the error carries it, its id and the key."""
    with pytest.raises(WaitTimeoutError, match=r"after 10 s .*(preparing|processing)") as caught:
        await client.swaps.run(**URLS, timeout=10, idempotency_key="order-7")
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert error.swap is not None
    assert error.swap.id == error.swap_id
    assert error.idempotency_key == "order-7"
    assert (await client.swaps.wait(error.swap_id)).status == "done"


async def test_a_failed_poll_is_repeated() -> None:
    """Lost connections and failing servers end no wait."""
    broken = refusal(500, "internal_error")
    async with (
        ScriptedServer(answer(201), reset, reset, broken, broken, answer(200, DONE)) as server,
        AsyncClient("key", base_url=server.base_url, budget=None) as client,
    ):
        assert (await client.swaps.run(**URLS)).status == "done"
    assert [request.method for request in server.requests].count("POST") == 1


async def test_a_wait_that_times_out_says_why_polls_failed() -> None:
    """The last failed poll is the cause."""
    async with (
        ScriptedServer(refusal(503, "api_temporarily_disabled")) as server,
        AsyncClient("key", base_url=server.base_url, budget=None) as client,
    ):
        with pytest.raises(WaitTimeoutError) as caught:
            await client.swaps.wait("tsk_1", timeout=30)
    assert "api_temporarily_disabled" in str(caught.value.__cause__)


async def test_a_revoked_key_ends_every_wait() -> None:
    """What will not pass is not waited out."""
    async with (
        ScriptedServer(refusal(401, "invalid_api_key")) as server,
        AsyncClient("key", base_url=server.base_url, budget=None) as client,
    ):
        waits = [client.swaps.wait(f"tsk_{n}", timeout=60) for n in range(3)]
        began = now()
        errors = await asyncio.gather(*waits, return_exceptions=True)
        assert now() - began <= 1.0
    assert [type(error) for error in errors] == [AuthenticationError] * 3
    assert len({id(error) for error in errors}) == 3


async def test_a_missing_swap_ends_its_own_wait_alone(client: AsyncClient) -> None:
    """The others go on."""
    swaps = await create(client, 3)
    waits = [client.swaps.wait(swap) for swap in swaps]
    *ended, missing = await asyncio.gather(
        *waits, client.swaps.wait("tsk_missing"), return_exceptions=True
    )
    assert isinstance(missing, NotFoundError)
    assert [swap.status for swap in ended if isinstance(swap, Swap)] == ["done"] * 3


async def test_a_swap_beyond_the_pages_is_polled_singly(
    client: AsyncClient, emulator: Emulator
) -> None:
    """A wait whose swap is not on the page falls back to a single GET."""
    old = await create(client, 2)
    await create(client, 150)
    ended = await asyncio.gather(*(client.swaps.wait(swap) for swap in old))
    assert {swap.id for swap in ended} == {swap.id for swap in old}
    assert any(request.path.endswith(old[0].id) for request in emulator.requests)


@pytest.mark.parametrize("page", [{"results": []}, {"data": [{"id": 1}]}, [SWAP]])
async def test_a_list_in_an_unknown_form_is_done_without(page: object) -> None:
    """Its form is not documented: single polls take its place."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        is_list = request.path.startswith("/api/v1/swaps?")
        single = {**DONE, "id": request.path.rpartition("/")[2]}
        await answer(200, page if is_list else single)(request, writer)

    async with (
        ScriptedServer(step) as server,
        AsyncClient("key", base_url=server.base_url, budget=None) as client,
    ):
        ended = await asyncio.gather(*(client.swaps.wait(f"tsk_{n}") for n in range(3)))
    assert [swap.id for swap in ended] == ["tsk_0", "tsk_1", "tsk_2"]
    assert sum("?" in request.path for request in server.requests) == 1


async def test_waits_that_leave_take_no_poll_from_the_others(client: AsyncClient) -> None:
    """Cancelling any wait leaves the others as they were."""
    swaps = await create(client, 5)
    waits = [asyncio.create_task(client.swaps.wait(swap)) for swap in swaps]
    await asyncio.sleep(5)
    waits[0].cancel()
    waits[1].cancel()
    await asyncio.sleep(5)
    waits[2].cancel()
    ended = await asyncio.gather(*waits[3:])
    assert [swap.status for swap in ended] == ["done", "done"]


async def test_no_task_outlives_the_waits(client: AsyncClient) -> None:
    """Polls in flight end with the last wait."""
    before = asyncio.all_tasks()
    with pytest.raises(WaitTimeoutError):
        await client.swaps.run(**URLS, timeout=5)
    served = {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task)}
    assert asyncio.all_tasks() - served <= before


async def test_a_wait_that_gives_up_takes_its_poll_with_it() -> None:
    """A response that is still to come holds up nobody."""

    async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.path.endswith("tsk_1"):
            polled.append(request)
            await answer(200, DONE if len(polled) > 2 else SWAP)(request, writer)
        elif request.path.endswith("tsk_2"):
            await stall(request, writer)
        else:
            await answer(200, {"data": [], "next_cursor": None})(request, writer)

    polled: list[Received] = []
    async with (
        ScriptedServer(serve) as server,
        AsyncClient("key", base_url=server.base_url, budget=None) as client,
    ):
        other = asyncio.ensure_future(client.swaps.wait("tsk_1"))
        began = now()
        with pytest.raises(WaitTimeoutError):
            await client.swaps.wait("tsk_2", timeout=3)
        assert now() - began == pytest.approx(3, abs=0.01)
        assert (await other).is_finished
        assert now() - began < 6


async def test_two_waits_for_one_swap_both_end(client: AsyncClient) -> None:
    """And cost no more than one."""
    swap = await client.swaps.create(**URLS)
    first, second = await asyncio.gather(client.swaps.wait(swap), client.swaps.wait(swap.id))
    assert first.status == second.status == "done"


async def test_derived_clients_share_their_polls(client: AsyncClient, emulator: Emulator) -> None:
    """with_options() changes timeouts, not the polls."""
    patient = client.with_options(timeout=60)
    swaps = await create(client, 2)
    await asyncio.gather(client.swaps.wait(swaps[0]), patient.swaps.wait(swaps[1]))
    times = [request.at for request in emulator.requests if request.method == "GET"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 0.9


async def test_waits_leave_creations_their_budget() -> None:
    """Within 60 a minute, waiting for ten swaps holds up no creation for long."""
    limits = Limits(concurrent=None)
    async with (
        Emulator(duration=LIFE, limits=limits) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=Budget()) as client,
    ):
        await asyncio.gather(*(client.swaps.run(**URLS) for _ in range(100)))
        assert all(request.status != 429 for request in emulator.requests)
        times = [request.at for request in emulator.requests if request.method == "POST"]
        assert max(times) - min(times) <= 130


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True])
async def test_a_timeout_of_nothing_is_refused(client: AsyncClient, timeout: float) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidRequestError, match="timeout"):
        await client.swaps.wait("tsk_1", timeout=timeout)
