"""Finished swaps of one API key: a stream that every process reads while it waits."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Sequence
from typing import Any

from aifaceswap._api import codec
from aifaceswap.models import Swap
from aifaceswap.redis._connection import Connection, UnreachableError

_LENGTH = 1000
_SECONDS_KEPT = 900
_SLEEP = 0.1
_LEAD_SECONDS = 2.0


class RedisEnds:
    """Finished swaps of one API key. While Redis is unreachable each process polls by itself."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._stream, self._lead, self._wanted = (
            f"{prefix}:{name}" for name in ("ends", "lead", "wanted")
        )
        self._owner = uuid.uuid4().hex

    async def publish(self, swaps: Sequence[Swap]) -> None:
        """Pass on swaps that have finished; see `Ends.publish`."""

        async def command(client: Any) -> None:
            async with client.pipeline(transaction=False) as pipe:
                for swap in swaps:
                    body = codec.dumps(codec.unstructure(swap))
                    pipe.xadd(self._stream, {"swap": body}, maxlen=_LENGTH)
                pipe.expire(self._stream, _SECONDS_KEPT)
                await pipe.execute()

        try:
            await self._connection.run(command)
        except UnreachableError:
            return

    async def read(self, after: str = "") -> tuple[Sequence[Swap], str]:
        """Wait a moment for swaps that any process publishes; see `Ends.read`."""

        async def newest(client: Any) -> str:
            entries = await client.xrevrange(self._stream, count=1)
            return _text(entries[0][0]) if entries else "0-0"

        async def later(client: Any) -> Any:
            return await client.xrange(self._stream, min=f"({after}")

        try:
            if not after:
                return [], await self._connection.run(newest)
            entries: Any = await self._connection.run(later)
        except UnreachableError:
            entries = []
        if not entries:
            await asyncio.sleep(_SLEEP)
            return [], after
        swaps = [codec.structure(codec.loads(_swap(fields)), Swap) for _, fields in entries]
        return swaps, _text(entries[-1][0])

    async def lead(self, wanted: Collection[str]) -> Collection[str] | None:
        """Report the swaps that are waited for, and ask to poll; see `Ends.lead`."""

        async def command(client: Any) -> Collection[str] | None:
            now = time.time()
            async with client.pipeline(transaction=False) as pipe:
                if wanted:
                    pipe.zadd(self._wanted, dict.fromkeys(wanted, now + 2 * _LEAD_SECONDS))
                pipe.zremrangebyscore(self._wanted, "-inf", now)
                pipe.expire(self._wanted, _SECONDS_KEPT)
                pipe.set(self._lead, self._owner, nx=True, px=int(_LEAD_SECONDS * 1000))
                pipe.get(self._lead)
                pipe.zrange(self._wanted, 0, -1)
                *_, owner, names = await pipe.execute()
            if owner is None or _text(owner) != self._owner:
                return None
            return [_text(name) for name in names]

        try:
            return await self._connection.run(command)
        except UnreachableError:
            return wanted


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def _swap(fields: dict[Any, Any]) -> bytes:
    (body,) = fields.values()
    return body.encode() if isinstance(body, str) else bytes(body)
