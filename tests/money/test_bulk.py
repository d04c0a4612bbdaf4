"""Money in bulk runs: every fault at every moment, in every way to run and to resume.

Whatever goes wrong, in the end each row has one swap that was paid once, one outcome, and its
complete image. `nox -s money` runs all cells and prints the table of the docs; the tests run a
sample.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from aifaceswap import AsyncClient, BulkStoppedError, Client, JournalError, Outcome, SwapRequest
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import (
    Body,
    CloudflarePage,
    Fault,
    RequestAction,
    Reset,
    Stall,
    Status,
    Truncate,
)
from support.virtual_time import run_virtual

ALL = os.environ.get("AIFACESWAP_MONEY") == "all"
ROWS = 6
LIMITS = Limits(per_minute=None, per_day=None, concurrent=10)
MOST_RUNS = 8
# A request that is answered as if the service had never seen it, or after it carried it out.
ACTIONS: dict[str, Callable[[bool], RequestAction]] = {
    "connection reset": lambda commit: Reset(commit=commit),
    "no response": lambda commit: Stall(commit=commit),
    "truncated response": lambda commit: Truncate() if commit else Reset(commit=False),
    "524 page": lambda commit: CloudflarePage(524, commit=commit),
    "403 page": lambda commit: CloudflarePage(403, commit=commit),
    "429 page": lambda commit: CloudflarePage(429, commit=commit),
    "200 page": lambda commit: Body(status=200, commit=commit),
    "302 redirect": lambda commit: Body("", status=302, commit=commit),
    "404 page": lambda commit: Body(status=404, commit=commit),
    "400 unknown code": lambda commit: Status(400, code="new_code", commit=commit),
    "409 in progress": lambda commit: Status(409, code="idempotency_in_progress", commit=commit),
    "500": lambda commit: Status(500, commit=commit),
    "503 disabled": lambda commit: Status(503, retry_after=20, commit=commit),
    "429": lambda commit: Status(429, retry_after=2, commit=commit),
}
MOMENTS: dict[str, tuple[str, bool, int]] = {
    "before the commit": ("POST /swaps", False, 5),
    "after the commit": ("POST /swaps", True, 5),
    "polling": ("GET /swaps*", True, 6),
    "downloading": ("GET /results/*", True, 6),
}


@attrs.frozen
class World:
    """One cell: an emulator with its fault, and the folder of a run."""

    emulator: Emulator
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        return {"journal": self.folder / "run.sqlite", "download_to": self.folder / "out"}

    def client(self, **options: Any) -> AsyncClient:
        key = options.pop("api_key", self.emulator.api_key)
        return AsyncClient(key, base_url=self.emulator.base_url, budget=None, **options)


def requests() -> list[SwapRequest]:
    return [
        SwapRequest(
            source_url="https://example.com/face.jpg",
            target_url=f"https://example.com/{row}/target.jpg",
        )
        for row in range(ROWS)
    ]


async def one_run(world: World, client: AsyncClient, **settings: Any) -> list[Outcome]:
    """The outcomes of one run, which may be stopped; no row has two of them."""
    outcomes: list[Outcome] = []
    try:
        async with client.swaps.bulk(requests(), **{**world.settings, **settings}) as bulk:
            # One by one: what was yielded before the run was stopped counts, too.
            async for outcome in bulk:
                outcomes.append(outcome)  # noqa: PERF401
    except BulkStoppedError:
        pass
    assert max(Counter(outcome.row for outcome in outcomes).values(), default=0) <= 1
    return outcomes


async def until_done(world: World, client: AsyncClient, **settings: Any) -> list[Outcome]:
    """Run again until every row has its result."""
    for _ in range(MOST_RUNS):
        outcomes = await one_run(world, client, **settings)
        if len(outcomes) == ROWS and all(outcome.ok for outcome in outcomes):
            return outcomes
    raise AssertionError(f"not done after {MOST_RUNS} runs: {outcomes}")


async def left_after_some_posts(world: World, client: AsyncClient) -> None:
    """Leave a run as soon as the service has carried out some of its requests."""
    async with client.swaps.bulk(requests(), **world.settings):
        for _ in range(200):
            await asyncio.sleep(0.1)
            if len(world.emulator.swaps) > ROWS // 2:
                return


async def in_one_go(world: World) -> list[Outcome]:
    async with world.client() as client:
        return await until_done(world, client)


async def with_retry_failed(world: World) -> list[Outcome]:
    async with world.client() as client:
        return await until_done(world, client, retry_failed="all")


async def left_and_resumed(world: World) -> list[Outcome]:
    async with world.client() as client:
        await left_after_some_posts(world, client)
        return await until_done(world, client)


async def with_a_copied_journal(world: World) -> list[Outcome]:
    """The run is left; its journal is moved to another place, and resumed from there."""
    async with world.client() as client:
        await left_after_some_posts(world, client)
        copy = world.folder / "copy"
        copy.mkdir()
        for file in world.folder.glob("run.sqlite*"):
            shutil.move(file, copy / file.name)
        return await until_done(world, client, journal=copy / "run.sqlite")


async def with_a_rotated_key(world: World) -> list[Outcome]:
    """The new key is refused; the run is finished with the old one, and revoked then."""
    new = "key_new"
    world.emulator.add_key(new)
    async with world.client() as client:
        await left_after_some_posts(world, client)
        async with world.client(api_key=new) as other:
            with pytest.raises(JournalError):
                await one_run(world, other)
        outcomes = await until_done(world, client)
    world.emulator.revoke_key(world.emulator.api_key)
    return outcomes


WAYS: dict[str, Callable[[World], Awaitable[list[Outcome]]]] = {
    "in one go": in_one_go,
    "retry_failed": with_retry_failed,
    "left and resumed": left_and_resumed,
    "copied journal": with_a_copied_journal,
    "rotated key": with_a_rotated_key,
}


def blocking(world: World) -> list[Outcome]:
    """The blocking client, in real time."""
    with Client(world.emulator.api_key, base_url=world.emulator.base_url, budget=None) as client:
        for _ in range(MOST_RUNS):
            outcomes: list[Outcome] = []
            try:
                with client.swaps.bulk(requests(), **world.settings) as bulk:
                    outcomes.extend(bulk)
            except BulkStoppedError:
                continue
            if all(outcome.ok for outcome in outcomes):
                return outcomes
    raise AssertionError(f"not done after {MOST_RUNS} runs: {outcomes}")


PROGRAM = """
import asyncio, sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from money.test_bulk import World, one_run
from aifaceswap import AsyncClient

