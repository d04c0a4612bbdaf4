"""The client-side rate limiter: how many requests may be sent, so that no 429 is met.

Anything with the two methods of `RequestBudget` can be used. `Budget` lives in this process. It
frees a permit one window after the *response* arrived: the service counted the request no later
than it responded, so no sliding window of the service ever holds too many.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from aifaceswap import _validation
from aifaceswap._api.requests import Purpose
from aifaceswap._api.responses import RATE_LIMITED, RATE_LIMITED_DAILY, error_class
from aifaceswap._limits import REQUESTS_PER_DAY, REQUESTS_PER_WINDOW, WINDOW
from aifaceswap._validation import Secret
from aifaceswap.budget._queue import PURPOSES, FairQueue, Waiter
from aifaceswap.budget._window import Window
from aifaceswap.errors import APIStatusError
from aifaceswap.models import RateLimit

__all__ = [
    "Budget",
    "Permit",
    "Purpose",
    "RequestBudget",
    "forget_shared",
    "key_scope",
    "shared_budget",
]

_log = logging.getLogger("aifaceswap")


class Permit(Protocol):
    """The right to send one request, until its response has arrived."""

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        """Report that the attempt is over.

        Args:
            rate_limit: The rate limit in the response's headers, or None.
        """

    def cancel(self) -> None:
        """Return the permit: the request was never sent."""


class RequestBudget(Protocol):
    """What a client asks for a permit before each attempt."""

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        """Wait until a request may be sent.

        Args:
            purpose: What the request is for. Create requests and reads go before polls.
            max_wait: Maximum time to wait, in seconds. None: as long as it takes.

        Returns:
            The permit, to be settled when the response has arrived.

        Raises:
            RateLimitError: No permit will be free in time; nothing was sent. While a 429
                pauses the budget, it is the error of that 429's code.
            DailyLimitError: The UTC day's requests are used up; nothing was sent.
        """
        ...

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
    ) -> None:
        """Send nothing for a while: the service has responded with 429.

        Args:
            seconds: The length of the pause in seconds.
            purpose: The requests that are paused. None: all.
            code: The code of the 429, for the errors of calls that are rejected meanwhile.
        """


class Budget:
    """A client-side rate limiter: at most `requests` requests in any window of time.

    Several clients, threads and event loops can share one. It counts the requests of this
    process: several processes with one key need a share each. Response headers can lower what
    it allows, never raise it: requests of others with the same key are counted until the
    service's ``x-ratelimit-reset``. When nothing is known of the window, one request goes first
    and the others wait for its headers, 2 seconds at most.

    Args:
        requests: Requests allowed in a window; the service allows 60.
        per: The window's length in seconds.
        per_day: Requests allowed in a UTC day; the service allows 10,000. None: no limit.
        clock: Returns the Unix time in seconds, for the UTC day and ``x-ratelimit-reset``.

    Raises:
        ConfigurationError: An argument is not a number above 0.
    """

    def __init__(
        self,
        requests: int = REQUESTS_PER_WINDOW,
        per: float = WINDOW,
        per_day: int | None = REQUESTS_PER_DAY,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        requests = _validation.positive_integer("requests", requests)
        per = _validation.seconds("per", per)
        if per_day is not None:
            per_day = _validation.positive_integer("per_day", per_day)
        self._settings = (requests, per, per_day, clock)
        self._clock = clock
        self._per = per
        self._order = itertools.count()
        self._ends = (self._settle, self._cancel)
        self._window: Window[_Permit] = Window(*self._settings)
        self._start_process()
        self._end_pauses()

    def _start_process(self) -> None:
        """Set up what belongs to one process: after a fork, requests in flight are the parent's."""
        self._process = os.getpid()
        # Re-entrant: the garbage collector may settle an abandoned permit at any moment.
        self._lock = threading.RLock()
        self._queue: FairQueue[_Permit] = FairQueue(self._per / 4)
        self._window.in_flight.clear()

    def _end_pauses(self) -> None:
        self._paused_until: dict[Purpose, float] = dict.fromkeys(PURPOSES, 0.0)
        self._paused_by: dict[Purpose, str] = dict.fromkeys(PURPOSES, RATE_LIMITED)

    def __repr__(self) -> str:
        requests, per, per_day, _ = self._settings
        until = self.paused_until
        paused = "" if until is None else f", paused_until={until:%Y-%m-%dT%H:%M:%SZ}"
        return f"Budget(requests={requests}, per={per:g}, per_day={per_day}{paused})"

    @property
    def paused_until(self) -> datetime | None:
        """When the longest pause after a 429 ends, in UTC; None without a pause."""
        seconds = max(self._paused_until.values()) - _now()
        return self._utc(seconds) if seconds > 0 else None

    def reset(self) -> None:
        """Forget all requests, pauses and learned limits; calls that wait stay in the queue.

        For tests whose server starts again, and to end a pause after a 429 that asked for an
        absurd ``Retry-After``.
        """
        with self._lock:
            self._window = Window(*self._settings)
            self._end_pauses()
            self._dispatch(_now())

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        """Wait until a request may be sent; see `RequestBudget.acquire`."""
        if self._process != os.getpid():
            self._start_process()
        loop = asyncio.get_running_loop()
        with self._lock:
            now = loop.time()
            is_held = self._queue.lines or self._paused_until[purpose] > now
            if not is_held and self._window.may_send(now):
                return self._grant(loop, now)
            waiter = Waiter[_Permit](purpose, next(self._order), loop, now)
            self._join(waiter, max_wait)
        try:
            return await waiter.wait(max_wait)
        except TimeoutError:
            return self._grant_late(waiter)
        # Not in a `finally`: a coroutine that is thrown away with its loop must not get here.
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
    ) -> None:
        """Send nothing for a while; see `RequestBudget.penalize`."""
        with self._lock:
            until = _now() + seconds
            purposes: tuple[Purpose, ...] = PURPOSES if purpose is None else (purpose,)
            extended: list[Purpose] = [n for n in purposes if until > self._paused_until[n]]
            for name in extended:
                self._paused_until[name] = until
                self._paused_by[name] = code
            if purpose is None:
                self._window.pause(until)
        if extended and seconds > self._per:
            self._warn_of_pause(seconds, purpose, code)

    def _warn_of_pause(self, seconds: float, purpose: Purpose | None, code: str) -> None:
        """Log a long pause; an error of a log handler does not end the call that met the 429."""
        with suppress(Exception):
            _log.warning(
                "429 %s: %s requests are paused for %.0f s, until %s. Budget.reset() ends it.",
                code,
                purpose or "all",
                seconds,
                f"{self._utc(seconds):%Y-%m-%d %H:%M:%S} UTC",
            )

    def _utc(self, seconds: float) -> datetime:
        """The UTC time that many seconds from now."""
        return datetime.fromtimestamp(self._clock() + seconds, UTC)

    # --- permits: `_grant` with the lock held ---------------------------------------------------

    def _grant(self, loop: asyncio.AbstractEventLoop, now: float) -> _Permit:
        """Take a free permit."""
        permit = _Permit(self._ends, loop, self._window.day)
        self._window.add(permit, now)
        return permit

    def _settle(self, permit: _Permit, rate_limit: RateLimit | None) -> None:
        with self._lock:
            if permit not in self._window.in_flight:
                return
            now = _now()
            self._window.settle(permit, now)
            if rate_limit is not None:
                self._window.learn(rate_limit, now)
            if self._queue.lines:
                self._dispatch(now)

    def _cancel(self, permit: _Permit) -> None:
        with self._lock:
            if permit not in self._window.in_flight:
                return
            self._window.discard(permit)
            if self._queue.lines:
                self._dispatch(_now())

    # --- waiting: `_join`, `_dispatch` and what they call with the lock held --------------------

    def _join(self, waiter: Waiter[_Permit], max_wait: float | None) -> None:
        """Queue for a permit, unless none can be free in time."""
        now = waiter.since
        if not self._queue.lines:
            self._reclaim(now)
        if max_wait is not None and self._shortest_wait(waiter.purpose, now) > max_wait:
            raise self._refusal(waiter.purpose, now)
        if self._queue.add(waiter):  # else someone before it waits, with an alarm
            self._dispatch(now)

    def _grant_late(self, waiter: Waiter[_Permit]) -> _Permit:
        """A waiter's time is over: give it what is free, or reject it."""
        with self._lock:
            now = _now()
            self._dispatch(now)
            self._queue.remove(waiter)
            if waiter.permit is not None:
                return waiter.permit
            # Only the first request's headers are missing: no caller is rejected for that.
            if self._paused_until[waiter.purpose] <= now and self._window.has_room(now):
                return self._grant(waiter.loop, now)
            raise self._refusal(waiter.purpose, now)

    def _leave(self, waiter: Waiter[_Permit]) -> None:
        """A waiter was cancelled: its place, or the permit it got meanwhile, goes to the next."""
        with self._lock:
            self._queue.remove(waiter)
            if waiter.permit is not None:
                waiter.permit.cancel()

    def _dispatch(self, now: float) -> None:
        """Hand free permits to those who wait, then see to it that someone comes back."""
        while (waiter := self._next(now)) is not None and self._window.may_send(now):
            self._queue.pop(waiter)
            waiter.grant(self._grant(waiter.loop, now))
        heads = self._queue.heads()
        if heads:
            free = now + self._window.next_check(now)
            when = min(max(free, self._paused_until[head.purpose]) for head in heads)
            self._queue.set_alarms(when, self._ring)

    def _next(self, now: float) -> Waiter[_Permit] | None:
        heads = [one for one in self._queue.heads() if self._paused_until[one.purpose] <= now]
        return self._queue.next_of(heads, now)

    def _ring(self) -> None:
        with self._lock:
            now = _now()
            self._reclaim(now)
            self._dispatch(now)

    def _reclaim(self, now: float) -> None:
        """Settle the permits of loops that have closed or stopped: nobody else will."""
        for permit in list(self._window.in_flight):
            if not permit.loop.is_running():
                self._window.settle(permit, now)

    def _shortest_wait(self, purpose: Purpose, now: float) -> float:
        """Seconds, at the least, that one who comes now has to wait."""
        paused_until = self._paused_until[purpose]
        # Those who are paused for longer let others pass.
        latest = max(now, paused_until)
        rivals: list[Purpose] = [
            one for one in PURPOSES if one != purpose and self._paused_until[one] <= latest
        ]
        ahead = self._queue.number_ahead(purpose, rivals)
        return max(self._window.delay(now, ahead), paused_until - now)

    def _refusal(self, purpose: Purpose, now: float) -> APIStatusError:
        """The error of a call that cannot go in time."""
        requests, per, per_day, _ = self._settings
        delay = self._shortest_wait(purpose, now)
        if self._paused_until[purpose] - now >= delay:
            code = self._paused_by[purpose]
            text = f"requests are paused after a 429 {code} response"
        elif self._window.until_tomorrow():
            code = RATE_LIMITED_DAILY
            text = f"the limit of {per_day} requests per UTC day is used up"
        else:
            code = RATE_LIMITED
            text = f"the limit of {requests} requests in {per:g} s is used up"
        text += f"; the next one can be sent in {delay:.1f} s at the earliest"
        return error_class(429, code)(text, status=429, code=code, retry_after=delay)


