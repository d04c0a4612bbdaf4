"""The rate limiter's scripts on a real Redis server, with a clock that a test moves."""

from __future__ import annotations

from typing import Any

import attrs

from aifaceswap.redis import _scripts
from support.redis_server import RedisServer

LEASE = 30.0
START = 1_760_000_000.0  # a UTC day with many hours left
KEYS = [f"test:{{scope}}:{name}" for name in _scripts.KEYS]


@attrs.define
class ScriptedClock:
    """Runs the scripts at the moment `now`; `per_day=0` is no limit."""

    client: Any
    requests: int = 5
    per: float = 10.0
    per_day: int = 0
    now: float = START

    @classmethod
    def on(cls, server: RedisServer, **limits: Any) -> ScriptedClock:
        from redis import Redis

        return cls(Redis.from_url(server.url, decode_responses=True), **limits)

    def acquire(
        self, name: str, purpose: str = "create", *, max_wait: float = 1e9, unsure: bool = False
    ) -> tuple[int, float, str]:
        """Ask once: 1 with a permit, 0 or -1 with the seconds and the code."""
        limits = (self.requests, self.per, LEASE, self.per_day, max_wait, int(unsure))
        granted, milliseconds, code = self._run(_scripts.ACQUIRE, name, purpose, *limits)
        return granted, milliseconds / 1000, code

    def settle(
        self, name: str, limit: float | str = "", remaining: float | str = "", reset: Any = ""
    ) -> None:
        limits = (self.requests, self.per, LEASE)
        self._run(_scripts.SETTLE, name, *limits, limit, remaining, reset)

    def cancel(self, name: str) -> None:
        self._run(_scripts.CANCEL, name, self.per, LEASE)

    def penalize(self, seconds: float, code: str = "rate_limited", *purposes: str) -> None:
        self._run(_scripts.PENALIZE, seconds, code, *(purposes or ("create", "read", "poll")))

    def in_use(self) -> int:
        """Permits that are not free."""
        return int(self.client.zcount(KEYS[0], f"({self.now}", "+inf"))

    def waiting(self) -> int:
        """How many queue."""
        return int(self.client.zcard(KEYS[2])) + int(self.client.zcard(KEYS[3]))

    def known(self) -> None:
        """Make the window known: a first request went and came back long ago."""
        assert self.acquire("first")[0] == 1
        self.settle("first")
        self.now += self.per

    def _run(self, script: Any, *arguments: object) -> Any:
        clock = f"{{{int(self.now)}, {round(self.now % 1 * 1e6)}}}"
        source = script.source.replace("redis.call('TIME')", clock)
        return self.client.eval(source, len(KEYS), *KEYS, *arguments)
