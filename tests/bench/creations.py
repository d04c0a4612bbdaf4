"""CPU time for each `create()`, beside raw HTTP clients and a generated SDK.

Each round measures every contender in turn, in one process pinned to one core; the server has
the other. A contender's cost is that round's CPU time by its calls, its ratio that to the
base's cost in the same round.
"""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import Any

import aiohttp

from aifaceswap import AsyncClient, Budget, Client
from bench.harness import API_KEY, NO_LIMITS, SWAP, Spread, Table, Target, peer, ratios, serving

AsyncCreate = Callable[[], Awaitable[object]]
Create = Callable[[], object]
Costs = dict[str, list[float]]

OURS = "aifaceswap"
CALLS = 100
AT_ONCE = 50


def measure(*, quick: bool) -> list[Table]:
    """All tables about creations."""
    rounds = 5 if quick else 40
    with serving(**NO_LIMITS) as server:
        alone, together = asyncio.run(_measure_async(server.base_url, rounds))
        blocking = _measure_blocking(server.base_url, rounds)
    return [
        _table(
            "CPU per `await create()`, one at a time",
            alone,
            "aiohttp",
            {"aiohttp": 1.15},
        ),
        _table(
            "CPU per `await create()`, fifty at once",
            together,
            "aiohttp",
            {"aiohttp": 1.25},
        ),
        _table(
            "CPU per blocking `create()`",
            blocking,
            "requests.Session",
            {"requests.Session": 0.75, "httpx2.Client": 1.00},
        ),
    ]


# --- the contenders ------------------------------------------------------------------------


async def _async_contenders(base_url: str, stack: AsyncExitStack) -> dict[str, AsyncCreate]:
    found = {
        "aiohttp": await _raw_aiohttp(base_url, stack),
        OURS: await _ours(base_url, stack),
    }
    if httpx := peer("httpx"):
        found["httpx.AsyncClient"] = await _async_httpx(httpx, base_url, stack)
    if httpx2 := peer("httpx2"):
        found["httpx2.AsyncClient"] = await _async_httpx(httpx2, base_url, stack)
    if niquests := peer("niquests"):
        found["niquests.AsyncSession"] = await _async_niquests(niquests, base_url, stack)
    if openai := peer("openai"):
        found["openai.AsyncOpenAI"] = await _async_openai(openai, base_url, stack)
    return found


