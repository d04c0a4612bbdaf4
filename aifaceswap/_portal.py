"""An event loop in a daemon thread: the blocking client runs its calls there.

anyio's `BlockingPortal` needs more than twice the CPU time for a call, ends with the
`SystemExit` of one call, and cannot be stopped from its own thread.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, ParamSpec, TypeVar, cast

import anyio

from aifaceswap.errors import APIConnectionError, ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

_START_SECONDS = 10.0
_JOIN_SECONDS = 2.0


class LoopThread:
    """Runs async functions in a thread's event loop, which the first call starts."""

    def __init__(self) -> None:
        self._begin()
        _open.add(self)

    def _begin(self) -> None:
        self._process = os.getpid()
        # Reentrant: a signal handler may close the client while a call holds the lock.
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._warned = False

    def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async function in the loop; whatever interrupts the caller cancels it."""
        self._warn_inside_a_loop()
        return self._started().run(_Call(partial(function, *args, **kwargs)))

    def stop(self) -> None:
        """End the thread, and with it every call and connection."""
        if self._process != os.getpid():
            return
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.stop()

    def _started(self) -> _Running:
        if self._process != os.getpid():
            self._begin()
        running = self._running
        if running is None or running.loop is None or running.has_ended:
            running = self._start()
            running.wait_started()
        return running

    def _start(self) -> _Running:
        _check_gevent()
        with self._lock:
            running = self._running
            if running is None or running.has_ended:
                running = self._running = _Running()
                weakref.finalize(self, running.stop).atexit = False
            running.start()
            return running

    def _warn_inside_a_loop(self) -> None:
        if self._warned:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        self._warned = True
        ipython = sys.modules.get("IPython")
        # A notebook always runs inside a loop, and blocking its cell is what people expect.
        if ipython is None or ipython.get_ipython() is None:
            text = "a blocking Client inside a running event loop blocks it; use AsyncClient"
            warnings.warn(text, RuntimeWarning, stacklevel=4)


class _Running:
    """One event loop in one thread, from its start to its end."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.has_ended = False
        self._is_started = False
        self._is_stopping = False
        self._failure: BaseException | None = None
        self._calls: set[_Call[Any]] = set()
        # Not an Event: its inner lock is not reentrant, which signal handlers need.
        self._ready = threading.Lock()
        self._ready.acquire()
        self._thread = threading.Thread(target=self._serve, name="aifaceswap", daemon=True)

    def start(self) -> None:
        if self._is_started:
            return
        try:
            self._is_started = True
            self._thread.start()
        except RuntimeError as error:  # no thread can be started
            self._end(error)
        except BaseException:  # e.g. Ctrl-C: the thread may run or not
            self.has_ended = True
            self.stop()
            raise

    def wait_started(self) -> None:
        """Wait until the loop runs; raise if it cannot."""
        if self.loop is None and not self.has_ended:
            if not self._ready.acquire(timeout=_START_SECONDS):
                text = f"the client's thread did not start within {_START_SECONDS:g} s"
                raise APIConnectionError(text, sent=False)
            self._ready.release()
        if self.loop is None:
            reason = "the client was closed" if self._failure is None else self._failure
            text = f"the client's thread cannot start: {reason}"
            raise APIConnectionError(text, sent=False) from self._failure

    def run(self, call: _Call[T]) -> T:
        """Run one call and wait for its end."""
        self._calls.add(call)
        try:
            self._schedule(call.start, self)
            if self.has_ended:
                self._end_calls()
            call.wait()
        except BaseException:
            self._schedule(call.cancel)
            raise
        return call.result()

    def stop(self) -> None:
        """End the loop: from any thread, its own included, and from any signal handler."""
        self._is_stopping = True
        if self.loop is not None:
            self._schedule(self._stopped.set)
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            with suppress(RuntimeError):  # it has not begun; it ends once it does
                self._thread.join(_JOIN_SECONDS)

    def _schedule(self, callback: Callable[..., object], *args: object) -> None:
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(callback, *args)

    def _serve(self) -> None:
        try:
            anyio.run(self._main, backend_options={"loop_factory": _new_loop})
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    async def _main(self) -> None:
        self._stopped = asyncio.Event()
        self._main_task = cast("asyncio.Task[None]", asyncio.current_task())
        self.loop = asyncio.get_running_loop()
        self._ready.release()
        if not self._is_stopping:
            await self._stopped.wait()

    def finish(self, call: _Call[Any]) -> None:
        """A call is over: let its thread continue."""
        # A loop that ends cancels its calls first: the next call must not be given to it.
        if self._main_task.done() or self._main_task.cancelling():
            self.has_ended = True
        with suppress(KeyError):
            self._calls.remove(call)
            call.release()

    def _end(self, error: BaseException | None) -> None:
        self._failure = error
        self.has_ended = True
        self._end_calls()
        if self.loop is None:
            self._ready.release()

    def _end_calls(self) -> None:
        """End the calls that the loop can no longer end."""
        while self._calls:
            with suppress(KeyError):
                self._calls.pop().end(self._failure)


class _Call(Generic[T]):
    """One call: a task of the loop, for which another thread waits."""

    __slots__ = ("_cancelled", "_done", "_error", "_function", "_task", "_value")

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._cancelled = False
        self._error: BaseException | None = None
        # A bare lock: the waiting costs a third of what a Future's costs.
        self._done = threading.Lock()
        self._done.acquire()

    def start(self, running: _Running) -> None:
        self._task = asyncio.get_running_loop().create_task(self._carry_out(running))
        if self._cancelled:
            self._task.cancel()

    def cancel(self) -> None:
        self._cancelled = True
        if hasattr(self, "_task"):
            self._task.cancel()

    async def _carry_out(self, running: _Running) -> None:
        try:
            self._value = await self._function()
        except asyncio.CancelledError:
            self._error = APIConnectionError("the client was closed during the call")
        except BaseException as error:
            self._error = error
            if isinstance(error, RuntimeError) and "interpreter shutdown" in str(error):
                self._error = APIConnectionError(f"the interpreter is shutting down: {error}")
        running.finish(self)

    def release(self) -> None:
        self._done.release()

    def end(self, failure: BaseException | None) -> None:
        self._error = APIConnectionError(
            "the client was closed during the call"
            if failure is None
            else f"the client's thread ended during the call: {failure!r}"
        )
        self.release()

    def wait(self) -> None:
        self._done.acquire()

    def result(self) -> T:
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            # The traceback holds this frame, and so this call.
            del self


# Closed before the interpreter ends, after all exit handlers that are registered later.
_open: weakref.WeakSet[LoopThread] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for thread in list(_open):
        thread.stop()


def _new_loop(clock: Callable[[], float] = time.monotonic) -> asyncio.AbstractEventLoop:
    """An event loop that runs on while a test freezes time; uvloop's, if it is installed."""
    if sys.platform != "win32" and find_spec("uvloop"):
        fast: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
        return fast
    loop = asyncio.new_event_loop()
    loop.time = clock  # type: ignore[method-assign]
    return loop


def _is_patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


_WAS_PATCHED = _is_patched_by_gevent()


def _check_gevent() -> None:
    if _is_patched_by_gevent() and not _WAS_PATCHED:
        text = "gevent patched this process after aifaceswap was imported: patch first, then import"
        raise ConfigurationError(text)
