"""A circuit breaker: while the service fails every row, POSTs pause, and then the run stops."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from aifaceswap.errors import AIFaceSwapError, APIStatusError

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_DOUBLINGS = 6
# So many identical responses in a row, and the base URL is taken to be wrong.
_IDENTICAL = 3

_log = logging.getLogger("aifaceswap")


class RunStopped(Exception):  # noqa: N818 - it ends a row's task, and is raised to nobody
    """Ends a row that stays open, because the run cannot continue.

    Args:
        cause: What the run stops for; None: for what it has stopped already.
    """

    def __init__(self, cause: Exception | None) -> None:
        super().__init__(str(cause))
        self.cause = cause


class CircuitBreaker:
    """Pauses the POSTs of a run for troubles that all rows share.

    Args:
        max_wait: Seconds without an accepted POST or a finished swap after which the run stops.
        on_change: Called when a pause begins or ends.
    """

    def __init__(self, max_wait: float, on_change: Callable[[], object]) -> None:
        self._max_wait = max_wait
        self._on_change = on_change
        self._clock = asyncio.get_running_loop().time
        self._progress_at = self._clock()
        self._trouble_since: float | None = None
        self._resume_at = 0.0
        self._pauses = 0
        self._identical: tuple[object, int] = (None, 0)
        self._half_open = asyncio.Lock()
        self._over = asyncio.Event()
        # Why POSTs are paused; None: they are not.
        self.error: AIFaceSwapError | None = None

    @property
    def is_paused(self) -> bool:
        """Whether POSTs are paused."""
        return self.error is not None

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait until a POST may be sent; after a pause one goes first, and the others wait."""
        if self.is_paused:
            async with self._half_open:
                while self.is_paused and (left := self._resume_at - self._clock()) > 0:
                    with anyio.move_on_after(left):
                        await self._over.wait()
                if self.is_paused:
                    yield
                    return
        yield

    def accepted(self) -> None:
        """A POST was accepted: the trouble is over."""
        self.progressed()
        self._identical = (None, 0)
        self._pauses = 0
        if self.error is not None:
            self.error = None
            self._over.set()
            self._on_change()

    def progressed(self) -> None:
        """A POST was accepted or a swap has finished: the run does not stand still."""
        self._progress_at = self._clock()
        self._trouble_since = None

    def pause(self, error: AIFaceSwapError, began: float) -> None:
        """Pause all POSTs for an error that every row would meet.

        Args:
            error: How a POST ended.
            began: When that POST began.

        Raises:
            RunStopped: The run has stood still for too long, or would.
        """
        left = self.time_left(began)
        wait = error.retry_after if isinstance(error, APIStatusError) else None
        if left <= 0 or (wait or 0.0) > left:
            raise RunStopped(error)
        now = self._clock()
        if now >= self._resume_at:
            self._pauses += 1
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._pauses - 1, _DOUBLINGS))
        pause = max(wait or 0.0, min(left, longest * random.uniform(0.5, 1.0)))  # noqa: S311
        if self.error is None:
            _log.warning("bulk run: creating swaps is paused for %.0f s: %s", pause, error)
        self._resume_at = max(self._resume_at, now + pause)
        self.error = error
        self._over.clear()
        self._on_change()

    def count_identical(self, error: AIFaceSwapError) -> int:
        """How often in a row a POST ended like this, with none accepted in between."""
        kind = (type(error), getattr(error, "status", None), getattr(error, "code", None))
        last, number = self._identical
        self._identical = (kind, number + 1 if kind == last else 1)
        return self._identical[1]

    def stop_if_repeated(self, error: AIFaceSwapError, began: float) -> None:
        """Pause for a response that a wrong base URL causes; the third of its kind stops.

        Raises:
            RunStopped: It was the third, or the run has stood still for too long.
        """
        if self.count_identical(error) >= _IDENTICAL:
            raise RunStopped(error)
        self.pause(error, began)

    def pause_if_repeated(self, error: AIFaceSwapError, began: float) -> None:
        """Pause when one row after the other ends with an error that proves nothing.

        Raises:
            RunStopped: The run has stood still for too long.
        """
        if self.count_identical(error) >= _IDENTICAL:
            self.pause(error, began)

    def time_left(self, began: float) -> float:
        """Seconds that the run may still stand still, given a failure of what began then."""
        if self._trouble_since is None:
            self._trouble_since = max(self._progress_at, began)
        return self._trouble_since + self._max_wait - self._clock()
