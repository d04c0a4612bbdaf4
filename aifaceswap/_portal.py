"""An event loop in a thread, for those who have none: what the synchronous facade stands on.

A daemon thread runs the loop; an anyio portal brings calls there and their results back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from aifaceswap.errors import APIConnectionError

P = ParamSpec("P")
T = TypeVar("T")

_JOIN_SECONDS = 2.0


class LoopThread:
    """An event loop in a daemon thread, started at the first call, anew after a fork."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._stop: Callable[[], object] | None = None
        self._warned = False

    def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an async function in the loop; whatever interrupts the caller cancels it."""
        self._warn_inside_a_loop()
        future = self._running_portal().start_task_soon(partial(function, *args, **kwargs))
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise APIConnectionError("the client was closed while the call was under way") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread, and with it every connection."""
        if self._process != os.getpid():
            return
        with self._lock:
            stop, self._portal, self._stop = self._stop, None, None
        if stop is not None:
            stop()

    def _running_portal(self) -> BlockingPortal:
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if self._portal is None:
                self._portal = self._start()
            return self._portal

    def _start(self) -> BlockingPortal:
        started: concurrent.futures.Future[BlockingPortal] = concurrent.futures.Future()
        thread = threading.Thread(
            target=anyio.run, args=(_serve, started), name="aifaceswap", daemon=True
        )
        thread.start()
        portal = started.result()
        # Also at the interpreter's exit: a portal that is left open would hang it.
        self._stop = weakref.finalize(self, _stop, portal, thread, os.getpid())
        return portal

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


async def _serve(started: concurrent.futures.Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        started.set_result(portal)
        await portal.sleep_until_stopped()


def _stop(portal: BlockingPortal, thread: threading.Thread, process: int) -> None:
    if process == os.getpid() and thread.is_alive():
        portal.start_task_soon(portal.stop, True)
        thread.join(_JOIN_SECONDS)
