"""Any sequence of inputs over several interrupted runs keeps one swap for each row."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from aifaceswap import InvalidRequestError, SwapRequest
from aifaceswap.bulk._files import RowFiles
from aifaceswap.bulk._journal import JournalEntry, State
from aifaceswap.bulk._rows import RejectedRow, Rows
from aifaceswap.files._publisher import Publisher
from support.bulk_runs import no_files
from support.journals import opened
from support.local_files import SigningStore, write_gif
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
            files=no_files(),
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


#: What is in the files of a run, None for a missing one; its input, and how many rows it begins.
file_runs = st.lists(
    st.tuples(
        st.fixed_dictionaries({name: st.sampled_from([None, 1, 2, 3]) for name in "abc"}),
        st.lists(st.sampled_from("abc"), max_size=6),
        st.integers(0, 8),
    ),
    min_size=1,
    max_size=4,
)


def set_up(folder: Path, versions: dict[str, int | None]) -> None:
    """Write, keep or remove the files; a file of the same version is only written again."""
    for name, version in versions.items():
        path = folder / f"{name}.gif"
        if version is None:
            path.unlink(missing_ok=True)
        else:
            write_gif(path, f"{name}{version}" * version)


async def read_files(
    folder: Path, targets: list[str], begun: int
) -> tuple[list[JournalEntry | RejectedRow], list[JournalEntry]]:
    """Read all rows of local files, and begin some as a run does; also what was begun."""
    store = SigningStore()
    store.delay = 0.0
    files = RowFiles(lambda: Publisher(store, is_local=True), 0.0, lambda: None)
    requests = [SwapRequest(source=b"GIF89a", target=folder / f"{name}.gif") for name in targets]
    async with opened(folder / "run.sqlite") as journal:
        rows = Rows(
            requests=requests,
            journal=journal.view,
            files=files,
            key_id=journal.key_id,
            retry_failed=False,
            with_pictures=False,
        )
        read = [row async for row in rows.read()]
        fresh = [row for row in read if isinstance(row, JournalEntry) and row.state is State.NEW]
        ready = list[JournalEntry]()
        for entry in fresh:
            if len(ready) < begun:
                with suppress(InvalidRequestError):  # its file is missing
                    ready.append(await files.publish(entry))
        for entry in ready:
            await journal.write(attrs.evolve(entry, state=State.INTENDED, sent_at=1.0))
    return read, ready


@settings(max_examples=25, deadline=None)
@given(file_runs)
def test_each_content_of_a_file_has_its_rows_whatever_becomes_of_the_files(
    plan: list[tuple[dict[str, int | None], list[str], int]],
) -> None:
    """A row is its path and its content; a missing file is the one that was known last."""

    async def check() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            known: Counter[tuple[str, int]] = Counter()
            keys, newest = set[str](), dict[str, int]()
            for versions, targets, begun in plan:
                set_up(folder, versions)
                read, ready = await read_files(folder, targets, begun)
                wanted = [(target, versions[target] or newest.get(target, 0)) for target in targets]
                rejected = [row for row in read if isinstance(row, RejectedRow)]
                assert len(rejected) == sum(version == 0 for _, version in wanted)
                entries = [row for row in read if isinstance(row, JournalEntry)]
                found = {entry.key for entry in entries if entry.state is not State.NEW}
                assert found == keys
                asked = Counter(each for each in wanted if each[1])
                new = sum((asked - known).values())
                assert len(entries) == len(keys) + new
                for entry in ready:
                    assert entry.row is not None
                    known[wanted[entry.row]] += 1
                    newest[wanted[entry.row][0]] = wanted[entry.row][1]
                    keys.add(entry.key)

    asyncio.run(check())
