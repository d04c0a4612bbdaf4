"""The rate limiter of one API key for all processes: one Lua script with the server's clock.

A permit frees one window after its response, as in the in-process `Budget`. Permits are a sorted
set of ids and the moments at which they free; a holder that was killed frees its permit when the
lease ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs

from aifaceswap._api.responses import error_class
from aifaceswap._limits import ATTEMPT_TIMEOUT
from aifaceswap.budget import Permit, Purpose
from aifaceswap.errors import APIConnectionError, APIStatusError
from aifaceswap.models import RateLimit
from aifaceswap.redis._connection import Connection, Script, UnreachableError

# Seconds that a request may be in flight before its holder counts as killed.
_LEASE = 2 * ATTEMPT_TIMEOUT
# Seconds between two questions of one waiter: at most.
_LONGEST_SLEEP = 0.25
_LOCAL_SLEEP = 0.02
_NEVER = float("inf")

_CLOCK = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
"""

# Returns {1} with a permit, {0, ms} to ask again after, {-1, ms, code} if max_wait is too short.
# Creations and reads go first, but every fourth permit is for a poll that waits.
_ACQUIRE = Script(
    _CLOCK
    + """
local permits, meta, waiting, polls, alive = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, purpose = ARGV[1], ARGV[2]
local requests, per, lease = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local per_day, max_wait, ahead = tonumber(ARGV[6]), tonumber(ARGV[7]), 0
local queue = purpose == 'poll' and polls or waiting
if redis.call('ZSCORE', permits, id) then return {1, 0, ''} end
redis.call('ZREMRANGEBYSCORE', permits, '-inf', now)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', now - 2)) do
    redis.call('ZREM', waiting, gone)
    redis.call('ZREM', polls, gone)
    redis.call('ZREM', alive, gone)
end
local values = redis.call('HMGET', meta, 'pause', 'code', 'pause_' .. purpose, 'code_' .. purpose,
    'day', 'today', 'limit', 'foreign', 'foreign_until', 'known_until', 'probe_until', 'since_poll')
local function number(index) return tonumber(values[index] or '0') end
local used = redis.call('ZCARD', permits)

local function leave()
    redis.call('ZREM', queue, id)
    redis.call('ZREM', alive, id)
end
local function later(seconds, code)
    if seconds > max_wait then
        leave()
        return {-1, math.ceil(seconds * 1000), code}
    end
    redis.call('ZADD', queue, 'NX', now, id)
    redis.call('ZADD', alive, now, id)
    for _, key in ipairs({queue, alive}) do redis.call('EXPIRE', key, 60) end
    return {0, math.ceil(seconds * 1000), code}
end

if number(1) > now then return later(number(1) - now, values[2]) end
if number(3) > now then return later(number(3) - now, values[4]) end
local day = math.floor(now / 86400)
local today = number(5) == day and number(6) or 0
if per_day > 0 and today >= per_day then
    return later((day + 1) * 86400 - now, 'rate_limited_daily')
end
-- Nobody knows how full the window is: one request goes first, and its headers teach the rest.
if number(10) <= now then
    if number(11) > now then return later(0.02, 'rate_limited') end
    redis.call('HSET', meta, 'probe_until', now + 2)
end

local free = requests - used
if number(9) > now then free = math.min(free, number(7) - number(8) - used) end
local polls_turn = number(12) >= 3 and redis.call('ZCARD', polls) > 0
if purpose == 'poll' then
    ahead = ahead + (redis.call('ZRANK', polls, id) or redis.call('ZCARD', polls))
    if not polls_turn then ahead = ahead + redis.call('ZCARD', waiting) end
else
    ahead = ahead + (redis.call('ZRANK', waiting, id) or redis.call('ZCARD', waiting))
    if polls_turn then ahead = ahead + 1 end
end
if free > ahead then
    leave()
    redis.call('ZADD', permits, now + lease + per, id)
    redis.call('EXPIRE', permits, math.ceil(lease + per) + 60)
    local since = purpose == 'poll' and 0 or number(12) + 1
    redis.call('HSET', meta, 'day', day, 'today', today + 1, 'since_poll', since)
    redis.call('EXPIRE', meta, 172800)
    return {1, 0, ''}
end
-- The permit that frees for this place in the queue; one in flight frees a window from now.
local index = math.max(0, math.min(ahead - math.max(free, 0), used - 1))
local next = redis.call('ZRANGE', permits, index, index, 'WITHSCORES')[2]
local frees = next and math.min(tonumber(next), now + per) or now + per
if number(9) > now then frees = math.max(frees, math.min(number(9), now + per)) end
return later(math.max(frees - now, 0.005), 'rate_limited')
"""
)