async def main(key, base_url, folder):
    async with AsyncClient(key, base_url=base_url, budget=None) as client:
        outcomes = await one_run(World(None, Path(folder)), client)
    print(sum(outcome.ok for outcome in outcomes))

asyncio.run(main(*sys.argv[2:]))
"""


def killed(world: World) -> list[Outcome]:
    """A process of its own, killed once the service has carried out some of its requests."""
    paths = os.pathsep.join(filter(None, sys.path))
    arguments = [paths, world.emulator.api_key, world.emulator.base_url, str(world.folder)]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(world.emulator.swaps) <= ROWS // 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return blocking(world)


def check(world: World, outcomes: list[Outcome]) -> None:
    """Swaps paid = rows, one outcome for each row, complete images = swaps done."""
    swaps = world.emulator.swaps
    assert len(swaps) == len({swap.target_url for swap in swaps}) == ROWS
    assert sorted(outcome.row for outcome in outcomes if outcome.row is not None) == [*range(ROWS)]
    found = {outcome.swap.id for outcome in outcomes if outcome.swap is not None}
    assert found == {swap.id for swap in swaps}
    images = [outcome.path.read_bytes() for outcome in outcomes if outcome.path is not None]
    assert len(images) == ROWS
    assert all(image[:2] == b"\xff\xd8" and image[-2:] == b"\xff\xd9" for image in images)


def cells() -> Iterator[tuple[str, str, str]]:
    """Every fault, moment and way; of these a sample that has each of them several times."""
    ways = [*WAYS, "blocking", "kill -9"]
    number = 0
    for action in ACTIONS:
        for moment in MOMENTS:
            for way in ways:
                number += 1
                is_slow = way in ("blocking", "kill -9")
                if ALL or (number % 5 == 0 and not is_slow) or number % 67 == 0:
                    yield action, moment, way


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, str], Counter[bool]]]:
    """How many cells of each row of the table were as they should be."""
    results: dict[tuple[str, str], Counter[bool]] = {}
    yield results
    if ALL:
        ways = [*WAYS, "blocking", "kill -9"]
        print("\n\n| fault |", " | ".join(MOMENTS), "|")
        print("| --- |", " | ".join("---" for _ in MOMENTS), "|")
        for action in ACTIONS:
            counts = [results.get((action, moment), Counter()) for moment in MOMENTS]
            print(f"| {action} |", " | ".join(f"{c[True]} of {len(ways)}" for c in counts), "|")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("action", "moment", "way"), [*cells()])
def test_each_row_is_paid_once(
    action: str,
    moment: str,
    way: str,
    tmp_path: Path,
    table: dict[tuple[str, str], Counter[bool]],
) -> None:
    """And has one outcome and its complete image, whatever went wrong on the way."""
    match, commit, times = MOMENTS[moment]
    is_real = way in ("blocking", "kill -9")
    fault = Fault(match, ACTIONS[action](commit), nth=2, times=2 if is_real else times)
    settings: dict[str, Any] = {"limits": LIMITS, "faults": [fault]}
    count = table.setdefault((action, moment), Counter())
    count[False] += 1

    async def cell() -> None:
        async with Emulator(**settings, duration=5.0, spread=2.0) as emulator:
            world = World(emulator, tmp_path)
            check(world, await WAYS[way](world))

    if is_real:
        with Emulator(**settings, duration=0.1) as emulator:
            world = World(emulator, tmp_path)
            check(world, (killed if way == "kill -9" else blocking)(world))
    else:
        run_virtual(cell)
    count[False] -= 1
    count[True] += 1
