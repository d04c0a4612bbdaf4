"""The blocking client: threads, notebooks, Ctrl-C, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aifaceswap import (
    APIConnectionError,
    Client,
    ContentRejectedError,
    InvalidRequestError,
    WaitTimeoutError,
)
from aifaceswap.emulator import Emulator, Limits
from support.samples import URLS


@pytest.fixture(scope="module")
def served() -> Iterator[Emulator]:
    limits = Limits(per_minute=None, per_day=None, concurrent=None)
    with Emulator(duration=0.2, limits=limits, credits=100_000) as emulator:
        yield emulator


@pytest.fixture
def blocking(served: Emulator) -> Iterator[Client]:
    with Client(served.api_key, base_url=served.base_url, budget=None) as client:
        yield client


def test_the_main_job(blocking: Client, tmp_path: Path) -> None:
    """Create, wait, download, list: without a word of async."""
    swap = blocking.swaps.run(**URLS, metadata={"order": 7})
    path = blocking.swaps.download(swap, tmp_path / "r.jpg")
    assert path.read_bytes()[:2] == b"\xff\xd8"
    assert blocking.swaps.get(swap.id).metadata == {"order": 7}
    assert blocking.swaps.list(limit=1).data[0].id == swap.id
    assert blocking.me().credits.total > 0
    assert blocking.request("GET", "/me").value["credits"]["total"] > 0


def test_iterate_goes_page_by_page(blocking: Client) -> None:
    """Every swap once, newest first; breaking off early costs nothing."""
    made = [blocking.swaps.create(**URLS).id for _ in range(5)]
    seen = [swap.id for swap in blocking.swaps.iterate(limit=2)]
    assert seen[:5] == made[::-1]
    assert len(set(seen)) == len(seen)
    assert next(blocking.swaps.iterate(limit=1)).id == made[-1]


def test_errors_come_out_as_they_are(blocking: Client) -> None:
    """The same classes, with the key of the call."""
    with pytest.raises(ContentRejectedError) as caught:
        blocking.swaps.create(**{**URLS, "source_url": "https://example.com/nsfw.jpg"})
    assert caught.value.idempotency_key
    with pytest.raises(InvalidRequestError, match="source_url"):
        blocking.swaps.create(source_url="http://x", target_url="y")


def test_threads_share_one_client_and_its_looks(served: Emulator, blocking: Client) -> None:
    """Twenty threads that wait look together."""
    before = len(served.requests)
    with ThreadPoolExecutor(20) as pool:
        swaps = list(pool.map(lambda _: blocking.swaps.run(**URLS), range(20)))
    assert len({swap.id for swap in swaps}) == 20
    assert len(served.requests) - before <= 20 + 10


def test_a_derived_client_shares_the_loop(served: Emulator, blocking: Client) -> None:
    """One thread, whatever the number of derived clients."""
    blocking.me()
    threads = threading.active_count()
    assert blocking.with_options(timeout=5, deadline=9, max_retries=0).me() == blocking.me()
    assert threading.active_count() == threads


def test_a_closed_client_has_no_thread_and_works_again(served: Emulator) -> None:
    """Closing ends the thread; the next call starts one."""
    client = Client(served.api_key, base_url=served.base_url, budget=None)
    before = threading.active_count()
    client.me()
    assert threading.active_count() == before + 1
    client.close()
    assert threading.active_count() == before
    client.me()
    client.close()
    assert threading.active_count() == before


def test_closing_breaks_off_calls_of_other_threads(served: Emulator) -> None:
    """They end with an error of ours, which carries the key."""
    client = Client(served.api_key, base_url=served.base_url, budget=None)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            client.swaps.run(
                source_url="https://example.com/forever.jpg",
                target_url=URLS["target_url"],
                idempotency_key="order-7",
            )
        except APIConnectionError as error:
            errors.append(error)

    seen = len(served.requests)
    thread = threading.Thread(target=wait)
    thread.start()
    while len(served.requests) == seen:
        time.sleep(0.01)
    client.close()
    thread.join(5)
    assert [getattr(error, "idempotency_key", None) for error in errors] == ["order-7"]


def test_inside_a_running_loop_it_works_with_one_warning(blocking: Client) -> None:
    """It blocks that loop, and says what to use instead."""

    async def main() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            blocking.me()
            blocking.me()
        assert caught[0].filename == __file__
        return [str(warning.message) for warning in caught]

    (text,) = asyncio.run(main())
    assert "AsyncClient" in text


def test_a_wait_in_a_thread_times_out(blocking: Client) -> None:
    """As it does when awaited."""
    with pytest.raises(WaitTimeoutError):
        blocking.swaps.run(
            source_url="https://example.com/forever.jpg", target_url=URLS["target_url"], timeout=0.1
        )


def test_a_blocking_client_is_not_pickled(blocking: Client) -> None:
    """The key would be in it."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        blocking.__reduce__()
    assert repr(blocking).startswith("Client(base_url='http://127.0.0.1")


INTERRUPTED = """
import asyncio, sys, aifaceswap
client = aifaceswap.Client(sys.argv[1], base_url=sys.argv[2])
async def tasks():
    return len(asyncio.all_tasks())
client.me()
before = client._thread.run(tasks)
print("ready", flush=True)
try:
    client.swaps.run(source_url="https://example.com/forever.jpg",
                     target_url="https://example.com/t.jpg", idempotency_key="order-8")
except KeyboardInterrupt as error:
    print(error.__notes__, flush=True)
    client.me()
    assert client._thread.run(tasks) == before
    client.close()
"""


def test_ctrl_c_ends_a_blocking_call_at_once(served: Emulator) -> None:
    """The call is cancelled, the note tells the key, the client still works."""
    seen = len(served.requests)
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "dev",
            "-c",
            textwrap.dedent(INTERRUPTED),
            served.api_key,
            served.base_url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while len(served.requests) < seen + 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    output, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert (errors, process.returncode) == ("", 0)
    notes = r"\['aifaceswap: idempotency key: order-8, swap id: tsk_\w+'\]\n"
    assert re.fullmatch(notes, output)