async def _raw_aiohttp(base_url: str, stack: AsyncExitStack) -> AsyncCreate:
    """As aiohttp's manual shows it."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    url = f"{base_url}/swaps"

    async def create() -> object:
        async with session.post(url, json=SWAP, headers=_headers()) as response:
            return await response.json()

    return create


async def _ours(base_url: str, stack: AsyncExitStack) -> AsyncCreate:
    client = AsyncClient(API_KEY, base_url=base_url, budget=_budget())
    await stack.enter_async_context(client)
    return partial(client.swaps.create, **SWAP)


async def _async_httpx(httpx: Any, base_url: str, stack: AsyncExitStack) -> AsyncCreate:
    client = await stack.enter_async_context(httpx.AsyncClient())
    url = f"{base_url}/swaps"

    async def create() -> object:
        return (await client.post(url, json=SWAP, headers=_headers())).json()

    return create


async def _async_niquests(niquests: Any, base_url: str, stack: AsyncExitStack) -> AsyncCreate:
    session = await stack.enter_async_context(niquests.AsyncSession())
    url = f"{base_url}/swaps"

    async def create() -> object:
        return (await session.post(url, json=SWAP, headers=_headers())).json()

    return create


async def _async_openai(openai: Any, base_url: str, stack: AsyncExitStack) -> AsyncCreate:
    client = openai.AsyncOpenAI(api_key=API_KEY, base_url=base_url)
    await stack.enter_async_context(client)
    return lambda: client.post("/swaps", body=SWAP, cast_to=object, options=_keyed())


def _contenders(base_url: str, stack: ExitStack) -> dict[str, Create]:
    client = stack.enter_context(Client(API_KEY, base_url=base_url, budget=_budget()))
    found: dict[str, Create] = {OURS: partial(client.swaps.create, **SWAP)}
    url = f"{base_url}/swaps"
    if requests := peer("requests"):
        session = stack.enter_context(requests.Session())
        found["requests.Session"] = lambda: _post(session, url)
        found["requests.post"] = lambda: _post(requests, url)
    if niquests := peer("niquests"):
        niquests_session = stack.enter_context(niquests.Session())
        found["niquests.Session"] = lambda: _post(niquests_session, url)
    for name in ("httpx", "httpx2"):
        if httpx := peer(name):
            httpx_client = stack.enter_context(httpx.Client())
            found[f"{name}.Client"] = partial(_post, httpx_client, url)
    if openai := peer("openai"):
        sdk = stack.enter_context(openai.OpenAI(api_key=API_KEY, base_url=base_url))
        found["openai.OpenAI"] = lambda: sdk.post(
            "/swaps", body=SWAP, cast_to=object, options=_keyed()
        )
    return found


def _post(client: Any, url: str) -> object:
    answer: object = client.post(url, json=SWAP, headers=_headers()).json()
    return answer


def _budget() -> Budget:
    """A budget that counts and never holds back."""
    return Budget(requests=10**9, per_day=10**9)


def _headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": str(uuid.uuid4())}


def _keyed() -> dict[str, object]:
    return {"headers": {"Idempotency-Key": str(uuid.uuid4())}}


# --- measuring -----------------------------------------------------------------------------


async def _measure_async(base_url: str, rounds: int) -> tuple[Costs, Costs]:
    async with AsyncExitStack() as stack:
        contenders = await _async_contenders(base_url, stack)
        alone: Costs = {name: [] for name in contenders}
        together: Costs = {name: [] for name in contenders}
        for number in range(-1, rounds):  # round -1 warms up
            for name in _turn(list(contenders), number):
                with _costing(alone[name], number):
                    await _repeat(contenders[name], CALLS)
                with _costing(together[name], number):
                    workers = (_repeat(contenders[name], CALLS // AT_ONCE) for _ in range(AT_ONCE))
                    await asyncio.gather(*workers)
    return alone, together


def _measure_blocking(base_url: str, rounds: int) -> Costs:
    with ExitStack() as stack:
        contenders = _contenders(base_url, stack)
        costs: Costs = {name: [] for name in contenders}
        for number in range(-1, rounds):
            for name in _turn(list(contenders), number):
                create = contenders[name]
                with _costing(costs[name], number):
                    for _ in range(CALLS):
                        create()
    return costs


async def _repeat(create: AsyncCreate, times: int) -> None:
    for _ in range(times):
        await create()


def _turn(names: list[str], number: int) -> list[str]:
    """The contenders, each round beginning with another."""
    first = number % len(names)
    return names[first:] + names[:first]


@contextmanager
def _costing(costs: list[float], number: int) -> Iterator[None]:
    """Add the CPU time of one call in µs: of the whole process, its threads included."""
    gc.collect()
    began = time.process_time()
    yield
    if number >= 0:
        costs.append((time.process_time() - began) / CALLS * 1e6)


def _table(title: str, costs: Costs, base: str, limits: dict[str, float]) -> Table:
    base = base if base in costs else OURS
    spreads = {name: ratios(costs[name], costs[base]) for name in costs}
    return Table(
        title,
        ("", f"{base} = 1", "quartiles", "µs a call"),
        [
            (name, spread.median, str(spread), round(Spread.of(costs[name]).median))
            for name, spread in spreads.items()
        ],
        targets=[
            Target(f"{OURS} over {other}", ratios(costs[OURS], costs[other]).median, limit)
            for other, limit in limits.items()
            if other in costs
        ],
    )
