"""The life of one swap, and the looks that a wait takes at it, in virtual time."""

from __future__ import annotations

from aifaceswap import AsyncClient, Swap
from aifaceswap.emulator import Emulator
from bench.harness import API_KEY, SWAP, Table
from support.virtual_time import run_virtual

DURATION = 30.0


def measure(*, quick: bool) -> list[Table]:
    """The table of one life; quick enough as it is."""
    del quick
    return [
        Table(
            f"One swap of {DURATION:.0f} s, looked at by `run()`",
            ("seconds", "request", "status", "progress"),
            run_virtual(_live),
        )
    ]


async def _live() -> list[tuple[float, str, str, float]]:
    seen: list[Swap] = []
    async with (
        Emulator(duration=DURATION) as emulator,
        AsyncClient(API_KEY, base_url=emulator.base_url) as client,
    ):
        seen.append(await client.swaps.create(**SWAP))
        await client.swaps.wait(seen[0], on_update=seen.append)
        began = emulator.requests[0].at
        return [
            (
                round(request.at - began, 2),
                f"{request.method} {request.path.removeprefix('/api/v1')}",
                str(swap.status),
                swap.progress or 0.0,
            )
            for request, swap in zip(emulator.requests, seen, strict=True)
        ]
