"""The loop behind the blocking client: in notebooks, inside loops, after a fork."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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


@pytest.mark.skipif(sys.platform == "win32", reason="limits of resources are POSIX")
def test_a_loop_that_cannot_start_raises_at_once() -> None:
    """Without a free file descriptor there is no loop; with one the next call works."""
    import resource

    def call_without_descriptors() -> None:
        thread = LoopThread()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(APIConnectionError, match=r"cannot start: .*Too many open") as caught:
            thread.run(answer)
        assert not caught.value.sent
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert thread.run(answer) == 42

    assert in_child(call_without_descriptors) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="interval timers are POSIX")
def test_a_signal_handler_may_stop_the_loop_at_any_moment() -> None:
    """Also while the interrupted call is starting it: the call ends, and the next one works."""
    thread = LoopThread()
    before = signal.signal(signal.SIGVTALRM, lambda *_: thread.stop())
    try:
        for step in range(1, 40):
            signal.setitimer(signal.ITIMER_VIRTUAL, step * 5e-5)
            with suppress(APIConnectionError):
                thread.run(asyncio.sleep, 0.005)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            assert thread.run(answer) == 42
            thread.stop()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_an_interrupted_start_leaves_nothing_behind() -> None:
    """After a Ctrl-C at any moment the next call works, with one thread."""
    thread = LoopThread()
    before = signal.signal(signal.SIGVTALRM, signal.default_int_handler)
    try:
        for step in range(1, 40):
            with suppress(KeyboardInterrupt):
                try:
                    signal.setitimer(signal.ITIMER_VIRTUAL, step * 5e-5)
                    thread.run(asyncio.sleep, 0.005)
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            assert thread.run(answer) == 42
            thread.stop()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    left = [one for one in threading.enumerate() if one.name == "aifaceswap"]
    for one in left:
        one.join(5)
    assert not [one for one in left if one.is_alive()]


def test_a_garbage_collection_in_the_loops_own_thread() -> None:
    """It ends the thread of a client that nobody holds."""
    thread = LoopThread()

    async def own_thread() -> threading.Thread:
        return threading.current_thread()

    loop_thread = thread.run(own_thread)
    loop = thread.run(running_loop)
    vars(thread)["itself"] = thread
    gc.disable()
    try:
        del thread
        loop.call_soon_threadsafe(gc.collect)
        loop_thread.join(5)
    finally:
        gc.enable()
    assert not loop_thread.is_alive()


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def leave() -> None:
    raise SystemExit(3)


def test_a_system_exit_ends_its_own_call_alone() -> None:
    """Calls of other threads go on, in the same loop."""
    thread = LoopThread()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: thread.run(asyncio.sleep, 0.05, 42))
        with pytest.raises(SystemExit):
            thread.run(leave)
        assert other.result() == 42
    thread.stop()


def test_a_loop_that_ends_by_itself_ends_its_calls() -> None:
    """Nobody waits for a loop that a callback has ended; the next call starts another."""
    thread = LoopThread()
    loop = thread.run(running_loop)

    async def wait() -> None:
        loop.call_later(0.01, sys.exit, 3)
        await asyncio.sleep(30)

    with pytest.raises(APIConnectionError, match=r"closed during|ended during"):
        thread.run(wait)
    assert thread.run(answer) == 42
    thread.stop()


def test_frozen_time_does_not_stop_the_loop() -> None:
    """Timers of the loop run on while a test freezes the clock."""
    freezegun = pytest.importorskip("freezegun")
    thread = LoopThread()
    with freezegun.freeze_time("2030-01-01"):
        thread.run(asyncio.sleep, 0.001)
    thread.stop()


def printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


PREPARED = """
import atexit
from aifaceswap._portal import LoopThread
async def answer():
    return 42
def call():
    try:
        print(thread.run(answer))
    except Exception as error:
        print(type(error).__name__, error)
thread = LoopThread()
atexit.register(call)
"""


def test_an_exit_handler_that_is_older_than_the_first_call() -> None:
    """The loop still runs when it is called."""
    assert printed(f"{PREPARED}call()") == "42\n42"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 starts threads to the end")
def test_a_first_call_at_the_interpreters_end() -> None:
    """Where no thread can be started any more, the error says so; some Pythons start one."""
    text = "the client's thread cannot start: can't create new thread at interpreter shutdown"
    assert printed(PREPARED) in {"42", f"APIConnectionError {text}"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 starts threads to the end")
def test_a_file_that_is_to_be_written_at_the_interpreters_end() -> None:
    """Files need threads of their own; where none can start, the error is one of ours."""
    code = PREPARED.replace("return 42", "return await to_thread.run_sync(int)")
    code = f"from anyio import to_thread\n{code}thread.run(asyncio.sleep, 0)"
    text = "the interpreter is shutting down: can't create new thread at interpreter shutdown"
    assert printed(f"import asyncio\n{code}") in {"0", f"APIConnectionError {text}"}


@pytest.mark.parametrize("late", [False, True])
def test_gevent(late: bool) -> None:
    """It works if it patches first; patching later is an error that says so, never a hang."""
    pytest.importorskip("gevent")
    quiet = "import warnings; warnings.simplefilter('ignore')\n"
    patch = f"{quiet}from gevent import monkey; monkey.patch_all()\n"
    body = PREPARED.replace("atexit.register(call)", "")
    code = f"{body}{patch}call()" if late else f"{patch}{body}call()"

    assert printed(code).startswith("ConfigurationError gevent patched" if late else "42")
