"""How many requests may be made: a budget that never meets a 429.

A budget is whatever has the two methods of `RequestBudget`. `Budget` is the one that lives in
this process. It frees a permit one window after its *answer* came: the service counted the
request no later than it answered, so that no window of the service ever holds too many.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Literal, Protocol

from aifaceswap import _validation
from aifaceswap._api.responses import RATE_LIMITED, RATE_LIMITED_DAILY, error_class
from aifaceswap._limits import REQUESTS_PER_DAY, REQUESTS_PER_WINDOW, WINDOW
from aifaceswap.errors import APIStatusError
from aifaceswap.models import RateLimit

Purpose = Literal["create", "read", "poll"]

_SECONDS_A_DAY = 86_400
_PURPOSES: tuple[Purpose, ...] = ("create", "read", "poll")


class Permit(Protocol):
    """The right to send one request, until its answer has come."""

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        """Say that the attempt is over.

        Args:
            rate_limit: What the answer's headers say of the requests left, or None.
        """

    def cancel(self) -> None:
        """Give the permit back: the request was never sent."""


class RequestBudget(Protocol):
    """What a client asks before each attempt."""

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        """Wait until a request may be sent.

        Args:
            purpose: What the request is for; ``"poll"`` goes behind all others.
            max_wait: Seconds to wait at most; None: as long as it takes.

        Returns:
            The permit, to be settled when the answer has come.

        Raises:
            RateLimitError: No permit will be free in time; nothing was sent. Where a 429 holds
                the budget back, it is the error of that 429's code.
            DailyLimitError: The UTC day's requests are used up; nothing was sent.
        """
        ...

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
    ) -> None:
        """Send nothing for a while: the service has answered 429.

        Args:
            seconds: How long.
            purpose: Which requests are held back; None: all.
            code: The code of the 429, for the errors of those who are refused meanwhile.
        """


class Budget:
    """At most so many requests in any window of time, for all who share this object.

    Several clients, threads and event loops may share one. It holds for this process: several
    processes with one key need a share each. It follows the answers' headers where they say
    that less is left than it thought.

    Args:
        requests: Requests allowed in a window; the service allows 60.
        per: The window's length in seconds.
        per_day: Requests allowed in a UTC day; the service allows 10,000. None: no limit.
        clock: Gives the Unix time in seconds, by which the UTC day is told.

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
        self._requests = self._capacity = _validation.positive_integer("requests", requests)
        self._per = _validation.seconds("per", per)
        self._per_day = (
            None if per_day is None else _validation.positive_integer("per_day", per_day)
        )
        self._clock = clock
        # When the permits of answered requests come free, earliest first.
        self._frees: deque[float] = deque()
        self._paused_until: dict[Purpose, float] = dict.fromkeys(_PURPOSES, 0.0)
        self._paused_by: dict[Purpose, str] = dict.fromkeys(_PURPOSES, RATE_LIMITED)
        self._today = 0
        self._used_today = 0
        self._order = itertools.count()
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process: after a fork, calls in flight are the parent's."""
        self._process = os.getpid()
        # Re-entrant: the garbage collector may settle an abandoned permit at any moment.
        self._lock = threading.RLock()
        self._in_flight = 0
        self._queues: dict[Purpose, deque[_Waiter]] = {name: deque() for name in _PURPOSES}
        self._alarm: tuple[float, asyncio.AbstractEventLoop] | None = None

    def __repr__(self) -> str:
        return f"Budget(requests={self._requests}, per={self._per:g}, per_day={self._per_day})"

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        """Wait until a request may be sent; see `RequestBudget.acquire`."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            now = _now()
            waiting = any(self._queues.values())
            if not waiting and self._paused_until[purpose] <= now and self._take(now):
                return self._permit()
            waiter = _Waiter(purpose, next(self._order), now)
            self._refuse_beyond(max_wait, purpose, now)
            self._queues[purpose].append(waiter)
            self._dispatch(now)
            if waiter not in self._queues[purpose]:
                return self._permit()
        try:
            async with asyncio.timeout(max_wait):
                await waiter.granted
        except TimeoutError:
            self._withdraw(waiter)
            raise self._refusal(purpose) from None
        # Not in a `finally`: a coroutine that is thrown away with its loop must not get here.
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        return self._permit()

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
    ) -> None:
        """Send nothing for a while; see `RequestBudget.penalize`."""
        with self._lock:
            until = _now() + seconds
            for name in _PURPOSES if purpose is None else (purpose,):
                if until > self._paused_until[name]:
                    self._paused_until[name] = until
                    self._paused_by[name] = code

    # What follows is called with the lock held, but for `_settle`, `_cancel`, `_withdraw`,
    # `_refusal` and `_ring`, which take it.

    def _permit(self) -> _Permit:
        return _Permit(self._settle, self._cancel)

    def _settle(self, rate_limit: RateLimit | None) -> None:
        with self._lock:
            now = _now()
            self._in_flight -= 1
            self._frees.append(now + self._per)
            if rate_limit is not None:
                self._learn(rate_limit, now)
            if any(self._queues.values()):
                self._dispatch(now)

    def _cancel(self) -> None:
        with self._lock:
            self._give_back()
            self._dispatch(_now())

    def _learn(self, rate_limit: RateLimit, now: float) -> None:
        """Count what others have used of the same key: it is gone for one window at most."""
        if rate_limit.limit >= 1:
            self._capacity = min(self._requests, int(rate_limit.limit))
        used = self._in_flight + len(self._frees)
        by_others = int(rate_limit.limit - rate_limit.remaining) - used
        # None where it is negative; no more than matters, whatever a header says.
        self._frees.extend([now + self._per] * min(by_others, self._capacity))

    def _take(self, now: float) -> bool:
        """Take a permit if one is free."""
        while self._frees and self._frees[0] <= now:
            self._frees.popleft()
        if self._in_flight + len(self._frees) >= self._capacity or self._until_tomorrow():
            return False
        self._in_flight += 1
        self._used_today += 1
        return True

    def _give_back(self) -> None:
        self._in_flight = max(0, self._in_flight - 1)
        self._used_today = max(0, self._used_today - 1)

    def _until_tomorrow(self) -> float:
        """Seconds until the next UTC day if this one is used up, else 0."""
        if self._per_day is None:
            return 0.0
        day, elapsed = divmod(self._clock(), _SECONDS_A_DAY)
        if day != self._today:
            self._today, self._used_today = int(day), 0
        return 0.0 if self._used_today < self._per_day else _SECONDS_A_DAY - elapsed

    def _delay(self, now: float, ahead: int = 0) -> float:
        """Seconds, at the least, until a permit is free for one who has so many before him."""
        missing = self._in_flight + len(self._frees) + ahead + 1 - self._capacity
        if missing <= 0:
            delay = 0.0
        elif missing <= len(self._frees):
            delay = self._frees[missing - 1] - now
        else:
            delay = self._per * (1 + (missing - len(self._frees) - 1) // self._capacity)
        return max(delay, self._until_tomorrow())

    def _refuse_beyond(self, max_wait: float | None, purpose: Purpose, now: float) -> None:
        if max_wait is not None and self._shortest_wait(purpose, now) > max_wait:
            raise self._refusal(purpose)

    def _shortest_wait(self, purpose: Purpose, now: float) -> float:
        """Seconds, at the least, that one who comes now has to wait."""
        paused_until = self._paused_until[purpose]
        # Those who are held back for longer than he is let him pass.
        held_back = max(now, paused_until)
        ahead = sum(
            len(queue)
            for name, queue in self._queues.items()
            if name != "poll" and self._paused_until[name] <= held_back
        )
        return max(self._delay(now, ahead), paused_until - now)

    def _refusal(self, purpose: Purpose) -> APIStatusError:
        with self._lock:
            now = _now()
            delay = self._shortest_wait(purpose, now)
            if self._paused_until[purpose] - now >= delay:
                code = self._paused_by[purpose]
                text = f"the service has answered {code}"
            elif self._until_tomorrow():
                code = RATE_LIMITED_DAILY
                text = f"the budget of {self._per_day} requests a UTC day is used up"
            else:
                code = RATE_LIMITED
                text = f"the budget of {self._capacity} requests in {self._per:g} s is used up"
        text += f"; the next request can go in {delay:.1f} s at the earliest"
        return error_class(429, code)(text, status=429, code=code, retry_after=delay)

    def _dispatch(self, now: float) -> None:
        """Hand free permits to those who wait, then see to it that someone comes back."""
        while (waiter := self._next(now)) is not None and self._take(now):
            self._queues[waiter.purpose].popleft()
            waiter.call_soon(waiter.wake)
        self._set_alarm(now)

    def _heads(self) -> list[_Waiter]:
        """Those who are next, one for each purpose; whose loop has ended waits no more."""
        for queue in self._queues.values():
            while queue and queue[0].loop.is_closed():
                queue.popleft()
        return [queue[0] for queue in self._queues.values() if queue]

    def _next(self, now: float) -> _Waiter | None:
        heads = [head for head in self._heads() if self._paused_until[head.purpose] <= now]
        # A poll that has waited long goes in turn: swaps must be seen to end, too.
        return min(heads, key=lambda head: head.rank(now - self._per / 4), default=None)

    def _set_alarm(self, now: float) -> None:
        """Have the loop of one who waits look again at the moment the next permit is free."""
        heads = self._heads()
        if not heads:
            return
        free_in = self._delay(now)
        waits = [(max(free_in, self._paused_until[head.purpose] - now), head) for head in heads]
        delay, head = min(waits, key=lambda wait: wait[0])
        when = now + delay
        if self._alarm is None or when < self._alarm[0] or self._alarm[1].is_closed():
            self._alarm = (when, head.loop)
            head.call_soon(partial(head.loop.call_at, when, self._ring))

    def _ring(self) -> None:
        with self._lock:
            self._alarm = None
            self._dispatch(_now())

    def _withdraw(self, waiter: _Waiter) -> None:
        """One who waited has gone; what he was given meanwhile goes back."""
        with self._lock:
            queue = self._queues[waiter.purpose]
            if waiter in queue:
                queue.remove(waiter)
            else:
                self._give_back()
            # His loop may be about to end, and the alarm with it.
            if self._alarm is not None and self._alarm[1] is waiter.loop:
                self._alarm = None
            self._dispatch(_now())


_shared: dict[bytes, Budget] = {}


def shared_budget(base_url: str, api_key: str) -> Budget:
    """The budget that all clients of one key share in this process.

    Limits belong to the key: two clients with a budget each would together meet a 429.

    Args:
        base_url: Where the API is.
        api_key: The key; only a digest of it is kept.

    Returns:
        The same budget for the same arguments.
    """
    digest = hashlib.sha256(f"{base_url} {api_key}".encode()).digest()
    return _shared.setdefault(digest, Budget())


def forget_shared() -> None:
    """Let every key begin anew: for tests, whose servers do so, too."""
    _shared.clear()


class _Waiter:
    """One call that waits for a permit, on its own event loop."""

    __slots__ = ("granted", "loop", "order", "purpose", "since")

    def __init__(self, purpose: Purpose, order: int, since: float) -> None:
        self.purpose: Purpose = purpose
        self.order = order
        self.since = since
        self.loop = asyncio.get_running_loop()
        self.granted = self.loop.create_future()

    def rank(self, aged: float) -> tuple[int, int]:
        return (int(self.purpose == "poll" and self.since > aged), self.order)

    def wake(self) -> None:
        if not self.granted.done():
            self.granted.set_result(None)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call it in the waiter's own loop."""
        # Loops may be closed at any moment by their own thread.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback)


class _Permit:
    """A permit of `Budget`; only the first word about it counts."""

    __slots__ = ("_on_cancel", "_on_settle", "_open")

    def __init__(
        self, on_settle: Callable[[RateLimit | None], None], on_cancel: Callable[[], None]
    ) -> None:
        self._on_settle = on_settle
        self._on_cancel = on_cancel
        self._open = True

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        if self._open:
            self._open = False
            self._on_settle(rate_limit)

    def cancel(self) -> None:
        if self._open:
            self._open = False
            self._on_cancel()


def _now() -> float:
    """Monotonic seconds by the running loop; all loops of a process share its beginning."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