class _Permit:
    """A permit of `Budget`; only the first call of its methods counts."""

    __slots__ = ("_ends", "day", "loop")

    def __init__(self, ends: _Ends, loop: asyncio.AbstractEventLoop, day: int) -> None:
        self._ends = ends
        self.loop = loop
        self.day = day

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        self._ends[0](self, rate_limit)

    def cancel(self) -> None:
        self._ends[1](self)


# How a budget takes back a permit: settled, or cancelled.
_Ends = tuple[Callable[[_Permit, RateLimit | None], None], Callable[[_Permit], None]]
_shared: dict[str, Budget] = {}


def shared_budget(base_url: str, api_key: str | Secret, budget: Budget | None = None) -> Budget:
    """Return the budget that all clients of one key share in this process.

    Args:
        base_url: URL of the API.
        api_key: The API key; only a digest of it is kept.
        budget: The budget to share unless one is shared already.

    Returns:
        The same budget for the same arguments.
    """
    scope = key_scope(base_url, Secret(api_key))
    return _shared.setdefault(scope, Budget() if budget is None else budget)


def key_scope(base_url: str, api_key: Secret) -> str:
    """Name what limits belong to: a digest of the base URL and the API key.

    Args:
        base_url: URL of the API.
        api_key: The API key.

    Returns:
        Hexadecimal digits that do not reveal the key.
    """
    return hashlib.sha256(f"{base_url} {api_key.reveal()}".encode()).hexdigest()


def forget_shared() -> None:
    """Give every key a new budget: for tests, whose servers start again."""
    _shared.clear()


def _now() -> float:
    """Monotonic seconds by the running loop; all loops of a process share its beginning."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
