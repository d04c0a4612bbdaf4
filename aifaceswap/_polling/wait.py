"""One wait for one swap: what was seen of it, and when that means that it has finished."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
from collections.abc import Callable

import attrs

from aifaceswap._http.retry import is_retryable
from aifaceswap.errors import AIFaceSwapError, APIStatusError, WaitTimeoutError
from aifaceswap.models import Swap, SwapStatus

# A swap that is done without a link is polled again for so long.
_LINK_LAG = 60.0
# An unknown status with an error that stays the same for so long means failed.
_ERROR_LASTS = 10.0


def has_surely_finished(swap: Swap) -> bool:
    """Whether there is a result, or the clear word that there will be none."""
    return bool(swap.result_url) or swap.status == SwapStatus.FAILED


@attrs.define(eq=False)
class Wait:
    """One wait; its callback runs in the caller's own task, so that it concerns nobody else."""

    swap_id: str
    since: float
    timeout: float | None
    last_seen: Swap | None = None
    on_update: Callable[[Swap], object] | None = None
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context)
    polled_at: float | None = None
    # When it was last known to be unfinished.
    unfinished_at: float = attrs.field(default=attrs.Factory(lambda w: w.since, takes_self=True))
    # When it will finish by its progress, and when that was foreseen.
    forecast: float | None = None
    forecast_at: float = 0.0
    # Why the last poll did not succeed.
    trouble: Exception | None = None
    # Whether it is for a slot that another's swap holds: others most likely wait for the swap.
    is_guest: bool = False
    has_ended: bool = False
    _error: Exception | None = None
    _update: Swap | None = None
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)
    # What seems finished, but has to stay the same for a while.
    _doubt: tuple[object, ...] | None = None
    _doubt_since: float = 0.0

    @property
    def deadline(self) -> float:
        """When it gives up."""
        return float("inf") if self.timeout is None else self.since + self.timeout

    @property
    def has_webhook(self) -> bool:
        """Whether a delivery can end it."""
        return self.last_seen is not None and self.last_seen.webhook_url is not None

    @property
    def can_rely_on_delivery(self) -> bool:
        """Whether it needs no polls: a callback wants them, and so does an end in doubt."""
        return self.has_webhook and self.on_update is None and self._doubt is None

    async def follow(self) -> Swap:
        """Report updates until the swap has finished, and return it; or raise why not."""
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                while not self.has_ended or self._update is not None:
                    await self._news.wait()
                    self._news.clear()
                    await self._report()
        except TimeoutError:
            if not limit.expired():  # the callback's own
                raise
        if self._error is not None:
            raise self._error
        seen = self.last_seen
        if seen is not None and (self.has_ended or seen.status == SwapStatus.DONE):
            return seen
        raise self._timed_out() from self.trouble

    async def _report(self) -> None:
        update, self._update = self._update, None
        if update is not None and self.on_update is not None:
            result = self.on_update(update)
            if inspect.isawaitable(result):
                await result

    def see(self, swap: Swap, now: float, *, delivered: bool) -> None:
        """Take in what a poll or a delivery shows of the swap."""
        self.last_seen = self._update = swap
        self.trouble = None
        self.has_ended = self._is_final(swap, now, delivered=delivered)
        if not self.has_ended:
            self.unfinished_at = now
            self._foresee(swap.progress, now)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """End it with an error; each wait raises a copy of its own."""
        if not self.has_ended:
            self.has_ended = True
            self._error = _copy(error)
            self._news.set()

    def _is_final(self, swap: Swap, now: float, *, delivered: bool) -> bool:
        """Whether the swap has finished, or has seemed so for long enough."""
        if has_surely_finished(swap):
            return True
        if delivered and swap.is_finished and swap.status != SwapStatus.DONE:
            return True
        doubt = (swap.status, swap.error, swap.progress) if swap.is_finished else None
        if doubt != self._doubt:
            self._doubt, self._doubt_since = doubt, now
        lasts = _LINK_LAG if swap.status == SwapStatus.DONE else _ERROR_LASTS
        return doubt is not None and now - self._doubt_since >= lasts

    def _foresee(self, progress: float | None, now: float) -> None:
        """Take the progress that was seen for a straight line."""
        if progress is not None and 0 < progress < 100:  # noqa: PLR2004 - per cent
            self.forecast = self.since + (now - self.since) * 100 / progress
            self.forecast_at = now

    def _timed_out(self) -> WaitTimeoutError:
        seen = self.last_seen
        status = "it was never seen" if seen is None else f"last status: {seen.status}"
        return WaitTimeoutError(
            f"{self.swap_id} had not finished after {self.timeout:g} s ({status}). The swap is "
            "still running: wait for it again instead of creating a new one",
            swap_id=self.swap_id,
            swap=seen,
        )


def _copy(error: Exception) -> Exception:
    if not isinstance(error, AIFaceSwapError):
        return error
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin


def may_pass(error: Exception) -> bool:
    """Whether the next poll may well succeed; pages of a proxy say nothing of the swap."""
    if not isinstance(error, AIFaceSwapError):
        return False
    is_page = isinstance(error, APIStatusError) and error.code is None and error.status in _PAGES
    return is_page or is_retryable(error)


_PAGES = frozenset({301, 302, 303, 307, 308, 403})
