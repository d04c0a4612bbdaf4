"""Any sequence of inputs over several interrupted runs keeps one swap for each row."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from aifaceswap import SwapRequest
from aifaceswap.bulk._journal import JournalEntry, State
from aifaceswap.bulk._rows import Rows
from support.journals import opened
from support.samples import FACE

names = st.lists(st.sampled_from("abcd"), max_size=6)
#: The input of a run, how many of its rows get a key before it is killed, and how many finish.
runs = st.lists(st.tuples(names, st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=5)


async def run_once(path: Path, targets: list[str], begun: int, done: int) -> list[JournalEntry]:
    """Read all rows; bring some into the journal, as a run does that is killed."""
    requests = [
        SwapRequest(source_url=FACE, target_url=f"https://example.com/{name}.jpg")
        for name in targets
    ]
    async with opened(path) as journal:
        rows = Rows(
            requests=requests,
            journal=journal.view,
            key_id=journal.key_id,
            retry_failed=False,
            with_pictures=False,
        )
        entries = [row async for row in rows.read() if isinstance(row, JournalEntry)]
        fresh = [entry for entry in entries if entry.state is State.NEW]
        for count, entry in enumerate(reversed(fresh[:begun])):
            state = State.DONE if count < done else State.INTENDED
            await journal.write(attrs.evolve(entry, state=state, sent_at=1.0))
    return entries


@settings(max_examples=60, deadline=None)
@given(runs)
def test_each_row_has_one_key_whatever_becomes_of_the_input(
    plan: list[tuple[list[str], int, int]],
) -> None:
    """Prepended, removed, reordered and equal rows; a key is never given to two rows."""

    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            journaled: dict[str, bytes] = {}
            most: Counter[str] = Counter()
            for targets, begun, done in plan:
                entries = await run_once(Path(folder) / "run.sqlite", targets, begun, done)
                # Every row of the input, and every journaled row, is there exactly once.
                assert [e.row for e in entries if e.row is not None] == list(range(len(targets)))
                assert len({entry.key for entry in entries}) == len(entries)
                known = {entry.key for entry in entries if entry.state is not State.NEW}
                assert known == journaled.keys()
                fresh = [entry for entry in entries if entry.state is State.NEW]
                journaled |= {entry.key: entry.body for entry in fresh[:begun]}
                most |= Counter(targets)
            # No more swaps of a content than the most that one input asked for.
            paid = Counter(body for body in journaled.values())
            wanted = {
                name: next((n for body, n in paid.items() if f"/{name}.jpg".encode() in body), 0)
                for name in most
            }
            assert all(wanted[name] <= most[name] for name in most)

    asyncio.run(check())
