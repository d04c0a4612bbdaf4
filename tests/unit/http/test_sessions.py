"""One client over several event loops, threads and forks: nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading

import pytest

from aifaceswap import AsyncClient, Budget
from aifaceswap.emulator import Emulator, Limits
from support.forks import in_child
from support.samples import URLS

NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)


def run_script(script: str, *, timeout: float = 30) -> str:
    """Run a program of its own, warnings being errors, and give what it printed."""
    prelude = """
        import asyncio, gc, os, signal, sys, threading, time, warnings
        import aifaceswap
        from aifaceswap.emulator import Emulator, Limits
        URLS = {"source_url": "https://example.com/f.jpg", "target_url": "https://example.com/t.jpg"}
        NO_LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)
    """
    program = textwrap.dedent(prelude) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_one_client_serves_several_runs_of_a_loop() -> None:
    """A second asyncio.run() finds a client that works."""
    with Emulator(limits=NO_LIMITS) as emulator:
        client = AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=Budget(100))
        for _ in range(3):
            assert asyncio.run(client.swaps.create(**URLS)).status == "queued"
        assert len(emulator.requests) == 3


def test_one_client_serves_loops_in_several_threads_at_once() -> None:
    """Each loop has connections of its own; the budget is shared."""
    with Emulator(limits=NO_LIMITS) as emulator:
        client = AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=Budget(1000))
        ids: list[str] = []

        async def use() -> None:
            swaps = await asyncio.gather(*(client.swaps.create(**URLS) for _ in range(10)))
            ids.extend(swap.id for swap in swaps)

        threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ids)) == 40


def test_a_client_that_was_not_closed_leaves_no_warning() -> None:
    """Its connections close with their loop."""
    assert (
        run_script("""
        async def main():
            async with Emulator(limits=NO_LIMITS) as emulator:
                client = aifaceswap.AsyncClient(emulator.api_key, base_url=emulator.base_url)
                await client.swaps.create(**URLS)
        asyncio.run(main())
        gc.collect()
    """)
        == ""
    )


def test_a_client_that_was_closed_opens_again() -> None:
    """Closing is not an end: the next call opens new connections."""

    async def main() -> None:
        async with Emulator(limits=NO_LIMITS) as emulator:
            client = AsyncClient(emulator.api_key, base_url=emulator.base_url)
            async with client:
                await client.me()
            await client.aclose()
            await client.me()
            await client.aclose()
            assert len(emulator.requests) == 2

    asyncio.run(main())


def test_a_forked_child_has_connections_of_its_own() -> None:
    """Neither disturbs the other, and both end by themselves."""
    assert (
        run_script("""
        with Emulator(limits=NO_LIMITS) as emulator:
            client = aifaceswap.AsyncClient(emulator.api_key, base_url=emulator.base_url)
            blocking = aifaceswap.Client(emulator.api_key, base_url=emulator.base_url)

            async def use():
                await client.swaps.create(**URLS)

            asyncio.run(use())
            blocking.swaps.create(**URLS)
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
            child = os.fork()
            if child == 0:
                asyncio.run(use())
                blocking.swaps.create(**URLS)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            asyncio.run(use())
            blocking.swaps.create(**URLS)
            assert len({request.idempotency_key for request in emulator.requests}) == 6
            blocking.close()
        print("both")
    """)
        == "both\n"
    )


def test_a_fork_inside_a_running_loop_leaves_the_parents_connections_alone() -> None:
    """The child's exit, with all its clean-up, closes nothing of the parent's."""
    assert (
        run_script("""
        async def main():
            async with Emulator(limits=NO_LIMITS) as emulator:
                client = aifaceswap.AsyncClient(emulator.api_key, base_url=emulator.base_url)
                await client.swaps.create(**URLS)
                warnings.simplefilter("ignore", DeprecationWarning)
                if (child := os.fork()) == 0:
                    del client
                    gc.collect()
                    os._exit(0)
                os.waitpid(child, 0)
                await client.with_options(max_retries=0).swaps.create(**URLS)
        asyncio.run(main())
    """)
        == ""
    )


@pytest.mark.parametrize("end", ["close()", "with", "nothing", "exception", "del", "sys.exit"])
def test_a_blocking_client_never_holds_up_the_end_of_a_program(end: str) -> None:
    """However the program ends, it ends at once and silently."""
    ends = {
        "close()": "client.close(); client.close()",
        "with": "client.__exit__(None, None, None)",
        "nothing": "",
        "exception": "\ntry:\n    raise RuntimeError\nexcept RuntimeError:\n    pass",
        "del": "del client; gc.collect()",
        "sys.exit": "sys.exit(0)",
    }
    assert (
        run_script(f"""
        emulator = Emulator(limits=NO_LIMITS).__enter__()
        import atexit; atexit.register(emulator.__exit__, None, None, None)
        client = aifaceswap.Client(emulator.api_key, base_url=emulator.base_url)
        client.swaps.create(**URLS)
        {ends[end].replace(chr(10), chr(10) + " " * 8)}
    """)
        == ""
    )


def test_a_forked_child_closes_none_of_its_parents_connections() -> None:
    """It shares the parent's selector: to close a socket there would deafen the parent."""

    async def use_and_fork(emulator: Emulator) -> None:
        clients = [AsyncClient(emulator.api_key, base_url=emulator.base_url, max_retries=0)]
        await clients[0].me()

        async def call() -> None:
            await clients[0].me()

        def call_and_forget() -> None:
            asyncio.run(call())
            clients.clear()
            gc.collect()

        assert in_child(call_and_forget) == 0
        await clients[0].with_options(timeout=5).me()

    with Emulator(limits=NO_LIMITS) as emulator:
        asyncio.run(use_and_fork(emulator))
