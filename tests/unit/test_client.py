"""The client's own rules: its options, paging, what it downloads, whom it believes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from aifaceswap import (
    APIResponseError,
    APITimeoutError,
    AsyncClient,
    AsyncSwaps,
    BadRequestError,
    Budget,
    Client,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
    Swap,
    WebhookEvent,
)
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import Fault, Status
from support.samples import URLS, client_of
from support.scripted import Received, ScriptedServer, answer
from support.virtual_time import run_virtual

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)


def swap_of(server: ScriptedServer) -> Swap:
    return Swap(id="tsk_1", status="done", result_url=f"http://127.0.0.1:{server.port}/r.jpg")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"budget": object()}, "budget"),
    ],
)
def test_an_invalid_option_is_rejected(options: dict[str, Any], field: str) -> None:
    """The constructor names the argument."""
    with pytest.raises(ConfigurationError, match=f"^{field} must be ") as caught:
        AsyncClient("key", **options)
    assert caught.value.field == field


async def test_every_page_is_gone_through_and_then_it_ends(
    client: AsyncClient, emulator: Emulator
) -> None:
    """Newest first, and each page has the size that was asked for."""
    ids = [(await client.swaps.create(**URLS)).id for _ in range(5)]
    assert [swap.id async for swap in client.swaps.iterate(limit=2)] == ids[::-1]
    pages = [request for request in emulator.requests if request.method == "GET"]
    assert [parse_qs(request.query)["limit"][0] for request in pages] == ["2", "2", "2"]


async def test_a_wait_may_last_as_long_as_it_takes(client: AsyncClient) -> None:
    """Without a timeout."""
    swap = await client.swaps.create(**URLS)
    assert (await client.swaps.wait(swap, timeout=None)).status == "done"


async def test_waits_for_swaps_that_are_none_end_each_for_itself(client: AsyncClient) -> None:
    """One that nobody knows is no end of the others."""
    known = await client.swaps.create(**URLS)
    waits = [client.swaps.wait(swap) for swap in ("tsk_no", known, "tsk_not")]
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(result) for result in results] == [NotFoundError, Swap, NotFoundError]


def test_waits_in_loop_after_loop_leave_nothing_behind() -> None:
    """What belonged to a loop that has ended is forgotten."""
    with Emulator(duration=0.0) as emulator:
        client = AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=None)

        async def use() -> None:
            swap = await client.swaps.create(**URLS)
            assert (await client.swaps.wait(swap)).status == "done"

        for _ in range(3):
            run_virtual(use)
        assert len(client._resources.watcher._pollers) == 1


async def test_the_last_thousand_deliveries_are_remembered(client: AsyncClient) -> None:
    """And end a wait that begins after them; older ones are not kept."""
    for number in range(1001):
        swap = Swap(id=f"tsk_{number}", status="done", result_url="https://example.com/r.jpg")
        client.deliver(WebhookEvent(event="swap.completed", swap=swap))
    assert (await client.swaps.wait("tsk_1")).id == "tsk_1"
    with pytest.raises(NotFoundError):
        await client.swaps.wait("tsk_0")


def test_the_blocking_client_expects_deliveries_too() -> None:
    """It relies on them from then on."""
    with Client("key") as client:
        client.expect_deliveries()
        assert client._client._resources.watcher._deliveries.are_reliable


async def test_a_rejected_link_is_renewed_once(
    client: AsyncClient, emulator: Emulator, tmp_path: Path
) -> None:
    """Stores answer an expired link with any 4xx; the new link that fails too is an error."""
    swap = await client.swaps.run(**URLS)
    before = len(emulator.requests)
    emulator.add_fault(Fault("GET /results/*", Status(400), times=None))
    with pytest.raises(BadRequestError):
        await client.swaps.download(swap, tmp_path / "r.jpg")
    paths = [request.path for request in emulator.requests[before:]]
    assert [path.startswith("/results/") for path in paths] == [True, False, True]


async def test_a_download_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """A body that trickles keeps each read alive, but not the call."""

    async def trickle(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 99\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(99):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1)

    async with ScriptedServer(trickle) as server:
        client = AsyncClient("key", base_url=server.base_url, budget=None, timeout=9, deadline=3)
        async with client:
            with pytest.raises(APITimeoutError, match="within 3 s"):
                await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert os.listdir(tmp_path) == []


async def test_a_link_that_is_malformed_is_refused(client: AsyncClient, tmp_path: Path) -> None:
    """Without a word of its query."""
    swap = Swap(id="tsk_1", status="done", result_url="https://[broken/?secret")
    with pytest.raises(APIResponseError, match="malformed URL") as caught:
        await client.swaps.download(swap, tmp_path / "r.jpg")
    assert "secret" not in str(caught.value)


async def test_a_long_error_page_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Its beginning is enough for the error."""
    page = answer(501, b"x" * 300_000, {"Content-Type": "text/html"})
    async with (
        ScriptedServer(page) as server,
        AsyncClient("key", base_url=server.base_url, budget=None) as client,
    ):
        with pytest.raises(ServerError) as caught:
            await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert len(caught.value.body) == 65_536


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to; to root, whose rights are laid down for a while."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    is_root = os.getuid() == 0
    if is_root:
        os.setreuid(65_534, 0)  # what access() asks by is the real user
    yield folder
    if is_root:
        os.setreuid(0, 0)


