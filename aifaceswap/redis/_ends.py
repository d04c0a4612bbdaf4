"""What was seen of the swaps of one API key: a stream that every process reads while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from aifaceswap._api import codec
from aifaceswap.coordination import SwapReport
from aifaceswap.models import Swap
from aifaceswap.redis._connection import Connection, Script, UnreachableError
from aifaceswap.redis._slots import CLOCK

_LENGTH = 1000
_KEPT = 900
# Seconds after which the turn of a process that was killed in the middle of a poll ends.
_TURN = 5.0
# Seconds between two attempts to read while Redis is unreachable.
_PAUSE = 0.25
# Seconds that a read may wait, and the share of the timeout: a late response must not seem an
# outage.
_WAIT = 0.2
_WAIT_SHARE = 0.4

# A finished swap is passed on by the first that sees it: it takes the swap's slot away.
_PUBLISH = Script(
    CLOCK
    + """
local slots, finished, stream = KEYS[1], KEYS[2], KEYS[3]
local origin, kind, age, kept, length = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local swaps = {}
redis.call('ZREMRANGEBYSCORE', finished, '-inf', now)
for index = 6, #ARGV, 3 do
    local id, has_finished, body = ARGV[index], ARGV[index + 1] == '1', ARGV[index + 2]
    if has_finished then
        redis.call('ZADD', finished, now + kept, id)
        local had_slot = redis.call('ZREM', slots, 'swap:' .. id) == 1
        if had_slot or kind == 'delivery' then table.insert(swaps, body) end
    else
        table.insert(swaps, body)
    end
end
redis.call('EXPIRE', finished, kept)
if #swaps == 0 and kind == 'swap' then return 0 end
redis.call('XADD', stream, 'MAXLEN', '~', length, '*', 'origin', origin, 'kind', kind, 'age', age,
    'swaps', '[' .. table.concat(swaps, ',') .. ']')
-- Results expire, and their links are nobody else's concern.
redis.call('XTRIM', stream, 'MINID', string.format('%d', (now - kept) * 1000))
redis.call('EXPIRE', stream, kept)
return 1
"""
)

_BEGIN = Script(
    """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return redis.call('PTTL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
"""
)

_END = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1], '', 'PX', ARGV[2])
else redis.call('DEL', KEYS[1]) end
return 1
"""
)


class RedisEnds:
    """The `Ends` of one API key. While Redis is unreachable each process polls by itself."""

    def __init__(self, connection: Connection, prefix: str, timeout: float) -> None:
        self._connection = connection
        self._wait = max(1, int(1000 * min(_WAIT, _WAIT_SHARE * timeout)))
        self._stream, self._turn = f"{prefix}:ends", f"{prefix}:turn"
        self._keys = [f"{prefix}:slots", f"{prefix}:finished", self._stream]

    async def publish(self, report: SwapReport) -> None:
        """Pass on what was seen of swaps; see `Ends.publish`."""
        kind = "delivery" if report.is_delivery else "swap"
        kind, age = (kind, 0.0) if report.list_age is None else ("list", report.list_age)
        arguments: list[str | float] = [report.origin, kind, age, _KEPT, _LENGTH]
        for swap in report.swaps:
            body = codec.dumps(codec.unstructure(swap)).decode()
            arguments += (swap.id, int(swap.is_finished), body)
        try:
            await self._connection.evaluate(_PUBLISH, self._keys, *arguments)
        except UnreachableError:
            if report.list_age is None:  # the next list shows what this one did
                self._connection.report(_PUBLISH, self._keys, *arguments, max_age=_KEPT)

    async def read(self, position: str, *, wait: bool) -> tuple[Sequence[SwapReport], str]:
        """Read what has been published; see `Ends.read`."""
        after = {self._stream: position or "0-0"}
        block = self._wait if wait else None
        try:
            reply = await self._connection.run(
                lambda client: client.xread(after, count=_LENGTH, block=block)
            )
        except UnreachableError:
            await asyncio.sleep(_PAUSE)
            return [], position
        reports: list[SwapReport] = []
        for entry, fields in _entries(reply):
            reports += _read(fields)
            position = _text(entry)
        return reports, position

    async def begin_poll(self, token: str) -> float:
        """Ask to be the one that polls now; see `Ends.begin_poll`."""
        wait = await self._connection.undo_if_cancelled(
            self._evaluate(_BEGIN, [self._turn], token, int(1000 * _TURN)),
            lambda: self.end_poll(token, 0.0),
        )
        return max(0.0, float(wait or 0) / 1000)

    async def end_poll(self, token: str, pause: float) -> None:
        """End a turn; see `Ends.end_poll`."""
        await self._evaluate(_END, [self._turn], token, int(1000 * pause))

    async def _evaluate(self, script: Script, keys: list[str], *arguments: str | float) -> Any:
        """The result of a script; None while Redis is unreachable."""
        try:
            return await self._connection.evaluate(script, keys, *arguments)
        except UnreachableError:
            return None


def _entries(reply: Any) -> Iterator[tuple[str | bytes, dict[Any, Any]]]:
    """The entries of one stream, in the form of either version of the protocol."""
    streams: Any = reply
    if isinstance(reply, dict):
        streams = streams.items()
    for _, entries in streams or ():
        # With the newer protocol some versions of redis-py put a second list around them.
        nested = bool(entries) and isinstance(entries[0], list)
        yield from entries[0] if nested else entries


def _read(fields: dict[Any, Any]) -> Iterator[SwapReport]:
    """The report of an entry; none if another version of this package wrote it in its own way."""
    entry = {_text(name): _text(value) for name, value in fields.items()}
    try:
        swaps = codec.structure(codec.loads(entry["swaps"].encode()), list[Swap])
        kind, age = entry["kind"], float(entry["age"])
    except (KeyError, ValueError):
        return
    yield SwapReport(
        swaps, entry.get("origin", ""), kind == "delivery", age if kind == "list" else None
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
