"""One API key for many processes: rate limits, slots and finished swaps, shared through Redis.

::

    import aifaceswap
    from aifaceswap.redis import RedisCoordinator

    shared = RedisCoordinator("redis://localhost:6379/0")
    client = aifaceswap.AsyncClient(coordinator=shared)

It needs the extra ``redis``, and Redis 6.2 or newer, or Valkey.
"""

from __future__ import annotations

try:
    from aifaceswap.redis._coordinator import RedisCoordinator
except ModuleNotFoundError as _error:
    if _error.name is None or _error.name.partition(".")[0] != "redis":
        raise
    _text = "aifaceswap.redis needs the package redis: pip install redis"
    raise ModuleNotFoundError(_text, name="redis") from None

__all__ = ["RedisCoordinator"]
