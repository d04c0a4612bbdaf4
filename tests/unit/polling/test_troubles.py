"""What goes wrong with one swap or one response concerns that wait alone; in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from aifaceswap import (
    AIFaceSwapError,
    APIResponseError,
    APIStatusError,
    AsyncClient,
    BadRequestError,
    Budget,
    DailyLimitError,
    InvalidRequestError,
    NotFoundError,
    Swap,
    SwapFailedError,
    WaitTimeoutError,
    WebhookEvent,
)
from support.samples import URLS, client_of
from support.scripted import SWAP, Received, ScriptedServer, Step, answer, refusal, reset, stall

LINK = "https://example.com/r.jpg"
HOOK = "https://shop.example.com/hooks/swap"


def now() -> float:
    return asyncio.get_running_loop().time()


def body(swap_id: str, status: str = "processing", **fields: object) -> dict[str, object]:
    link = LINK if status == "done" else None
    return {**SWAP, "id": swap_id, "status": status, "result_url": link, **fields}


def queued(swap_id: str, **fields: Any) -> Swap:
    return Swap(id=swap_id, status="queued", **fields)


@attrs.define
class Service:
    """A service whose swaps finish at a time, with steps of its own for the list and for swaps."""

    done_at: float = float("inf")
    pages: Callable[[int], Step | None] = attrs.field(default=lambda _: None)
    singles: dict[str, Step] = attrs.field(factory=dict[str, Step])
    ids: list[str] = attrs.field(factory=list[str])
    requests: Counter[str] = attrs.field(factory=Counter[str])
    began: float = attrs.field(factory=now)

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        _, _, swap_id = request.path.rpartition("/swaps/")
        kind = "create" if request.method == "POST" else "list" if "?" in swap_id else "single"
        self.requests[kind] += 1
        if kind == "create":
            step = answer(201)
        elif kind == "list":
            listed = answer(200, {"data": [self.swap(one) for one in self.ids]})
            step = self.pages(self.requests["list"]) or listed
        else:
            step = self.singles.get(swap_id) or answer(200, self.swap(swap_id))
        await step(request, writer)

    def swap(self, swap_id: str) -> dict[str, object]:
        return body(swap_id, "done" if now() - self.began >= self.done_at else "processing")


async def ending(client: AsyncClient, swap: Swap | str, timeout: float = 20) -> tuple[object, int]:
    """How a wait ends, and after how many seconds."""
    began = now()
    try:
        ended: object = (await client.swaps.wait(swap, timeout=timeout)).status
    except AIFaceSwapError as error:
        ended = type(error)
    return ended, round(now() - began)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (refusal(410, "gone"), APIStatusError),
        (refusal(400, "validation_error"), BadRequestError),
        (refusal(404, "not_found"), NotFoundError),
        (answer(200, body("tsk_bad", status=None)), APIResponseError),  # type: ignore[arg-type]
        (answer(200, [1, 2]), APIResponseError),
        (answer(403, b"<html>Attention Required!"), WaitTimeoutError),
        (answer(200, body("tsk_other", "done")), None),
        (stall, WaitTimeoutError),
        (reset, WaitTimeoutError),
    ],
    ids=["410", "400", "404", "no status", "a list", "firewall", "another", "stall", "reset"],
)
@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_swap_that_cannot_be_polled_ends_no_other_wait(
    step: Step, expected: type[Exception] | None, is_listed: bool
) -> None:
    """The others finish in time."""
    good = ["tsk_1", "tsk_2"]
    service = Service(4, singles={"tsk_bad": step}, ids=good if is_listed else [])
    async with ScriptedServer(service) as server, client_of(server) as client:
        *others, bad = await asyncio.gather(
            *(ending(client, queued(swap_id)) for swap_id in good), ending(client, "tsk_bad")
        )
    assert [how for how, _ in others] == ["done", "done"]
    assert max(seconds for _, seconds in others) <= 6
    assert bad[0] == expected or expected is None


async def test_an_odd_id_ends_its_own_wait() -> None:
    """It cannot be in a path."""
    service = Service(3)
    async with ScriptedServer(service) as server, client_of(server) as client:
        good, bad = await asyncio.gather(
            ending(client, queued("tsk_1")), ending(client, queued("tsk:1"))
        )
    assert good == ("done", 3)
    assert bad[0] is InvalidRequestError


_WRONG = "500 429 403 404 405 410 html shape empty reset stall blank again number cycle"


def odd_page(cursor: object) -> Callable[[int], Step]:
    return lambda _: answer(200, {"data": [body("tsk_0")], "next_cursor": cursor})


@pytest.mark.parametrize(
    "pages",
    [
        lambda _: refusal(500, "internal_error"),
        lambda _: refusal(429, "rate_limited", {"Retry-After": "1"}),
        lambda _: refusal(403, "forbidden"),
        lambda _: refusal(404, "not_found"),
        lambda _: refusal(405, "method_not_allowed"),
        lambda _: refusal(410, "gone"),
        lambda _: answer(200, b"<html>"),
        lambda _: answer(200, {"things": []}),
        lambda _: answer(200, {"data": []}),
        lambda _: reset,
        lambda _: stall,
        odd_page(""),
        odd_page("again"),
        odd_page(7),
        lambda number: answer(
            200, {"data": [body(f"tsk_{number % 2}")], "next_cursor": f"page{number % 2}"}
        ),
    ],
    ids=[
        "500",
        "429",
        "403",
        "404",
        "405",
        "410",
        "html",
        "shape",
        "empty",
        "reset",
        "stall",
        "blank",
        "again",
        "number",
        "cycle",
    ],
)
async def test_a_list_that_fails_is_replaced_by_single_polls(
    pages: Callable[[int], Step],
) -> None:
    """Whatever is wrong with it, waits end in time."""
    service = Service(2, pages)
    async with ScriptedServer(service) as server, client_of(server) as client:
        endings = [ending(client, queued(f"tsk_{number}")) for number in range(3)]
        ended = await asyncio.gather(*endings)
    assert [how for how, _ in ended] == ["done"] * 3
    assert max(seconds for _, seconds in ended) <= 6


async def test_a_list_that_failed_once_is_tried_again() -> None:
    """It is not switched off for the life of the process."""
    ids = [f"tsk_{number}" for number in range(40)]
    service = Service(120, lambda n: refusal(404, "not_found") if n == 1 else None, ids=ids)
    async with ScriptedServer(service) as server, client_of(server) as client:
        await asyncio.gather(*(ending(client, queued(swap_id), 200) for swap_id in ids))
    assert service.requests["list"] >= 10
    assert service.requests["single"] <= 80


async def test_a_list_that_never_works_is_tried_ever_less() -> None:
    """A few times an hour."""
    service = Service(3000, lambda _: refusal(500, "internal_error"))
    async with ScriptedServer(service) as server, client_of(server) as client:
        ids = ["tsk_1", "tsk_2"]
        await asyncio.gather(*(ending(client, queued(swap_id), 3600) for swap_id in ids))
    assert 5 <= service.requests["list"] / 2 <= 20  # each is sent twice


async def test_a_wait_that_is_over_returns_whatever_others_still_need() -> None:
    """Single polls that stall hold up nobody."""
    service = Service(1, singles={"tsk_b": stall, "tsk_c": stall}, ids=["tsk_a"])
    async with ScriptedServer(service) as server, client_of(server) as client:
        ended = await asyncio.gather(
            *(ending(client, queued(swap_id), 9) for swap_id in ("tsk_a", "tsk_b", "tsk_c"))
        )
    assert ended == [("done", 1), (WaitTimeoutError, 9), (WaitTimeoutError, 9)]


async def test_polls_that_queue_for_a_permit_hold_up_no_wait_that_is_over() -> None:
    """The list had the only permit."""
    service = Service(0, singles={"tsk_b": stall}, ids=["tsk_a"])
    async with (
        ScriptedServer(service) as server,
        client_of(server, budget=Budget(1, 30.0)) as client,
    ):
        first, _ = await asyncio.gather(ending(client, "tsk_a"), ending(client, "tsk_b", 12))
    assert first == ("done", 0)


@pytest.mark.parametrize("timeout", [0.02, 0.5, 1.5])
async def test_a_short_wait_polls_before_it_gives_up(timeout: float) -> None:
    """Its swap has finished meanwhile."""
    async with ScriptedServer(Service(0)) as server, client_of(server) as client:
        assert (await client.swaps.wait(queued("tsk_1"), timeout=timeout)).status == "done"


async def test_a_long_wait_polls_just_before_it_gives_up() -> None:
    """However long the polling interval has grown."""
    async with ScriptedServer(Service(178.5)) as server, client_of(server) as client:
        assert await ending(client, queued("tsk_1"), 180) == ("done", 179)


async def test_waits_of_half_a_second_one_after_another_see_the_end() -> None:
    """As a page that asks again and again."""
    service = Service(5)
    async with ScriptedServer(service) as server, client_of(server) as client:
        for _ in range(11):
            how, _ = await ending(client, queued("tsk_1"), 0.5)
    assert how == "done"


# --- a swap that was just created ---------------------------------------------------------------


async def test_a_404_just_after_creation_is_a_replica_that_lags() -> None:
    """For 30 s, by value and by id."""

    async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
        late = now() - began >= 20
        found = answer(200, body("tsk_1", "done")) if late else refusal(404, "not_found")
        listed = answer(200, {"data": []})
        post = request.method == "POST"
        step = answer(201) if post else listed if "?" in request.path else found
        await step(request, writer)

    began = now()
    async with ScriptedServer(serve) as server, client_of(server) as client:
        swap = await client.swaps.create(**URLS)
        ended = await asyncio.gather(client.swaps.wait(swap), client.swaps.wait(swap.id))
    assert [one.status for one in ended] == ["done", "done"]


async def test_a_404_that_lasts_ends_the_wait() -> None:
    """After 30 s; at once for an id that this client knows nothing of."""
    service = Service(singles={f"tsk_{n}": refusal(404, "not_found") for n in (1, 2)})
    async with ScriptedServer(service) as server, client_of(server) as client:
        swap = await client.swaps.create(**URLS)
        how, seconds = await ending(client, swap, 300)
        assert how is NotFoundError
        assert 30 <= seconds <= 45
        how, seconds = await ending(client, "tsk_2")
        assert how is NotFoundError
        assert seconds <= 1


# --- when a swap has finished ---------------------------------------------------------------------


async def test_done_without_a_link_is_polled_again() -> None:
    """Until the link is there."""
    service = Service(singles={"tsk_1": answer(200, body("tsk_1", "done", result_url=None))})
    async with ScriptedServer(service) as server, client_of(server) as client:
        wait = asyncio.ensure_future(client.swaps.wait("tsk_1"))
        await asyncio.sleep(30)
        service.singles["tsk_1"] = answer(200, body("tsk_1", "done"))
        assert (await wait).result_url == LINK


@pytest.mark.parametrize(("timeout", "expected"), [(300.0, 60), (20.0, 20)])
async def test_done_without_a_link_is_returned_in_the_end(timeout: float, expected: int) -> None:
    """After 60 s, or when the wait gives up: it is done, so that is no timeout."""
    service = Service(singles={"tsk_1": answer(200, body("tsk_1", "done", result_url=None))})
    async with ScriptedServer(service) as server, client_of(server) as client:
        how, seconds = await ending(client, "tsk_1", timeout)
    assert how == "done"
    assert expected <= seconds <= expected + 15


async def test_an_unknown_status_with_an_error_has_to_stay() -> None:
    """Two polls at least ten seconds apart show the same: it has failed."""
    retrying = body("tsk_1", "retrying", error={"code": "worker_lost", "message": "Again."})
    service = Service(singles={"tsk_1": answer(200, retrying)})
    async with ScriptedServer(service) as server, client_of(server) as client:
        how, seconds = await ending(client, "tsk_1", 60)
        assert how is SwapFailedError
        assert 10 <= seconds <= 25
        wait = asyncio.ensure_future(ending(client, "tsk_1", 60))
        await asyncio.sleep(8)
        service.singles["tsk_1"] = answer(200, body("tsk_1", "done"))
        assert (await wait)[0] == "done"


async def test_a_status_that_never_changes_is_reported() -> None:
    """With all the progress in the world."""
    stuck = body("tsk_1", "polishing", progress=100)
    service = Service(singles={"tsk_1": answer(200, stuck)})
    async with ScriptedServer(service) as server, client_of(server) as client:
        with pytest.raises(WaitTimeoutError, match="last status: polishing") as caught:
            await client.swaps.wait("tsk_1", timeout=600)
    assert caught.value.swap is not None
    assert caught.value.swap.status == "polishing"


# --- a used-up day ----------------------------------------------------------------------------


@pytest.mark.parametrize("by_service", [True, False])
async def test_a_used_up_day_ends_polls_and_not_the_waits_for_deliveries(by_service: bool) -> None:
    """Whoever counted; a wait that nothing can end today ends with the reason."""
    daily = refusal(429, "rate_limited_daily", {"Retry-After": "40000"})
    service = Service(pages=lambda _: daily, singles={f"tsk_{n}": daily for n in (1, 2)})
    budget = None if by_service else Budget(60, 60.0, 1)
    async with ScriptedServer(service) as server, client_of(server, budget=budget) as client:
        if budget is not None:
            await client.swaps.create(**URLS)
        hooked = asyncio.ensure_future(ending(client, queued("tsk_1", webhook_url=HOOK), 300))
        assert await ending(client, queued("tsk_2"), 300) == (DailyLimitError, 1)
        assert (await ending(client, queued("tsk_2"), 300))[0] is DailyLimitError
        done = Swap(id="tsk_1", status="done", result_url=LINK)
        await asyncio.sleep(100)
        client.deliver(WebhookEvent(event="swap.completed", swap=done))
        assert (await hooked)[0] == "done"
    assert service.requests["list"] + service.requests["single"] <= 1


async def test_polls_do_not_starve_under_creations() -> None:
    """More callers than permits, whose calls are rejected and come again."""
    service = Service(2)
    async with (
        ScriptedServer(service) as server,
        client_of(server, budget=Budget(6, 1.0, None), deadline=3.0) as client,
    ):
        stop = asyncio.Event()

        async def caller() -> None:
            while not stop.is_set():
                try:
                    await client.swaps.create(**URLS)
                except AIFaceSwapError:
                    await asyncio.sleep(0.05)

        callers = [asyncio.ensure_future(caller()) for _ in range(100)]
        await asyncio.sleep(0.5)
        how, seconds = await ending(client, queued("tsk_9"), 14)
        stop.set()
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    assert how == "done"
    assert seconds <= 5
