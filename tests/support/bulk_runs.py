"""Bulk runs against an emulator: rows, a service, runs, and what their journals hold."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

from aifaceswap import AsyncClient, Budget, Outcome, SwapRequest
from aifaceswap.bulk._files import RowFiles
from aifaceswap.bulk._journal import State
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import Fault, RequestAction

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)


def rows(number: int, **special: str) -> list[SwapRequest]:
    """So many rows; `special` gives the source's file name of some, as `at_3="nsfw"`."""
    names = {int(name[3:]): value for name, value in special.items()}
    return [
        SwapRequest(
            source_url=f"https://example.com/{names.get(row, 'face')}.jpg",
            target_url=f"https://example.com/{row}/target.jpg",
        )
        for row in range(number)
    ]


@asynccontextmanager
async def service(**settings: Any) -> AsyncIterator[tuple[Emulator, AsyncClient]]:
    """An emulator with swaps of about 30 s and the real limits, and a client of it."""
    settings = {"duration": 30.0, "credits": 10_000, **settings}
    settings.setdefault("spread", settings["duration"] / 2)
    async with (
        Emulator(**settings) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=Budget()) as client,
    ):
        yield emulator, client


async def run(client: AsyncClient, requests: Any, **settings: Any) -> list[Outcome]:
    """All outcomes of a run, in the order of their rows."""
    async with client.swaps.bulk(requests, **settings) as outcomes:
        return sorted([outcome async for outcome in outcomes], key=lambda outcome: outcome.row or 0)


def fault(match: str, action: RequestAction, **when: Any) -> Fault:
    """A fault of every request that matches, unless `times` is given."""
    return Fault(match, action, **{"times": None, **when})


def states(journal: Path) -> list[State]:
    """The states of a journal's rows, in order."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        return [State(state) for (state,) in connection.execute("SELECT state FROM rows")]


def ids(journal: Path) -> list[str | None]:
    """The swap ids of a journal's rows, in order."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        return [swap_id for (swap_id,) in connection.execute("SELECT swap_id FROM rows")]


def posts(emulator: Emulator) -> int:
    """How many requests to create a swap the emulator received."""
    return sum(request.method == "POST" for request in emulator.requests)


def no_files() -> RowFiles:
    """What reads the local files of rows that have none."""

    def publisher() -> NoReturn:
        raise AssertionError("a row has a local file")

    return RowFiles(publisher, 0.0, lambda: None)
