"""Wrong calls that type checkers must reject; never run.

Each mark says that mypy and pyright both find an error there: a mark that one of the two does
not need is an error of that one. What is right stands in `api.py`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
# A value that is not used is an error of another kind, which would hide a missing one.
# pyright: reportUnusedExpression=false, reportUnusedCoroutine=false
# ruff: noqa: B018 - to look an attribute up is what is tested

from __future__ import annotations

from typing import Any, assert_type

import aifaceswap
from aifaceswap import (
    AsyncBulk,
    AsyncClient,
    Bulk,
    BulkProgress,
    Client,
    Outcome,
    Response,
    Swap,
    SwapRequest,
    WebhookEvent,
    webhooks,
)
from aifaceswap.emulator import Emulator, Limits, VirtualClock

FACE = "https://example.com/face.jpg"
TARGET = "https://example.com/target.jpg"
ROWS = [SwapRequest(source_url=FACE, target_url=TARGET)]


# --- names ---------------------------------------------------------------------------------


def names() -> None:
    """A name that is misspelt, or not public, is not there."""
    aifaceswap.AsynClient  # type: ignore[attr-defined]
    aifaceswap.Transport  # type: ignore[attr-defined]
    aifaceswap.webhooks.parse_event  # type: ignore[attr-defined]


# --- what is asked for is what comes -------------------------------------------------------


async def awaited_results(client: AsyncClient) -> None:
    """The type that is asked for decides; what was not asked for is a dict."""
    plain = await client.request("GET", "/swaps/tsk_1")
    swap = await client.request("GET", "/swaps/tsk_1", into=Swap)
    assert_type(plain.value["id"], Any)
    assert_type(swap.value.id, str)
    plain.value.id  # type: ignore[attr-defined]
    swap.value["id"]  # type: ignore[index]
    _wrong: Response[Swap] = await client.request("GET", "/swaps/tsk_1")  # type: ignore[assignment]
    _other: Response[bytes] = await client.request("GET", "/", into=dict)  # type: ignore[arg-type]
    await client.request("GET", "/x", Swap)  # type: ignore[call-overload]
    await client.request("GET", "/x", into=swap.value)  # type: ignore[call-overload]
    await client.request("GET", "/x", into=None)  # type: ignore[call-overload]
    await client.request("GET", "/x", headers={"X-Count": 1})  # type: ignore[dict-item]
    client.request("GET", "/x").value  # type: ignore[attr-defined]


def blocking_results(client: Client) -> None:
    """The same, without `await`."""
    plain = client.request("GET", "/swaps/tsk_1")
    swap = client.request("GET", "/swaps/tsk_1", into=Swap)
    assert_type(plain.value["id"], Any)
    assert_type(swap.value.id, str)
    plain.value.id  # type: ignore[attr-defined]
    swap.value["id"]  # type: ignore[index]
    _wrong: Response[Swap] = client.request("GET", "/swaps/tsk_1")  # type: ignore[assignment]
    client.request("GET", "/x", into=swap.value)  # type: ignore[call-overload]
    client.request("GET", "/x", content="text")  # type: ignore[call-overload]
    client.request("GET")  # type: ignore[call-overload]


# --- one world for another -----------------------------------------------------------------


async def worlds(client: AsyncClient, blocking: Client, event: WebhookEvent) -> None:
    """What is awaited and what blocks are not taken for each other."""
    _client: Client = client  # type: ignore[assignment]
    _asynchronous: AsyncClient = blocking  # type: ignore[assignment]
    _swap: Swap = client.swaps.get("tsk_1")  # type: ignore[assignment]
    await client.deliver(event)  # type: ignore[misc, func-returns-value]
    async with blocking:  # type: ignore[attr-defined]
        pass
    with client:  # type: ignore[attr-defined]
        pass
    client.close()  # type: ignore[attr-defined]
    client.deliver(event.swap)  # type: ignore[arg-type]
    client.with_options(budget=None)  # type: ignore[call-arg]
    client.with_options(60)  # type: ignore[call-arg]
    blocking.with_options(max_retries="8")  # type: ignore[arg-type]


# --- bulk runs -----------------------------------------------------------------------------


async def bulk(client: AsyncClient, progress: BulkProgress, outcome: Outcome) -> None:
    """A run is given rows, and gives outcomes."""
    swaps = client.swaps
    run = swaps.bulk(ROWS)
    assert_type(run, AsyncBulk)
    swaps.bulk([FACE, TARGET])  # type: ignore[list-item]
    swaps.bulk(ROWS[0])  # type: ignore[arg-type]
    swaps.bulk(ROWS, "run.sqlite")  # type: ignore[call-arg]
    swaps.bulk(ROWS, journal=True)  # type: ignore[arg-type]
    swaps.bulk(ROWS, concurrency=1.5)  # type: ignore[arg-type]
    swaps.bulk(ROWS, on_progress=print_a_number)  # type: ignore[arg-type]
    swaps.bulk(ROWS, max_wait=None)  # type: ignore[arg-type]
    async with swaps.bulk(ROWS) as outcomes:
        for _ in outcomes:  # type: ignore[attr-defined]
            pass
    with swaps.bulk(ROWS):  # type: ignore[attr-defined]
        pass
    outcome.swap.result_url  # type: ignore[union-attr]
    outcome.ok = True  # type: ignore[misc]
    progress.percent  # type: ignore[attr-defined]


async def bulk_that_blocks(client: Client) -> None:
    """The same, without `await`."""
    assert_type(client.swaps.bulk(ROWS), Bulk)
    with client.swaps.bulk(ROWS) as outcomes:
        async for _ in outcomes:  # type: ignore[attr-defined]
            pass
    async with client.swaps.bulk(ROWS):  # type: ignore[attr-defined]
        pass
    client.swaps.bulk(ROWS, on_progress=print_a_number)  # type: ignore[arg-type]


def print_a_number(number: int) -> None:
    """No listener to a run's progress."""


