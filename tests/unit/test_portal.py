"""The loop behind the blocking client: in notebooks, inside loops, after a fork."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import pytest

from aifaceswap import APIConnectionError
from aifaceswap._portal import LoopThread
from support.forks import in_child


async def answer() -> int:
    return 42


def test_a_notebook_is_not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells always run inside a loop, and blocking one is what people expect."""
    notebook = SimpleNamespace(get_ipython=object)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    thread = LoopThread()

    async def cell() -> int:
        return thread.run(answer)

    assert asyncio.run(cell()) == 42
    thread.stop()


@pytest.mark.parametrize("ipython", [False, True])
def test_a_call_inside_a_loop_is_warned_of_once(
    ipython: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where IPython is loaded, but is not what runs."""
    if ipython:
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    thread = LoopThread()

    async def main() -> list[int]:
        return [thread.run(answer), thread.run(answer)]

    with pytest.warns(RuntimeWarning, match="use AsyncClient") as told:
        assert asyncio.run(main()) == [42, 42]
    assert len(told) == 1
    thread.stop()


def test_a_fork_leaves_the_parents_thread_alone() -> None:
    """The child may stop what it has inherited; the parent goes on, and so may the child."""
    thread = LoopThread()
    assert thread.run(answer) == 42

    def stop_and_call() -> None:
        thread.stop()
        assert thread.run(answer) == 42

    assert in_child(stop_and_call) == 0
    assert thread.run(answer) == 42
    thread.stop()


def test_a_fork_while_another_thread_starts_the_loop() -> None:
    """The child inherits a lock that nobody will release, and does not wait for it."""
    thread = LoopThread()
    with thread._lock:
        assert in_child(thread.stop) == 0
    thread.stop()


def test_a_call_that_is_under_way_when_the_loop_is_stopped() -> None:
    """It is told that its client was closed."""
    thread = LoopThread()

    async def stop() -> None:
        asyncio.get_running_loop().run_in_executor(None, thread.stop)
        await asyncio.sleep(30)

    with pytest.raises(APIConnectionError, match="the client was closed"):
        thread.run(stop)


def test_stopping_twice_is_stopping_once() -> None:
    """And the next call starts anew."""
    thread = LoopThread()
    assert thread.run(answer) == 42
    thread.stop()
    thread.stop()
    assert thread.run(answer) == 42
    thread.stop()


FORK = """
import os, sys, warnings
from aifaceswap._portal import LoopThread
async def answer():
    return 42
thread = LoopThread()
assert thread.run(answer) == 42
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert thread.run(answer) == 42
"""


def test_a_child_that_exits_leaves_the_parents_thread_alone() -> None:
    """What is stopped at the interpreter's exit is its own."""
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
