"""Where the CPU time of one `create()` goes: to the rules, to the budget, to the exchange.

The pieces are timed on their own, in the same rounds as the whole call; what they leave is the
exchange: aiohttp, the sockets, and the loop around the attempts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from aifaceswap import AsyncClient, Budget, Swap, SwapRequest
from aifaceswap._api.requests import Call, create_swap
from aifaceswap._api.responses import RawResponse, read_result
from bench.harness import API_KEY, NO_LIMITS, SWAP, Spread, Table, serving

CALLS = 100
PARTS = ("check and build", "budget", "read the answer")
WHOLE = "the whole call"


def measure(*, quick: bool) -> list[Table]:
    """The table of parts."""
    with serving(**NO_LIMITS) as server:
        costs = asyncio.run(_measure(server.base_url, 5 if quick else 40))
    medians = {name: Spread.of(values).median for name, values in costs.items()}
    whole = medians.pop(WHOLE)
    medians["the exchange in aiohttp, and the rest"] = whole - sum(medians.values())
    return [
        Table(
            "Parts of one `await create()`, one at a time",
            ("", "share", "µs a call"),
            [(name, cost / whole, round(cost, 1)) for name, cost in medians.items()],
            notes=["the last row is what is left of the whole"],
        )
    ]


async def _measure(base_url: str, rounds: int) -> dict[str, list[float]]:
    budget = Budget(requests=10**9, per_day=10**9)
    async with AsyncClient(API_KEY, base_url=base_url, budget=budget) as client:
        answer = (await client.request("POST", "/swaps", json=SWAP, into=bytes)).value
        call = create_swap(SwapRequest(**SWAP))
        jobs: dict[str, Callable[[], Awaitable[object]]] = {
            PARTS[0]: _build,
            PARTS[1]: partial(_pass, Budget(requests=10**9, per_day=10**9)),
            PARTS[2]: partial(_read, call, RawResponse(201, {}, answer)),
            WHOLE: partial(client.swaps.create, **SWAP),
        }
        costs: dict[str, list[float]] = {name: [] for name in jobs}
        for number in range(-1, rounds):  # round -1 warms up
            for name, job in jobs.items():
                began = time.process_time()
                for _ in range(CALLS):
                    await job()
                if number >= 0:
                    costs[name].append((time.process_time() - began) / CALLS * 1e6)
    return costs


async def _build() -> object:
    return create_swap(SwapRequest(**SWAP))


async def _pass(budget: Budget) -> None:
    permit = await budget.acquire("create")
    permit.settle()


async def _read(call: Call[Swap], answer: RawResponse) -> object:
    return read_result(call, answer)