_SETTLE = Script(
    _CLOCK
    + """
local permits, meta = KEYS[1], KEYS[2]
local per, limit, remaining = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reset = tonumber(ARGV[5])
redis.call('ZADD', permits, now + per, ARGV[1])
redis.call('EXPIRE', permits, math.ceil(per) + 120)
redis.call('HSET', meta, 'known_until', now + per)
if limit > 0 then
    -- Others use the key too. A header only ever lowers what may be sent.
    local foreign = math.max(0, limit - remaining - redis.call('ZCARD', permits))
    redis.call('HSET', meta, 'limit', limit, 'foreign', foreign, 'foreign_until', now + reset)
end
redis.call('EXPIRE', meta, 172800)
return 1
"""
)

_CANCEL = Script(
    """
for _, key in ipairs({KEYS[3], KEYS[4], KEYS[5]}) do redis.call('ZREM', key, ARGV[1]) end
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[2], 'today', -1) end
return 1
"""
)

_PENALIZE = Script(
    _CLOCK
    + """
local field = ARGV[2] == '' and 'pause' or 'pause_' .. ARGV[2]
local code = ARGV[2] == '' and 'code' or 'code_' .. ARGV[2]
local ends = now + tonumber(ARGV[1])
if ends > tonumber(redis.call('HGET', KEYS[1], field) or '0') then
    redis.call('HSET', KEYS[1], field, ends, code, ARGV[3])
end
redis.call('EXPIRE', KEYS[1], 172800)
return 1
"""
)


@attrs.frozen(kw_only=True)
class Limits:
    """What the service allows one key."""

    requests: int
    per: float
    per_day: int | None


