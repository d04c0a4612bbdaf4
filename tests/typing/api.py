"""The public interface as type checkers see it; never run.

What is used rightly must pass mypy and pyright in strict mode. What must be rejected is marked:
a mark that one of the two does not need is an error of that one.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
# ruff: noqa: B018 - to look an attribute up is what is tested

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, assert_type

import aiohttp
import attrs

import aifaceswap
from aifaceswap import (
    Account,
    APIStatusError,
    AsyncClient,
    AsyncSwaps,
    Budget,
    Client,
    Credits,
    InvalidRequestError,
    Permit,
    RateLimit,
    RequestBudget,
    Response,
    Swap,
    SwapFailedError,
    SwapPage,
    SwapRequest,
    Swaps,
    SwapStatus,
    SwapType,
    WaitTimeoutError,
    WebhookEvent,
    WebhookVerificationError,
    errors,
)

FACE = "https://example.com/face.jpg"
TARGET = "https://example.com/target.jpg"


@attrs.frozen
class Upload:
    """A class of a user's own."""

    id: str


class SharedPermit:
    """A permit of a user's own."""

    def settle(self, rate_limit: RateLimit | None = None) -> None: ...

    def cancel(self) -> None: ...


class SharedBudget:
    """A budget of a user's own, by its two methods."""

    async def acquire(
        self,
        purpose: Literal["create", "read", "poll"] = "read",
        *,
        max_wait: float | None = None,
    ) -> SharedPermit:
        return SharedPermit()

    def penalize(
        self,
        seconds: float,
        *,
        purpose: Literal["create", "read", "poll"] | None = None,
        code: str = "rate_limited",
    ) -> None: ...


class NoBudget:
    """What lacks one of the two methods."""

    def penalize(
        self,
        seconds: float,
        *,
        purpose: Literal["create", "read", "poll"] | None = None,
        code: str = "rate_limited",
    ) -> None: ...


# --- clients -------------------------------------------------------------------------------


async def make_asynchronous_clients(session: aiohttp.ClientSession) -> None:
    """Every way to make a client."""
    async with AsyncClient() as client:
        assert_type(client, AsyncClient)
        assert_type(client.swaps, AsyncSwaps)
    AsyncClient("key")
    AsyncClient(
        api_key=None,
        base_url="https://example.com/api/v1",
        timeout=5,
        deadline=60.0,
        max_retries=0,
        max_wait=0.5,
        budget=None,
        session=session,
        proxy="http://proxy.example:3128",
    )
    AsyncClient(budget="shared", max_wait=None)
    AsyncClient(budget=Budget(requests=10, per=60, per_day=None))
    AsyncClient(budget=SharedBudget())
    assert_type(client.with_options(timeout=60, deadline=600, max_retries=8), AsyncClient)
    assert_type(client.with_options(max_wait=float("inf")), AsyncClient)
    assert_type(await client.aclose(), None)


def make_blocking_clients() -> None:
    """Every way to make a client that blocks."""
    with Client() as client:
        assert_type(client, Client)
        assert_type(client.swaps, Swaps)
    Client("key", base_url="https://example.com/api/v1", timeout=5, deadline=60, max_retries=0)
    Client(budget=SharedBudget(), proxy=None, max_wait=0)
    assert_type(client.with_options(max_retries=8, max_wait=0.5), Client)
    client.close()


def make_clients_wrongly(session: aiohttp.ClientSession) -> None:
    """What type checkers must reject."""
    AsyncClient(b"key")  # type: ignore[arg-type]
    AsyncClient("key", "https://x.example")  # type: ignore[call-arg]
    AsyncClient(timeout=None)  # type: ignore[arg-type]
    AsyncClient(timeout="30")  # type: ignore[arg-type]
    AsyncClient(max_retries=1.5)  # type: ignore[arg-type]
    AsyncClient(max_wait="1")  # type: ignore[arg-type]
    AsyncClient(budget="mine")  # type: ignore[arg-type]
    AsyncClient(budget=60)  # type: ignore[arg-type]
    AsyncClient(budget=NoBudget())  # type: ignore[arg-type]
    AsyncClient(retries=3)  # type: ignore[call-arg]
    Client(session=session)  # type: ignore[call-arg]
    with AsyncClient():  # type: ignore[attr-defined]
        pass


# --- calls, awaited ------------------------------------------------------------------------


