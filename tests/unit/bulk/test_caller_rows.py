"""The blocking client reads rows and reports progress in the thread that iterates."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest

from aifaceswap import BulkProgress, Client, Outcome
from aifaceswap.emulator import Emulator, Limits
from support.samples import FACE

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)
ROWS = [{"source_url": FACE, "target_url": f"https://example.com/{n}.jpg"} for n in range(3)]


@pytest.fixture
def blocking() -> Iterator[Client]:
    with (
        Emulator(duration=0, limits=NO_LIMITS) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url, budget=None) as client,
    ):
        yield client


def run(client: Client, requests: Iterable[Any], **settings: Any) -> list[Outcome]:
    with client.swaps.bulk(requests, **settings) as outcomes:
        return list(outcomes)


def no_loop(_: Client) -> None:
    """What Django's ORM checks before each query."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@pytest.mark.parametrize(
    "use",
    [no_loop, lambda client: client.me(), lambda _: asyncio.run(asyncio.sleep(0))],
    ids=["no loop", "the same client", "asyncio.run"],
)
def test_a_generator_may_do_what_its_caller_may(
    use: Callable[[Client], object], blocking: Client
) -> None:
    """It runs outside the event loop, in the thread that iterates."""

    def rows() -> Iterator[dict[str, str]]:
        for row in ROWS:
            use(blocking)
            assert threading.current_thread() is threading.main_thread()
            yield row

    assert [outcome.ok for outcome in run(blocking, rows())] == [True] * 3


def test_rows_may_come_from_a_cursor(blocking: Client) -> None:
    """SQLite's cursors belong to the thread that made them."""
    with closing(sqlite3.connect(":memory:")) as database:
        urls = [(row["target_url"],) for row in ROWS]
        database.execute("CREATE TABLE targets (url)")
        database.executemany("INSERT INTO targets VALUES (?)", urls)
        cursor = database.execute("SELECT url FROM targets")
        rows = ({"source_url": FACE, "target_url": url} for (url,) in cursor)
        assert len(run(blocking, rows)) == 3


def test_a_generator_that_waits_delays_nobody_else(blocking: Client) -> None:
    """Other threads use the client meanwhile."""
    answered = threading.Event()

    def ask() -> None:
        blocking.me()
        answered.set()

    def rows() -> Iterator[dict[str, str]]:
        yield ROWS[0]
        thread = threading.Thread(target=ask)
        thread.start()
        assert answered.wait(10), "the client was blocked"
        thread.join()
        yield ROWS[1]

    assert len(run(blocking, rows())) == 2


def test_an_exception_of_the_rows_ends_the_run(blocking: Client) -> None:
    """It comes out as it is; what was begun is finished first."""

    def rows() -> Iterator[dict[str, str]]:
        yield ROWS[0]
        raise ZeroDivisionError

    with blocking.swaps.bulk(rows()) as outcomes, pytest.raises(ZeroDivisionError):
        list(outcomes)


def test_no_row_is_read_after_a_stop(blocking: Client) -> None:
    """Nor far ahead of what is in progress."""
    read = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal read
        while True:
            read += 1
            yield ROWS[0]

    with blocking.swaps.bulk(rows(), concurrency=2) as outcomes:
        next(outcomes)
        outcomes.stop()
        before = read
        rest = list(outcomes)
    assert read == before
    assert len(rest) < read


def test_progress_is_reported_in_the_thread_that_iterates(blocking: Client) -> None:
    """The newest, until everything is done."""
    seen: list[BulkProgress] = []

    def report(progress: BulkProgress) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append(progress)

    run(blocking, iter(ROWS), on_progress=report)
    assert (seen[-1].read, seen[-1].done) == (3, 3)


def test_many_rows_are_read_in_few_steps(blocking: Client) -> None:
    """Rows that are rejected at once are wanted as fast as they come."""
    outcomes = run(blocking, iter([{}] * 1000))
    assert [outcome.row for outcome in outcomes] == list(range(1000))