async def test_a_folder_that_cannot_be_written_to_is_refused(
    unwritable: Path, client: AsyncClient
) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequestError, match="must be in a folder that can be written to"):
        await client.swaps.download("tsk_1", unwritable / "r.jpg")


class TenantSwaps(AsyncSwaps):
    """Methods of a user's own."""


class Tenant(AsyncClient):
    """A client with an argument and an attribute of its own."""

    def __init__(self, tenant: str, **options: Any) -> None:
        super().__init__("key", **options)
        self.tenant = tenant
        self.swaps: TenantSwaps = TenantSwaps(self._resources)


class BlockingTenant(Client):
    """The same, blocking."""

    def __init__(self, tenant: str, **options: Any) -> None:
        super().__init__("key", **options)
        self.tenant = tenant


@pytest.mark.parametrize("cls", [Tenant, BlockingTenant])
def test_a_derived_client_is_of_the_same_subclass(cls: type[Tenant | BlockingTenant]) -> None:
    """With its attributes, and the class of its swaps; the parent keeps its options."""
    client = cls("acme")
    derived = client.with_options(timeout=5)

    assert type(derived) is cls
    assert derived.tenant == "acme"
    assert type(derived.swaps) is type(client.swaps)
    inner: Any = getattr(derived, "_client", derived)
    parent: Any = getattr(client, "_client", client)
    assert (inner._resources.options.timeout, parent._resources.options.timeout) == (5, 30)
    assert inner.swaps._resources is inner._resources


async def test_leaving_a_derived_client_closes_nothing_of_its_parent() -> None:
    """Calls of the parent go on, over the same connection."""

    async def later(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        await answer()(request, writer)

    async with ScriptedServer(later) as server, client_of(server) as client:
        call = asyncio.create_task(client.swaps.get("tsk_1"))
        while not server.requests:
            await asyncio.sleep(0.01)
        async with client.with_options(timeout=5) as derived:
            pass
        await derived.aclose()
        assert (await call).id == "tsk_1"
        assert len(server.requests) == 1


@pytest.mark.parametrize("cls", [AsyncClient, Client])
def test_a_client_that_could_not_be_made_has_a_repr(cls: type) -> None:
    """Debuggers and logs show objects at any moment."""
    assert repr(object.__new__(cls)) == f"<{cls.__name__}: not initialized>"


@pytest.mark.parametrize("call", ["me", "wait", "download", "request"])
def test_outside_asyncio_the_error_says_what_to_use(call: str, tmp_path: Path) -> None:
    """Under trio, or without any event loop; nothing is sent."""
    client = AsyncClient("key")
    calls: dict[str, Any] = {
        "me": client.me,
        "wait": lambda: client.swaps.wait("tsk_1"),
        "download": lambda: client.swaps.download("tsk_1", tmp_path / "a.jpg"),
        "request": lambda: client.request("GET", "/me"),
    }
    with pytest.raises(ConfigurationError, match=r"^AsyncClient must run in an asyncio event loop"):
        calls[call]().send(None)


def test_one_client_in_many_threads_with_a_loop_each() -> None:
    """Every call has its own response, however often threads take turns."""
    before = sys.getswitchinterval()
    with Emulator(limits=NO_LIMITS, credits=10_000) as emulator:
        client = AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=Budget(10_000))

        async def create(name: str) -> list[object]:
            made = [client.swaps.create(**URLS, metadata={"name": name}) for _ in range(5)]
            return [(swap.metadata or {})["name"] for swap in await asyncio.gather(*made)]

        sys.setswitchinterval(1e-5)
        try:
            with ThreadPoolExecutor(8) as pool:
                names = [f"{number}" for number in range(20)]
                created = list(pool.map(lambda name: asyncio.run(create(name)), names))
        finally:
            sys.setswitchinterval(before)
        assert created == [[name] * 5 for name in names]
        assert len(emulator.requests) == 100
        assert len(client._resources.transport._sessions._kept) <= 20
