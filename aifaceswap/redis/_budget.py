"""The rate limiter of one API key for all processes that share it through Redis."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from functools import partial

import attrs

from aifaceswap._api.responses import RATE_LIMITED
from aifaceswap._limits import ATTEMPT_TIMEOUT
from aifaceswap.budget import Permit, Purpose
from aifaceswap.errors import APIConnectionError, RateLimitError
from aifaceswap.models import RateLimit
from aifaceswap.redis import _scripts
from aifaceswap.redis._connection import Connection, Script, UnreachableError
from aifaceswap.redis._lane import Lane
from aifaceswap.redis._local import LocalBudget

# Seconds after which a request that was not settled counts as sent: its holder was killed.
_LEASE = ATTEMPT_TIMEOUT
_LONGEST_SLEEP = 0.25  # seconds between two questions of one who waits
_LOCAL_SLEEP = 0.02
_PURPOSES: tuple[Purpose, ...] = ("create", "read", "poll")
_NEVER = float("inf")
_LARGEST_WAIT = 1e9

_log = logging.getLogger("aifaceswap")


@attrs.frozen(kw_only=True)
class Limits:
    """What the service allows one key."""

    requests: int
    per: float
    per_day: int | None


class RedisBudget:
    """A `RequestBudget` in Redis: the rules of `Budget`, for all processes."""

    def __init__(self, connection: Connection, prefix: str, limits: Limits, on_outage: str) -> None:
        self._connection = connection
        self._keys = [f"{prefix}:{name}" for name in _scripts.KEYS]
        self._limits = limits
        self._max_age = limits.per + _LEASE
        self._lanes: dict[tuple[asyncio.AbstractEventLoop, Purpose], Lane] = {}
        self._penalties: set[asyncio.Task[None]] = set()
        self._local: LocalBudget | None = None
        if on_outage == "local":
            self._local = LocalBudget(limits.requests, limits.per, limits.per_day)
        # Requests were sent that Redis does not know of.
        self._is_unsure = False

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        """Wait until a request may be sent; see `RequestBudget.acquire`."""
        loop = asyncio.get_running_loop()
        ends = _NEVER if max_wait is None else loop.time() + max_wait
        lane = self._lane(loop, purpose)
        turn = await lane.enter(ends)
        try:
            permit = _RedisPermit(self, self._limits, loop)
            return await self._granted(lane, _Request(purpose, ends, loop, permit))
        finally:
            lane.leave(turn)

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = RATE_LIMITED
    ) -> None:
        """Send nothing for a while; see `RequestBudget.penalize`."""
        if self._local is not None and self._connection.is_down:
            self._local.budget.penalize(seconds, purpose=purpose, code=code)
            return
        purposes = _PURPOSES if purpose is None else (purpose,)
        penalty = self._connection.start(self._pause(seconds, code, purposes))
        self._penalties.add(penalty)
        penalty.add_done_callback(self._penalties.discard)
        if seconds > self._limits.per:
            with suppress(Exception):  # an error of a log handler ends no call
                _log.warning(
                    "429 %s: %s requests of all processes are paused for %.0f s",
                    code,
                    purpose or "all",
                    seconds,
                )

    def report_in(
        self, loop: asyncio.AbstractEventLoop, script: Script, *arguments: str | float
    ) -> None:
        """Settle or cancel a permit of a loop in the background; from any thread."""
        report = partial(
            self._connection.report, script, self._keys, *arguments, max_age=self._max_age
        )
        if loop is _running_loop():
            report()
            return
        # A loop that has closed leaves the permit to its lease.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(report)

    async def _granted(self, lane: Lane, request: _Request) -> Permit:
        """Ask until there is a permit."""
        try:
            while True:
                reply = await self._ask(request)
                if isinstance(reply, UnreachableError):
                    reply = await self._without_redis(request, reply)
                if not isinstance(reply, _Later):
                    return reply
                if reply.is_too_late or request.seconds_left() < 0:
                    break
                if reply.code:
                    lane.hold(reply.seconds, reply.code)
                await asyncio.sleep(min(reply.seconds, _LONGEST_SLEEP))
        except BaseException:
            # The script may still run: the permit that it takes is given back.
            request.permit.cancel()
            raise
        request.permit.cancel()
        raise lane.rejection(reply.code or RATE_LIMITED, reply.seconds)

    async def _ask(self, request: _Request) -> Permit | _Later | UnreachableError:
        if penalties := {task for task in self._penalties if task.get_loop() is request.loop}:
            await asyncio.wait(penalties)
        permit, limits, is_unsure = request.permit, self._limits, self._is_unsure
        permit.is_over = False
        try:
            granted, milliseconds, code = await self._connection.evaluate(
                _scripts.ACQUIRE,
                self._keys,
                permit.id,
                request.purpose,
                limits.requests,
                limits.per,
                _LEASE,
                limits.per_day or 0,
                min(max(0.0, request.seconds_left()), _LARGEST_WAIT),
                int(is_unsure),
            )
        except UnreachableError as outage:
            return outage
        if is_unsure:
            self._is_unsure = False
        if granted > 0:
            return permit
        # A rejected request has left the queue.
        permit.is_over = granted < 0
        text = code if isinstance(code, str) else code.decode()
        return _Later(milliseconds / 1000, text, is_too_late=granted < 0)

    async def _pause(self, seconds: float, code: str, purposes: tuple[Purpose, ...]) -> None:
        with suppress(UnreachableError):
            await self._connection.evaluate(_scripts.PENALIZE, self._keys, seconds, code, *purposes)

    async def _without_redis(self, request: _Request, outage: UnreachableError) -> Permit | _Later:
        """A permit of this process alone."""
        if outage.may_have_run:
            request.permit.cancel()
        request.permit = _RedisPermit(self, self._limits, request.loop)
        if self._local is None:
            text = (
                f"the rate limits cannot be shared: Redis is unreachable ({outage}); nothing was "
                "sent. Check Redis and try again, or use on_outage='local'"
            )
            raise APIConnectionError(text, sent=False)
        try:
            permit = await self._local.try_acquire(request.purpose)
        except RateLimitError as rejection:
            if request.seconds_left() < (rejection.retry_after or 0.0):
                raise
            permit = None
        if permit is None:
            return _Later(_LOCAL_SLEEP, "")
        self._is_unsure = True
        return permit

    def _lane(self, loop: asyncio.AbstractEventLoop, purpose: Purpose) -> Lane:
        lane = self._lanes.get((loop, purpose))
        if lane is None:
            for key in [key for key in list(self._lanes) if key[0].is_closed()]:
                self._lanes.pop(key, None)
            lane = self._lanes[loop, purpose] = Lane(self._limits.requests, self._limits.per)
        return lane


@attrs.define(eq=False)
class _Request:
    """One that waits for a permit."""

    purpose: Purpose
    ends: float
    loop: asyncio.AbstractEventLoop
    permit: _RedisPermit

    def seconds_left(self) -> float:
        return self.ends - self.loop.time()


@attrs.frozen
class _Later:
    """No permit yet: when to ask again, and the limit that is met."""

    seconds: float
    code: str
    is_too_late: bool = False


class _RedisPermit:
    """A permit of `RedisBudget`; only the first call of its methods counts."""

    __slots__ = ("_budget", "_limits", "_loop", "id", "is_over")

    def __init__(
        self, budget: RedisBudget, limits: Limits, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._budget = budget
        self._limits = limits
        self._loop = loop
        # Made here: the same question asked twice takes one permit.
        self.id = os.urandom(12).hex()
        # Nothing to give back: it was not asked for, or was given back.
        self.is_over = True

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        learned: tuple[str | float, ...] = ("", "", "")
        if rate_limit is not None:
            reset = "" if rate_limit.reset is None else rate_limit.reset
            learned = (rate_limit.limit, rate_limit.remaining, reset)
        limits = self._limits
        self._report(_scripts.SETTLE, limits.requests, limits.per, _LEASE, *learned)

    def cancel(self) -> None:
        self._report(_scripts.CANCEL, self._limits.per, _LEASE)

    def _report(self, script: Script, *arguments: str | float) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._budget.report_in(self._loop, script, self.id, *arguments)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
