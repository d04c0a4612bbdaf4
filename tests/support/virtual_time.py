"""An event loop whose time jumps: a wait of an hour takes a millisecond.

Sockets are real; only waiting is not. Whenever nothing is ready and no thread is at work, the
loop's time moves to its next timer at once. Client and emulator run together in one such loop::

    async def scenario() -> None:
        async with Emulator(duration=30) as emulator, AsyncClient(...) as client:
            await client.swaps.run(...)  # 30 s by the clock of both, a moment in reality

    run_virtual(scenario)

Whole test modules run so with a fixture of anyio's pytest plugin::

    @pytest.fixture
    def anyio_backend() -> tuple[str, dict[str, object]]:
        return "asyncio", {"loop_factory": VirtualTimeLoop}

What to know:

- `loop.time()`, `asyncio.sleep()`, timeouts and `emulator.RealClock` follow the loop; it does
  not move while Python computes, so that a slow machine fires no timeout. `time.time()` and
  `time.monotonic()` stay real.
- Threads of `asyncio.to_thread()`, `run_in_executor()` and `anyio.to_thread` (with its default
  limiter) are waited for in real time. Other threads and processes are not: a server in one
  would see its client time out. Run the emulator with `async with`, not with `with`.
- A loop without timers waits in reality, as ever: a deadlock ends at pytest's timeout.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Real seconds that a byte on its way over loopback may take to arrive.
GRACE: Final = 0.001

#: Virtual seconds that each turn of the loop takes, so that time never stands still.
TURN: Final = 1e-6


def run_virtual(function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """Run an async function as `asyncio.run()` does, in virtual time.

    Args:
        function: The async function.
        args: Its arguments.

    Returns:
        What it returns.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(function(*args))


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that skips the time in which nothing happens."""

    # Later loops of the process go on from here: what outlives a loop, such as a budget, never
    # sees time go back.
    _latest = 0.0

    def __init__(self) -> None:
        self._now = max(time.monotonic(), VirtualTimeLoop._latest)
        self._executing = 0
        self._limiter: anyio.CapacityLimiter | None = None
        super().__init__(_Skipping(self))

    def time(self) -> float:
        return self._now

    def move_on(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._now += seconds
        VirtualTimeLoop._latest = max(VirtualTimeLoop._latest, self._now)

    def threads_are_at_work(self) -> bool:
        """Whether a thread has yet to come back to this loop with a result."""
        borrowed = 0 if self._limiter is None else self._limiter.borrowed_tokens
        return self._executing > 0 or borrowed > 0

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        # anyio tells its limiter only inside a task, and timers are mostly set there.
        if self._limiter is None and asyncio.current_task(self) is not None:
            self._limiter = anyio.to_thread.current_default_thread_limiter()
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Any, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._executing += 1
        future.add_done_callback(self._executed)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self._executing += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._executing -= 1

    def _executed(self, _: asyncio.Future[Any]) -> None:
        self._executing -= 1


class _Skipping(selectors.DefaultSelector):
    """Reports what is ready; where that is nothing, it skips the time that it should wait."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.move_on(TURN)
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        # Without sockets there is nothing but the loop's own pipe, and no byte on its way.
        ready = super().select(0)
        if not ready and len(self.get_map()) > 1:
            ready = super().select(GRACE)
        while not ready and self._loop.threads_are_at_work():
            ready = super().select(GRACE)
        if not ready:
            self._loop.move_on(timeout)
        return ready
