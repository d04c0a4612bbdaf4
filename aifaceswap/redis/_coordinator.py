"""`RedisCoordinator`: what the processes that share an API key know of each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

import attrs

from aifaceswap import _validation
from aifaceswap._limits import (
    MAX_UNFINISHED_SWAPS,
    REQUESTS_PER_DAY,
    REQUESTS_PER_WINDOW,
    WINDOW,
)
from aifaceswap._validation import Secret
from aifaceswap.budget import RequestBudget
from aifaceswap.coordination import Ends, Slots
from aifaceswap.errors import ConfigurationError
from aifaceswap.redis._budget import Limits, RedisBudget
from aifaceswap.redis._connection import MUST_BE, Connection
from aifaceswap.redis._ends import RedisEnds
from aifaceswap.redis._seen import RedisSeen
from aifaceswap.redis._slots import RedisSlots
from aifaceswap.webhooks import SeenStore


class RedisCoordinator:
    """Shares the limits of API keys between processes and machines, through Redis or Valkey.

    Create one in each process, at any time, and give it to every client: it serves any number of
    keys, event loops and threads. All processes must use the same arguments. Connections are
    opened when they are needed, and close with their event loop or in `aclose()`.

    Args:
        url_or_factory: The server's URL, e.g. ``redis://localhost:6379/0``, ``rediss://`` with
            TLS or ``unix://``; or a function without arguments that returns a new
            ``redis.asyncio`` client, e.g. of a Sentinel or a cluster. It is called for each
            event loop, and again after an outage.
        requests: Requests that the service allows a key in a window, 1 or more.
        per: The window's length in seconds, above 0.
        per_day: Requests that the service allows a key in a UTC day. None: no limit.
        slots: Swaps of a key that may be unfinished at once, 1 or more.
        prefix: Begins the name of every key in Redis: visible ASCII without braces.
        on_outage: What calls do while Redis is unreachable. ``"local"``: each process sends one
            request at a time. ``"raise"``: they raise `APIConnectionError`, nothing is sent.
        timeout: Seconds to wait for a response of Redis, above 0.

    Raises:
        ConfigurationError: An argument is not valid.
    """

    def __init__(
        self,
        url_or_factory: str | Callable[[], Any],
        *,
        requests: int = REQUESTS_PER_WINDOW,
        per: float = WINDOW,
        per_day: int | None = REQUESTS_PER_DAY,
        slots: int = MAX_UNFINISHED_SWAPS,
        prefix: str = "aifaceswap",
        on_outage: Literal["local", "raise"] = "local",
        timeout: float = 0.5,
    ) -> None:
        # No frame that an error passes holds the URL's password in clear.
        source = url_or_factory if callable(url_or_factory) else Secret(url_or_factory)
        del url_or_factory
        if isinstance(source, Secret) and source.kind != "str":
            raise ConfigurationError(f"{MUST_BE}; got {source.kind}", field="url_or_factory")
        self._limits = Limits(
            requests=_validation.positive_integer("requests", requests),
            per=_validation.seconds("per", per),
            per_day=None if per_day is None else _validation.positive_integer("per_day", per_day),
        )
        self._number_of_slots = _validation.positive_integer("slots", slots)
        if on_outage not in {"local", "raise"}:
            raise ConfigurationError.for_field("on_outage", on_outage, "must be 'local' or 'raise'")
        self._on_outage = on_outage
        self._prefix = _checked_prefix(prefix)
        self._timeout = _validation.seconds("timeout", timeout)
        self._connection = Connection(source, self._timeout)
        self._budgets: dict[str, RedisBudget] = {}
        self._slots: dict[str, RedisSlots] = {}
        self._ends: dict[str, RedisEnds] = {}

    def __repr__(self) -> str:
        requests, per, per_day = attrs.astuple(self._limits)
        return (
            f"RedisCoordinator(requests={requests}, per={per:g}, per_day={per_day}, "
            f"slots={self._number_of_slots}, prefix={self._prefix!r})"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RedisCoordinator holds connections and cannot be pickled")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def budget(self, scope: str) -> RequestBudget:
        """Return the rate limiter of one API key; see `Coordinator.budget`."""
        if scope not in self._budgets:
            self._budgets[scope] = RedisBudget(
                self._connection, self._prefix_of(scope), self._limits, self._on_outage
            )
        return self._budgets[scope]

    def slots(self, scope: str) -> Slots:
        """Return the slots of one API key; see `Coordinator.slots`."""
        if scope not in self._slots:
            self._slots[scope] = RedisSlots(
                self._connection, self._prefix_of(scope), self._number_of_slots, self._on_outage
            )
        return self._slots[scope]

    def ends(self, scope: str) -> Ends:
        """Return what is seen of the swaps of one API key; see `Coordinator.ends`."""
        if scope not in self._ends:
            self._ends[scope] = RedisEnds(self._connection, self._prefix_of(scope), self._timeout)
        return self._ends[scope]

    def seen(self, *, lease: float = 60.0, ttl: float = 86_400.0) -> SeenStore:
        """Return a store of webhook deliveries, so that each is handled once by all processes.

        It is the ``seen=`` of `webhooks.WebhookApp` and `webhooks.aiohttp_handler`. While Redis
        is unreachable, ``on_outage="local"`` lets each process remember its own deliveries, so
        that one that arrives twice can be handled twice. With ``"raise"`` none is handled, and
        the service sends it again.

        Args:
            lease: Seconds after which another process may handle the delivery of one that was
                killed, above 0.
            ttl: Seconds that a handled delivery is remembered, above 0.

        Returns:
            The store.

        Raises:
            ConfigurationError: An argument is not valid.
        """
        return RedisSeen(
            self._connection,
            self._prefix,
            lease=_validation.seconds("lease", lease),
            ttl=_validation.seconds("ttl", ttl),
            on_outage=self._on_outage,
        )

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._connection.aclose()

    def _prefix_of(self, scope: str) -> str:
        # The braces keep all keys of a scope on one node of a cluster.
        return f"{self._prefix}:{{{scope}}}"


def _checked_prefix(prefix: object) -> str:
    if isinstance(prefix, str) and re.fullmatch(r"[!-z|~]+", prefix):
        return prefix
    reason = "must be visible ASCII without spaces and braces, like 'aifaceswap'"
    raise ConfigurationError.for_field("prefix", prefix, reason)
