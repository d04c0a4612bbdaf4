"""Slots of one API key for all processes: one for each unfinished swap.

A slot is named by the idempotency key until the swap exists, then by the swap's id. It outlives
the process that took it, because the service counts the swap and not the process: whoever sees
that the swap has finished frees the slot.
"""

from __future__ import annotations

import asyncio
import random
import time

from aifaceswap.redis._connection import Connection, Script, UnreachableError

# Seconds after which a slot counts as forgotten: the service ends a swap after 300, and its
# queue comes on top.
_LEASE = 900.0
# Seconds for which finished swaps are remembered: a repeated request may return one of them.
_FINISHED = 900.0
_SLEEP = 0.1

_CLOCK = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
"""

_TAKE = Script(
    _CLOCK
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2])
then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])))
return 1
"""
)

# The slot of a key becomes that of its swap, unless the swap is known to have finished.
_BIND = Script(
    _CLOCK
    + """
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])))
return 1
"""
)

_FINISH = Script(
    _CLOCK
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
for index = 2, #ARGV do
    redis.call('ZREM', KEYS[1], ARGV[index])
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[1]), ARGV[index])
end
redis.call('EXPIRE', KEYS[2], math.ceil(tonumber(ARGV[1])))
return 1
"""
)


class RedisSlots:
    """The slots of one API key. While Redis is unreachable every slot counts as free."""

    def __init__(self, connection: Connection, prefix: str, slots: int) -> None:
        self._connection = connection
        self._keys = [f"{prefix}:slots", f"{prefix}:finished"]
        self._slots = slots

    async def take(self, name: str, *, max_wait: float | None = None) -> bool:
        """Wait for a slot; False if none is free in time. The holder of a name has one already."""
        ends = float("inf") if max_wait is None else time.monotonic() + max_wait
        while not await self._try(name):
            if time.monotonic() >= ends:
                return False
            # Without the jitter, processes that wait would all ask at the same moments.
            await asyncio.sleep(_SLEEP * random.uniform(0.5, 1.5))  # noqa: S311
        return True

    async def bind(self, name: str, swap_id: str) -> None:
        """Rename the slot of an idempotency key to that of its swap."""
        await self._evaluate(_BIND, name, swap_id, _LEASE)

    async def free(self, *names: str) -> None:
        """Free slots: swaps that have finished, or keys whose swap was never created."""
        if names:
            await self._evaluate(_FINISH, _FINISHED, *names)

    async def _try(self, name: str) -> bool:
        return bool(await self._evaluate(_TAKE, name, self._slots, _LEASE))

    async def _evaluate(self, script: Script, *arguments: str | float) -> object:
        try:
            return await self._connection.evaluate(script, self._keys, *arguments)
        except UnreachableError:
            return 1
