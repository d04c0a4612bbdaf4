"""Slots of one API key for all processes: one for each unfinished swap.

A slot is named by the idempotency key until the swap exists, then by the swap's id. It outlives
the process that took it, because the service counts the swap and not the process. Any
process that sees that the swap has finished frees the slot.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from aifaceswap.errors import APIConnectionError
from aifaceswap.redis._connection import Connection, Script, UnreachableError

# Seconds after which an idempotency key loses its slot: its process was killed before the swap
# was created, and nobody has tried again.
_KEY_LEASE = 60
# Seconds after which a swap loses its slot: the service ends a swap after 300, and its queue
# comes on top.
_SWAP_LEASE = 900

CLOCK = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
"""

# Returns 1 and nothing else with a slot, otherwise 0 and the names that hold them.
_TAKE = Script(
    CLOCK
    + """
local slots, finished, swap_id = KEYS[1], KEYS[2], redis.call('GET', KEYS[3])
local name, number, lease = 'key:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
if swap_id then
    local holds = redis.call('ZSCORE', slots, 'swap:' .. swap_id)
    local ended = tonumber(redis.call('ZSCORE', finished, swap_id) or '0') > now
    if holds or ended then return {1} end
end
if not redis.call('ZSCORE', slots, name) and redis.call('ZCARD', slots) >= number then
    return {0, unpack(redis.call('ZRANGE', slots, 0, -1))}
end
redis.call('ZADD', slots, now + lease, name)
if redis.call('TTL', slots) < lease then redis.call('EXPIRE', slots, lease) end
return {1}
"""
)

# A repeated request may return a swap that has finished since.
_BIND = Script(
    CLOCK
    + """
local slots, finished, bound = KEYS[1], KEYS[2], KEYS[3]
local name, swap_id, lease = 'key:' .. ARGV[1], ARGV[2], tonumber(ARGV[3])
redis.call('ZREM', slots, name)
redis.call('SET', bound, swap_id, 'EX', lease)
if tonumber(redis.call('ZSCORE', finished, swap_id) or '0') > now then return 0 end
redis.call('ZADD', slots, now + lease, 'swap:' .. swap_id)
redis.call('EXPIRE', slots, lease)
return 1
"""
)

_FREE = Script("return redis.call('ZREM', KEYS[1], 'key:' .. ARGV[1])")


class RedisSlots:
    """The `Slots` of one API key.

    While Redis is unreachable every slot counts as free, or nothing is sent.
    """

    def __init__(self, connection: Connection, prefix: str, number: int, on_outage: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self._number = number
        self._must_be_reachable = on_outage == "raise"

    async def take(self, name: str) -> Collection[str] | None:
        """Take a slot, if one is free; see `Slots.take`."""
        return await self._connection.undo_if_cancelled(self._take(name), lambda: self.free(name))

    async def bind(self, name: str, swap_id: str) -> None:
        """Rename a slot: its swap has been created; see `Slots.bind`."""
        with suppress(UnreachableError):  # the swap was charged
            await self._connection.evaluate(_BIND, self._keys(name), name, swap_id, _SWAP_LEASE)

    async def free(self, name: str) -> None:
        """Free a slot whose swap was not created; see `Slots.free`."""
        with suppress(UnreachableError):
            await self._connection.evaluate(_FREE, self._keys(name)[:1], name)

    async def _take(self, name: str) -> Collection[str] | None:
        arguments = (name, self._number, _KEY_LEASE)
        try:
            reply = await self._connection.evaluate(_TAKE, self._keys(name), *arguments)
        except UnreachableError:
            if self._must_be_reachable:
                text = "Redis is unreachable; nothing was sent"
                raise APIConnectionError(text, sent=False) from None
            return None
        is_taken, *holders = reply
        return None if is_taken else [swap_id for one in holders for swap_id in _swap_id(one)]

    def _keys(self, name: str) -> list[str]:
        return [f"{self._prefix}:slots", f"{self._prefix}:finished", f"{self._prefix}:key:{name}"]


def _swap_id(holder: str | bytes) -> list[str]:
    """The id of the swap that holds a slot; empty if an idempotency key does."""
    name = holder if isinstance(holder, str) else holder.decode()
    kind, _, swap_id = name.partition(":")
    return [swap_id] if kind == "swap" else []
