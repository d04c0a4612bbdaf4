"""The rate limiter of a process while Redis is unreachable: one request in flight."""

from __future__ import annotations

import asyncio
import os
import threading

import attrs

from aifaceswap.budget import Budget, Permit, Purpose
from aifaceswap.models import RateLimit


@attrs.define(eq=False)
class _LocalPermit:
    """A permit of one process."""

    _permit: Permit
    _loop: asyncio.AbstractEventLoop
    _process: int = attrs.field(factory=os.getpid)
    _is_over: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its request is not in flight in this process, or its loop will not say."""
        return self._is_over or not self._loop.is_running() or self._process != os.getpid()

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        self._permit.settle(rate_limit)
        self._is_over = True

    def cancel(self) -> None:
        self._permit.cancel()
        self._is_over = True


class LocalBudget:
    """Grants one permit at a time, within the limits that the process itself can count."""

    def __init__(self, requests: int, per: float, per_day: int | None) -> None:
        self.budget = Budget(requests, per, per_day)
        self._lock = threading.Lock()
        self._last: _LocalPermit | None = None

    async def try_acquire(self, purpose: Purpose) -> Permit | None:
        """A permit, or None while a request is in flight; raise `RateLimitError` in a pause."""
        if self._is_busy():
            return None
        permit = await self.budget.acquire(purpose, max_wait=0)
        with self._lock:
            if not self._is_busy():
                self._last = _LocalPermit(permit, asyncio.get_running_loop())
                return self._last
        permit.cancel()
        return None

    def _is_busy(self) -> bool:
        return self._last is not None and not self._last.is_over