async def call(client: AsyncClient, swap: Swap, metadata: Mapping[str, object]) -> None:
    """Every call with every argument."""
    swaps = client.swaps
    assert_type(await client.me(), Account)
    assert_type(await swaps.create(source_url=FACE, target_url=TARGET), Swap)
    assert_type(
        await swaps.create(
            source_url=FACE,
            target_url=TARGET,
            type="gif",
            webhook_url="https://example.com/hook",
            target_face_index=0,
            enable_face_enhancer=True,
            metadata=metadata,
            idempotency_key="key-1",
        ),
        Swap,
    )
    assert_type(await swaps.create(source_url=FACE, target_url=TARGET, type=SwapType.GIF), Swap)
    assert_type(await swaps.get("tsk_1"), Swap)
    assert_type(await swaps.wait(swap), Swap)
    assert_type(await swaps.wait("tsk_1", timeout=None), Swap)
    assert_type(await swaps.run(source_url=FACE, target_url=TARGET, timeout=60), Swap)
    assert_type(await swaps.download(swap, "out.jpg"), Path)
    assert_type(await swaps.download("tsk_1", Path("out.jpg"), max_bytes=1_000_000), Path)
    assert_type(await swaps.list(), SwapPage)
    assert_type(await swaps.list(limit=100, cursor=None), SwapPage)
    assert_type(swaps.iterate(limit=50), AsyncIterator[Swap])
    async for one in swaps.iterate():
        assert_type(one, Swap)


async def request(client: AsyncClient) -> None:
    """The general call gives what it is asked for."""
    response = await client.request("GET", "/anything")
    assert_type(response, Response[dict[str, Any]])
    assert_type(response.value, dict[str, Any])
    assert_type(response.headers, Mapping[str, str])
    assert_type(response.rate_limit, RateLimit | None)
    assert_type(response.request_id, str | None)
    assert_type((await client.request("GET", "/swaps/tsk_1", into=Swap)).value, Swap)
    assert_type((await client.request("GET", "/swaps", into=list[Swap])).value, list[Swap])
    assert_type((await client.request("GET", "/file", into=bytes)).value, bytes)
    assert_type(
        await client.request(
            "POST",
            "/uploads",
            into=Upload,
            json={"name": "a"},
            params={"dry": True, "n": 1, "text": "x"},
            headers={"X-Trace": "1"},
            idempotency_key="key-1",
        ),
        Response[Upload],
    )
    await client.request("PUT", "/uploads/1", content=b"\xff\xd8")


async def call_wrongly(client: AsyncClient, swap: Swap, request: SwapRequest) -> None:
    """What type checkers must reject."""
    swaps = client.swaps
    await swaps.create(source=1, target_url=TARGET)  # type: ignore[arg-type]
    await swaps.create(FACE, TARGET)  # type: ignore[call-arg]
    await swaps.create(request)  # type: ignore[call-arg, arg-type]
    await swaps.create(source_url=b"", target_url=TARGET)  # type: ignore[arg-type]
    await swaps.create(source_url=FACE, target_url=TARGET, target_face_index="0")  # type: ignore[arg-type]
    await swaps.create(source_url=FACE, target_url=TARGET, metadata=["a"])  # type: ignore[arg-type]
    await swaps.create(source_url=FACE, target_url=TARGET, metadata={1: 2})  # type: ignore[dict-item]
    await swaps.create(source_url=FACE, target_url=TARGET, face_index=1)  # type: ignore[call-arg]
    await swaps.create(source_url=FACE, target_url=TARGET, timeout=1)  # type: ignore[call-arg]
    await swaps.get(swap)  # type: ignore[arg-type]
    await swaps.wait(swap, 60)  # type: ignore[call-arg]
    await swaps.wait([swap])  # type: ignore[arg-type]
    await swaps.download(swap)  # type: ignore[call-arg]
    await swaps.download(swap, b"out.jpg")  # type: ignore[arg-type]
    await swaps.list(limit="10")  # type: ignore[arg-type]
    await swaps.list(10)  # type: ignore[call-arg]
    await swaps.iterate()  # type: ignore[misc]
    for _ in swaps.iterate():  # type: ignore[attr-defined]
        pass
    await client.request("GET", "/x", into="Swap")  # type: ignore[call-overload]
    await client.request("GET", "/x", content="text")  # type: ignore[call-overload]
    await client.request("GET", "/x", params={"a": None})  # type: ignore[dict-item]
    await client.request("/x")  # type: ignore[call-overload]
    client.me().user_id  # type: ignore[attr-defined]


# --- calls that block ----------------------------------------------------------------------


def call_and_block(client: Client, swap: Swap) -> None:
    """The same calls, without `await`."""
    swaps = client.swaps
    assert_type(client.me(), Account)
    assert_type(swaps.create(source_url=FACE, target_url=TARGET, type="gif"), Swap)
    assert_type(swaps.get("tsk_1"), Swap)
    assert_type(swaps.wait(swap, timeout=10), Swap)
    assert_type(swaps.run(source_url=FACE, target_url=TARGET, metadata={"a": 1}), Swap)
    assert_type(swaps.download(swap, "out.jpg"), Path)
    assert_type(swaps.list(limit=1), SwapPage)
    assert_type(swaps.iterate(), Iterator[Swap])
    assert_type(client.request("GET", "/anything"), Response[dict[str, Any]])
    assert_type(client.request("GET", "/anything", into=list[Swap]), Response[list[Swap]])


async def block_wrongly(client: Client) -> None:
    """What type checkers must reject."""
    await client.me()  # type: ignore[misc]
    client.swaps.create(FACE, TARGET)  # type: ignore[call-arg]
    client.aclose()  # type: ignore[attr-defined]
    async for _ in client.swaps.iterate():  # type: ignore[attr-defined]
        pass


