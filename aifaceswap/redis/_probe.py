"""What a Redis server is like, for the command line: whether it can be used, and how well."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final, cast
from uuid import uuid4

import attrs
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - not a subclass of Python's own
)

from aifaceswap.errors import ConfigurationError

# Every command that this package sends; run by a script, which needs the same permissions.
_COMMANDS: Final = """\
TIME|SET k 1 PX 9000 NX|GET k|EXPIRE k 9|PEXPIRE k 9000|TTL k|PTTL k|DEL k
HSET k f 1|HGET k f|HMGET k f|HINCRBY k f 1|HDEL k f|DEL k
ZADD k 1 m|ZSCORE k m|ZCARD k|ZRANK k m|ZCOUNT k 0 1|ZRANGE k 0 1|ZRANGEBYSCORE k 0 1
ZREMRANGEBYSCORE k 0 0|ZREM k m|DEL k
XADD k MAXLEN ~ 9 * f 1|XTRIM k MAXLEN 9|XREAD COUNT 1 STREAMS k 0|DEL k"""

_SCRIPT: Final = """
local denied = {}
for line in ARGV[1]:gmatch('[^|\\n]+') do
    local words = {}
    for word in line:gmatch('%S+') do words[#words + 1] = word == 'k' and KEYS[1] or word end
    local reply = redis.pcall(unpack(words))
    if type(reply) == 'table' and reply.err then denied[#denied + 1] = words[1] end
end
return denied
"""

_REJECTED: Final = "it rejected the user name or the password"
# The first class and word that fit count.
_REASONS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (MovedError, "", "it is a node of a cluster, which the command line does not support"),
    (AuthenticationError, "", _REJECTED),
    (RedisError, "AUTH", _REJECTED),  # asked with a command that is not AUTH
    (NoPermissionError, "", "its user must not run PING and TIME"),
    (BusyLoadingError, "", "it is still loading its data"),
    (ResponseError, "READONLY", "it is a read-only replica"),
    (RedisError, "DB index", "it has no database with this number"),
    (InvalidResponse, "", "what responds there is not a Redis server"),
)


class UnusableServerError(Exception):
    """The server cannot be used; the message says why, without the URL."""


@attrs.frozen
class ServerReport:
    """What a server said of itself.

    Attributes:
        version: Its version; empty if it is not known.
        seconds: How long a round trip took.
        skew: Seconds by which its clock is ahead of ours.
        policy: Which keys it evicts when its memory is full; None if it is not known.
        max_memory: Its memory limit in bytes; 0: none.
        denied: The commands that this user must not run.
    """

    version: str
    seconds: float
    skew: float
    policy: str | None
    max_memory: int
    denied: tuple[str, ...]


async def probe(url: str, *, timeout: float, prefix: str = "aifaceswap") -> ServerReport:
    """Connect to a server and inspect it.

    Args:
        url: The URL of the server.
        timeout: Seconds for each command.
        prefix: The beginning of the names of keys.

    Returns:
        What the server is like.

    Raises:
        ConfigurationError: The URL is not one of a Redis server.
        UnusableServerError: It did not respond as a server that can be used.
    """
    client = _client(url, timeout)
    try:
        return await _inspect(client, prefix)
    except (RedisError, OSError) as error:
        raise UnusableServerError(_describe(error, timeout)) from None
    finally:
        await client.aclose()


def _client(url: str, timeout: float) -> Any:
    try:
        return cast("Any", Redis).from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
    except (ValueError, TypeError, AttributeError):
        # Not the URL itself: it can have a password.
        text = "redis must be a URL like redis://127.0.0.1:6379/0, rediss://… or unix://…"
        raise ConfigurationError(text, field="redis") from None


async def _inspect(client: Any, prefix: str) -> ServerReport:
    await client.ping()
    began, now = time.monotonic(), time.time()
    seconds, microseconds = await client.time()
    took = time.monotonic() - began
    info = await _info(client)
    if info.get("role") == "slave":
        raise ResponseError("READONLY")
    return ServerReport(
        version=str(info.get("valkey_version") or info.get("redis_version") or ""),
        seconds=took,
        skew=seconds + microseconds / 1e6 - (now + took / 2),
        policy=info.get("maxmemory_policy"),
        max_memory=int(info.get("maxmemory") or 0),
        denied=await _denied(client, prefix),
    )


async def _info(client: Any) -> Mapping[str, Any]:
    try:
        return cast("Mapping[str, Any]", await client.info())
    except NoPermissionError:
        return {}


async def _denied(client: Any, prefix: str) -> tuple[str, ...]:
    key = f"{prefix}:{{probe}}:{uuid4()}"
    try:
        found: list[str] = await client.eval(_SCRIPT, 1, key, _COMMANDS)
    except NoPermissionError as error:
        return (f"keys {prefix}:*",) if "key" in str(error) else ("EVAL",)
    try:
        # What the server says of a script that it does not know is not of interest.
        await client.evalsha("0" * 40, 0)
    except NoPermissionError:
        found.append("EVALSHA")
    except ResponseError:
        pass
    return tuple(dict.fromkeys(found))


def _describe(error: Exception, timeout: float) -> str:
    """Why a server cannot be used, in our own words."""
    for kind, mark, reason in _REASONS:
        if isinstance(error, kind) and mark in str(error):
            return reason
    if isinstance(error, TimeoutError):
        return f"no response within {timeout:g} s"
    cause = error.__cause__ or error.__context__
    number = cause.errno or 0 if isinstance(cause, OSError) else 0
    words = os.strerror(number) if number > 0 else getattr(cause, "strerror", None)
    return f"no connection: {words or error}"
