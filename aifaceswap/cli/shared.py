"""The Redis server of `--redis`, which other processes with the same API key share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aifaceswap._limits import REDIS_VARIABLE
from aifaceswap.budget import RequestBudget
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.rendering import printable
from aifaceswap.coordination import Coordinator, Ends, Slots
from aifaceswap.errors import ConfigurationError

if TYPE_CHECKING:
    from aifaceswap.redis._probe import ServerReport

#: What to do about a server that cannot be used.
ADVICE = f"Start the server, or correct --redis ({REDIS_VARIABLE})."
_INSTALL = "Install it: pip install redis"
_TIMEOUT = 5.0


class LimitedCoordinator:
    """A coordinator whose rate limiter is wrapped in another one."""

    def __init__(self, inner: Coordinator, limit: Callable[[RequestBudget], RequestBudget]) -> None:
        self._inner = inner
        self._limit = limit

    def budget(self, scope: str) -> RequestBudget:
        """Return the wrapped rate limiter of one API key."""
        return self._limit(self._inner.budget(scope))

    def slots(self, scope: str) -> Slots:
        """Return the slots of one API key."""
        return self._inner.slots(scope)

    def ends(self, scope: str) -> Ends:
        """Return the finished swaps of one API key."""
        return self._inner.ends(scope)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


@asynccontextmanager
async def open_coordinator(
    context: CommandContext, limit: Callable[[RequestBudget], RequestBudget] | None = None
) -> AsyncGenerator[Coordinator | None]:
    """Connect to the server, if there is one, and share the key's limits through it.

    `limit` wraps the rate limiter in another one.
    """
    if context.redis is None:
        yield None
        return
    report = await inspect(context.redis)
    if report.denied:
        raise CommandError(*denied(context.redis, report))
    from aifaceswap.redis import RedisCoordinator  # noqa: PLC0415 - an extra

    coordinator: Coordinator = RedisCoordinator(context.redis)
    if limit is not None:
        coordinator = LimitedCoordinator(coordinator, limit)
    try:
        yield coordinator
    finally:
        await coordinator.aclose()


async def inspect(url: str) -> ServerReport:
    """Connect to a server, and report what it is like."""
    try:
        from aifaceswap.redis._probe import UnusableServerError, probe  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise CommandError("--redis needs the package redis", _INSTALL) from None
    try:
        return await probe(url, timeout=_TIMEOUT)
    except ConfigurationError as error:
        raise CommandError(f"--{error.message}", ADVICE) from None
    except UnusableServerError as error:
        raise CommandError(f"Redis at {name_of(url)} cannot be used: {error}", ADVICE) from None


def denied(url: str, report: ServerReport) -> tuple[str, str]:
    """What a user must not do on a server, and what to do about it."""
    commands = ", ".join(report.denied)
    return (
        f"Redis at {name_of(url)} denies its user what is needed: {commands}",
        "Grant them: ACL SETUSER <user> ~aifaceswap:* +@all -@admin -@dangerous +info",
    )


def name_of(url: str) -> str:
    """Where a server is, without user name and password."""
    parts = urlsplit(url)
    return printable(f"{parts.netloc.rpartition('@')[2]}{parts.path}")
