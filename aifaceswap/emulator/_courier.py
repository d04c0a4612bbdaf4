"""Posts webhook deliveries when they are due."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import attrs
from yarl import URL

from ._api import encode
from ._outbox import DeliveryAttempt
from .clock import TICK

if TYPE_CHECKING:
    from ._api import Api
    from ._outbox import Delivery
    from .clock import Clock

#: Seconds of the event loop that a receiver has for its answer.
TIMEOUT: Final = 10.0

_AT_ONCE = 20


@attrs.define(eq=False)
class Courier:
    """One task that sleeps until a delivery is due, and one for each attempt under way."""

    api: Api
    clock: Clock
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _under_way: int = attrs.field(default=0, init=False)
    _quiet: asyncio.Condition = attrs.field(factory=asyncio.Condition, init=False)
    _places: asyncio.Semaphore = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Deliver until cancelled."""
        self.api.outbox.on_change = self._changed.set
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            while True:
                self._changed.clear()
                for delivery in self._take_due():
                    group.create_task(self._attempt(session, delivery))
                await self._notify()
                await self._wait()

    def _take_due(self) -> list[Delivery]:
        with self.api.lock:
            taken = self.api.outbox.take_due(self.clock.now())
        self._under_way += len(taken)
        return taken

    async def _wait(self) -> None:
        due = self.api.outbox.next_due()
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._changed.wait())]
        if due < math.inf:
            waits.append(asyncio.create_task(self.clock.sleep_until(due)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(waits)

    async def _attempt(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        try:
            async with self._places:
                attempt = await self._post(session, delivery)
            with self.api.lock:
                self.api.outbox.finish_attempt(delivery, attempt, self.clock.now())
        finally:
            self._under_way -= 1
        await self._notify()

    async def _post(self, session: aiohttp.ClientSession, delivery: Delivery) -> DeliveryAttempt:
        now = self.clock.now()
        delivery.body = delivery.body or self._make_body(delivery, now)
        headers, status, error = delivery.headers(now), None, None
        target = delivery.url or ""
        try:
            async with session.post(
                URL(target, encoded=target.isascii()),
                data=delivery.body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        return DeliveryAttempt(now, headers, status, error)

    def _make_body(self, delivery: Delivery, now: float) -> bytes:
        return encode({"event": delivery.event, **self.api.view(delivery.swap, now)})

    async def _notify(self) -> None:
        async with self._quiet:
            self._quiet.notify_all()

    async def settle(self) -> None:
        """Return when every delivery that is due has been attempted."""
        async with self._quiet:
            await self._quiet.wait_for(self._is_quiet)

    def _is_quiet(self) -> bool:
        due = self.api.outbox.next_due() <= self.clock.now() + TICK
        return not due and not self._under_way


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