# --- webhooks ------------------------------------------------------------------------------


class HalfAStore:
    """What lacks two of the three methods of a `SeenStore`."""

    async def claim(self, delivery: str) -> str:
        return "new"


async def receive(app: webhooks.WebhookApp, client: AsyncClient, event: WebhookEvent) -> None:
    """Raw bytes are verified, with keys; events are handled."""
    assert_type(webhooks.parse(b"{}", "t=1,v1=00", ["key"]), WebhookEvent)
    webhooks.parse("{}", "t=1,v1=00", ["key"])  # type: ignore[arg-type]
    webhooks.parse({"id": "tsk_1"}, "t=1,v1=00", ["key"])  # type: ignore[arg-type]
    webhooks.parse(b"{}", "t=1,v1=00")  # type: ignore[call-arg]
    webhooks.parse(b"{}", "t=1,v1=00", None)  # type: ignore[arg-type]
    webhooks.parse(b"{}", "t=1,v1=00", [b"key"])  # type: ignore[list-item]
    webhooks.parse(b"{}", "t=1,v1=00", "key", 300)  # type: ignore[call-arg]
    webhooks.sign(b"{}", ["key"])  # type: ignore[arg-type]
    webhooks.WebhookApp(print_a_number, "key")  # type: ignore[arg-type]
    webhooks.WebhookApp(keys="key")  # type: ignore[call-arg]
    webhooks.WebhookApp(None, "key", seen=HalfAStore())  # type: ignore[arg-type]
    webhooks.WebhookApp(None, "key", client=client.swaps)  # type: ignore[arg-type]
    webhooks.aiohttp_handler(print_a_number, "key")  # type: ignore[arg-type]
    webhooks.MemorySeen(100)  # type: ignore[call-arg]
    await app(event)  # type: ignore[call-arg, arg-type]
    event.id  # type: ignore[attr-defined]


# --- the emulator --------------------------------------------------------------------------


async def emulate(emulator: Emulator) -> None:
    """Its settings have types, and what it tells is not to be changed."""
    Emulator(clock=VirtualClock)  # type: ignore[arg-type]
    Emulator(limits=60)  # type: ignore[arg-type]
    Emulator(limits=Limits(per_minute="60"))  # type: ignore[arg-type]
    Emulator(seed=None)  # type: ignore[arg-type]
    Emulator(speed=2)  # type: ignore[call-arg]
    emulator.advance("1 s")  # type: ignore[arg-type]
    emulator.requests.append(emulator.requests[0])  # type: ignore[attr-defined]
    emulator.base_url = "https://example.com"  # type: ignore[misc]
