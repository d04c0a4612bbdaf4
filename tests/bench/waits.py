"""Requests that waiting costs, for one and for many waits at once, in virtual time."""

from __future__ import annotations

import asyncio

from aifaceswap import AsyncClient, Swap
from aifaceswap.emulator import Emulator, Limits
from bench.harness import API_KEY, SWAP, Table, Target
from support.virtual_time import run_virtual

DURATION = 30.0
PAGES = 10  # that a thousand swaps fill
POLL = 2.0  # seconds, where each swap is polled on its own


def measure(*, quick: bool) -> list[Table]:
    """The table of waits; quick enough as it is."""
    del quick
    counts = {waits: run_virtual(_requests, waits) for waits in (1, 10, 100, 1000)}
    polled = int(DURATION / POLL)
    return [
        Table(
            f"Requests for waits of {DURATION:.0f} s at once, creations not counted",
            ("waits", "aifaceswap", "the last ended after", f"each polled every {POLL:.0f} s"),
            [
                (waits, requests, f"{seconds:.1f} s", waits * polled)
                for waits, (requests, seconds) in counts.items()
            ],
            targets=[
                Target("100 waits over 1", counts[100][0] / counts[1][0], 1.0),
                Target(
                    f"1,000 waits over {PAGES} times 10",
                    counts[1000][0] / (PAGES * counts[10][0]),
                    1.0,
                ),
            ],
            notes=["the last column is arithmetic: 30 s / 2 s for each swap"],
        )
    ]


async def _requests(waits: int) -> tuple[int, float]:
    """Requests after the creations, and seconds from there to the last end."""
    clock = asyncio.get_running_loop().time
    async with (
        Emulator(duration=DURATION, credits=1e9, limits=Limits(None, None, None)) as emulator,
        AsyncClient(API_KEY, base_url=emulator.base_url, budget=None) as client,
    ):
        swaps = await asyncio.gather(*(_create(client) for _ in range(waits)))
        created, began = len(emulator.requests), clock()
        await asyncio.gather(*(client.swaps.wait(swap) for swap in swaps))
        return len(emulator.requests) - created, clock() - began


async def _create(client: AsyncClient) -> Swap:
    return await client.swaps.create(**SWAP)