class RedisBudget:
    """A `RequestBudget` that all processes share."""

    def __init__(self, connection: Connection, prefix: str, limits: Limits, on_outage: str) -> None:
        self._connection = connection
        self._keys = [
            f"{prefix}:{name}" for name in ("permits", "meta", "waiting", "polls", "alive")
        ]
        self._limits = limits
        self._fallback = _OneAtATime() if on_outage == "local" else None
        self._lanes: dict[tuple[asyncio.AbstractEventLoop, bool], _Lane] = {}

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        """Wait until a request may be sent; see `RequestBudget.acquire`."""
        permit = _SharedPermit(self, os.urandom(8).hex())
        ends = _NEVER if max_wait is None else time.monotonic() + max_wait
        try:
            # Only the first of this process asks; the others wait behind it.
            async with self._lane(purpose).turn(ends) as lane:
                while (wait := await self._ask(permit.id, purpose, ends)) is not None:
                    lane.free_at = time.monotonic() + wait
                    await asyncio.sleep(min(wait, _LONGEST_SLEEP))
        except UnreachableError:
            return await self._without_redis(ends)
        except BaseException:
            # The script may still run: the permit that it takes goes back after it.
            permit.cancel()
            raise
        return permit

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = "rate_limited"
    ) -> None:
        """Send nothing for a while; see `RequestBudget.penalize`."""
        if self._fallback is not None:
            self._fallback.penalize(seconds)
        self._start(_PENALIZE, [self._keys[1]], seconds, purpose or "", code)

    def settle(self, permit: str, rate_limit: RateLimit | None) -> None:
        """The response of a permit's request has come."""
        limit, remaining, reset = self._learned(rate_limit)
        self._start(_SETTLE, self._keys[:2], permit, self._limits.per, limit, remaining, reset)

    def cancel(self, permit: str) -> None:
        """The request of a permit was never sent."""
        self._start(_CANCEL, self._keys, permit)

    async def _ask(self, permit: str, purpose: Purpose, ends: float) -> float | None:
        """None with a permit, else the seconds after which to ask again."""
        limits = self._limits
        left = min(max(0.0, ends - time.monotonic()), 1e9)
        service = (limits.requests, limits.per, _LEASE, limits.per_day or 0)
        granted, milliseconds, code = await self._connection.evaluate(
            _ACQUIRE, self._keys, permit, purpose, *service, left
        )
        seconds = milliseconds / 1000
        if granted < 0:
            raise _rejection(code.decode() if isinstance(code, bytes) else code, seconds)
        return None if granted else seconds

    def _learned(self, rate_limit: RateLimit | None) -> tuple[float, float, float]:
        """Limit, remaining and seconds to the reset, of headers that are about this window."""
        if rate_limit is None or rate_limit.reset is None:
            return 0, 0, 0.0
        reset = rate_limit.reset - time.time()
        if not -1.0 <= reset <= self._limits.per + 1.0:
            return 0, 0, 0.0
        return rate_limit.limit, rate_limit.remaining, max(0.0, reset)

    async def _without_redis(self, ends: float) -> Permit:
        if self._fallback is None:
            raise APIConnectionError("Redis is unreachable; nothing was sent", sent=False)
        return await self._fallback.acquire(ends)

    def _start(self, script: Script, keys: list[str], *arguments: str | float) -> None:
        """Run a script in the background; what is lost with an outage ends with its lease."""

        async def run() -> None:
            with suppress(UnreachableError):
                await self._connection.evaluate(script, keys, *arguments)

        self._connection.start(run())

    def _lane(self, purpose: Purpose) -> _Lane:
        loop = asyncio.get_running_loop()
        for closed in [key for key in self._lanes if key[0].is_closed()]:
            del self._lanes[closed]
        return self._lanes.setdefault((loop, purpose == "poll"), _Lane())


def _rejection(code: str, seconds: float) -> APIStatusError:
    return error_class(429, code)(
        f"no request is free for {seconds:.1f} s; nothing was sent",
        status=429,
        code=code,
        retry_after=seconds,
    )


@attrs.frozen(eq=False)
class _SharedPermit:
    _budget: RedisBudget
    id: str

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        self._budget.settle(self.id, rate_limit)

    def cancel(self) -> None:
        self._budget.cancel(self.id)


class _Lane:
    """Those of one event loop who wait for a permit, in order."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        # When the first in the lane expects its permit; the others wait longer.
        self.free_at = 0.0

    @asynccontextmanager
    async def turn(self, ends: float) -> AsyncGenerator[_Lane]:
        """Wait to be the first; reject at once who cannot be in time."""
        now = time.monotonic()
        if self._lock.locked() and self.free_at > ends:
            raise _rejection("rate_limited", self.free_at - now)
        try:
            async with asyncio.timeout(None if ends == _NEVER else ends - now):
                await self._lock.acquire()
        except TimeoutError:
            raise _rejection("rate_limited", max(self.free_at - now, 1.0)) from None
        try:
            yield self
        finally:
            self._lock.release()


class _OneAtATime:
    """While Redis is unreachable: one request in flight in this process."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._paused_until = 0.0

    async def acquire(self, ends: float) -> Permit:
        while time.monotonic() < self._paused_until or not self._busy.acquire(blocking=False):
            if time.monotonic() > ends:
                raise _rejection("rate_limited", 1.0)
            await asyncio.sleep(_LOCAL_SLEEP)
        return _LocalPermit(self._busy)

    def penalize(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


@attrs.define(eq=False)
class _LocalPermit:
    _busy: threading.Lock
    _is_over: bool = False

    def settle(self, rate_limit: RateLimit | None = None) -> None:
        self.cancel()

    def cancel(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._busy.release()