# --- values --------------------------------------------------------------------------------


def read_values(swap: Swap, page: SwapPage, account: Account, event: WebhookEvent) -> None:
    """Every field has its type, and what may be missing says so."""
    assert_type(swap.id, str)
    assert_type(swap.status, SwapStatus | str)
    assert_type(swap.type, SwapType | str | None)
    assert_type(swap.progress, float | None)
    assert_type(swap.created_at, datetime | None)
    assert_type(swap.result_url, str | None)
    assert_type(swap.metadata, Mapping[str, Any] | None)
    assert_type(swap.extra, Mapping[str, Any])
    assert_type(swap.is_finished, bool)
    assert_type(swap.has_failed, bool)
    assert_type(swap.error_message, str | None)
    assert_type(page.data, tuple[Swap, ...])
    assert_type(list(page), list[Swap])
    assert_type(len(page), int)
    assert_type(page.next_cursor, str | None)
    assert_type(account.credits, Credits)
    assert_type(account.credits.total, float)
    assert_type(account.rate_limit.window_seconds, float | None)
    assert_type(event.event, str)
    assert_type(event.swap, Swap)
    if swap.status in {"done", SwapStatus.DONE, "brand_new"}:
        attrs.evolve(swap, progress=100)


def make_values() -> None:
    """Values can be made by hand, for the tests of our users."""
    SwapRequest(source_url=FACE, target_url=TARGET, type="gif", metadata={"a": [1]})
    SwapRequest(source=Path("face.jpg"), target=b"GIF89a")
    SwapPage(data=(Swap(id="tsk_1", status="done"),))
    RateLimit(limit=60, remaining=59)
    Response(value=1, status=200, headers={})


def use_values_wrongly(swap: Swap, page: SwapPage) -> None:
    """What type checkers must reject."""
    swap.status = "done"  # type: ignore[misc]
    swap.extra["a"] = 1  # type: ignore[index]
    swap.result_url.upper()  # type: ignore[union-attr]
    swap.eta  # type: ignore[attr-defined]
    page.data.append(swap)  # type: ignore[attr-defined]
    Swap("tsk_1", "done")  # type: ignore[call-arg]
    Swap(id="tsk_1")  # type: ignore[call-arg]
    SwapRequest(source=1, target_url=TARGET)  # type: ignore[arg-type]
    SwapRequest(source_url=FACE, target_url=TARGET, enable_face_enhancer="yes")  # type: ignore[arg-type]


# --- errors --------------------------------------------------------------------------------


def handle_errors(client: Client) -> None:
    """Every error has its attributes, and is found in the package and in its module."""
    try:
        client.me()
    except aifaceswap.RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except APIStatusError as error:
        assert_type(error.status, int)
        assert_type(error.code, str | None)
        assert_type(error.request_id, str | None)
        assert_type(error.headers, Mapping[str, str])
        assert_type(error.body, bytes)
        assert_type(error.attempts, int)
    except SwapFailedError as error:
        assert_type(error.swap, Swap)
    except WaitTimeoutError as error:
        assert_type(error.swap, Swap | None)
        assert_type(error.swap_id, str)
    except WebhookVerificationError as error:
        assert_type(error.reason, errors.WebhookVerificationReason)
    except InvalidRequestError as error:
        assert_type(error.field, str)
        assert_type(error.value, object)
    except errors.APIConnectionError as error:
        assert_type(error.sent, bool)
    except aifaceswap.AIFaceSwapError as error:
        assert_type(error.idempotency_key, str | None)


def built_in_families(late: errors.APITimeoutError, wrong: InvalidRequestError) -> None:
    """Errors are of Python's own families where it has one."""
    _late: TimeoutError = late
    _wrong: ValueError = wrong
    _lost: errors.APIConnectionError = late


def make_errors_wrongly() -> None:
    """What type checkers must reject."""
    APIStatusError("no", 400)  # type: ignore[call-arg]
    APIStatusError("no", status="400")  # type: ignore[arg-type]
    WebhookVerificationError("no", reason="old")  # type: ignore[arg-type]


# --- budgets -------------------------------------------------------------------------------


async def use_budgets() -> None:
    """A budget is whatever has the two methods."""
    budget: RequestBudget = Budget()
    permit: Permit = await budget.acquire("create", max_wait=10)
    permit.settle(RateLimit(limit=60, remaining=1))
    permit.cancel()
    budget.penalize(30, purpose="create", code="rate_limited_concurrent")
    _own: RequestBudget = SharedBudget()


async def use_budgets_wrongly() -> None:
    """What type checkers must reject."""
    budget = Budget("60")  # type: ignore[arg-type]
    await budget.acquire("write")  # type: ignore[arg-type]
    budget.penalize("30")  # type: ignore[arg-type]
    budget.penalize(30, code=None)  # type: ignore[arg-type]
    _none: RequestBudget = NoBudget()  # type: ignore[assignment]
