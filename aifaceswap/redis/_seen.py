"""Which webhook deliveries were handled, by any process."""

from __future__ import annotations

import secrets
from contextlib import suppress

from aifaceswap.errors import APIConnectionError
from aifaceswap.redis._connection import Connection, Script, UnreachableError
from aifaceswap.webhooks._seen_store import DeliveryClaim, MemorySeen

_DONE = "done"

_CLAIM = Script(
    """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 'new' end
return redis.call('GET', KEYS[1]) == 'done' and 'done' or 'busy'
"""
)

# A claim that has expired can still be committed: the work is done.
_COMMIT = Script(
    """
local owner = redis.call('GET', KEYS[1])
if not owner or owner == ARGV[1] then redis.call('SET', KEYS[1], 'done', 'PX', ARGV[2]) end
return 1
"""
)

_RELEASE = Script(
    "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"
)

_RENEW = Script(
    "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
)


class RedisSeen:
    """A `SeenStore` that all processes share.

    While Redis is unreachable each process remembers its own deliveries, or handles none: the
    service then sends them again.
    """

    def __init__(
        self, connection: Connection, prefix: str, *, lease: float, ttl: float, on_outage: str
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._lease = lease
        self._lease_ms, self._ttl_ms = (max(1, int(1000 * seconds)) for seconds in (lease, ttl))
        self._own = MemorySeen(ttl=ttl) if on_outage == "local" else None

    async def claim(self, delivery: str) -> DeliveryClaim:
        """Reserve a delivery; see `SeenStore.claim`."""
        token = secrets.token_hex(16)
        try:
            state = await self._evaluate(_CLAIM, delivery, token, self._lease_ms)
        except UnreachableError:
            if self._own is None:
                text = "Redis is unreachable; the delivery was not handled"
                raise APIConnectionError(text, sent=False) from None
            return await self._own.claim(delivery)
        if state == "new":
            return DeliveryClaim("new", token, self._lease)
        return DeliveryClaim("done" if state == _DONE else "busy")

    async def commit(self, delivery: str, token: str) -> None:
        """Record that it has been handled; see `SeenStore.commit`."""
        if self._own is not None:
            await self._own.commit(delivery, token)
        with suppress(UnreachableError):
            await self._evaluate(_COMMIT, delivery, token, self._ttl_ms)

    async def release(self, delivery: str, token: str) -> None:
        """Give a claim back; see `SeenStore.release`."""
        if self._own is not None:
            await self._own.release(delivery, token)
        with suppress(UnreachableError):  # the claim expires
            await self._evaluate(_RELEASE, delivery, token)

    async def renew(self, delivery: str, token: str) -> bool:
        """Extend a claim; see `SeenStore.renew`."""
        try:
            return bool(await self._evaluate(_RENEW, delivery, token, self._lease_ms))
        except UnreachableError:
            return True

    async def _evaluate(self, script: Script, delivery: str, *arguments: str | float) -> object:
        keys = [f"{self._prefix}:seen:{delivery}"]
        result = await self._connection.evaluate(script, keys, *arguments)
        return result.decode() if isinstance(result, bytes) else result
