"""Posts webhook deliveries when they are due."""

from __future__ import annotations

import asyncio
import functools
import json
import math
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import attrs
from yarl import URL

from aifaceswap.emulator._actions import BadSignature, ClockSkew, Duplicate, OddFields
from aifaceswap.emulator._server.receivers import LocalReceiver, WebhookPost
from aifaceswap.emulator._service.alterations import change_fields, skew_swaps
from aifaceswap.emulator._service.api import encode
from aifaceswap.emulator._service.delivery_queue import SIGNATURE_HEADER, DeliveryAttempt, sign
from aifaceswap.emulator._times import TICK

if TYPE_CHECKING:
    from aifaceswap.emulator._server.server import Frontend
    from aifaceswap.emulator._service.api import Api
    from aifaceswap.emulator._service.delivery_queue import Delivery
    from aifaceswap.emulator.faults import WebhookAction

#: Seconds of the event loop that a receiver has for its response.
TIMEOUT: Final = 10.0

_AT_ONCE = 20


@attrs.define(eq=False)
class WebhookSender:
    """One task that sleeps until a delivery is due, and one for each attempt in progress."""

    frontend: Frontend
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _attempts: set[asyncio.Task[None]] = attrs.field(factory=set[asyncio.Task[None]], init=False)
    _quiet: asyncio.Condition = attrs.field(factory=asyncio.Condition, init=False)
    _places: asyncio.Semaphore = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Deliver until cancelled."""
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
                self._start_due(session, group)
                async with self._quiet:
                    self._quiet.notify_all()
                await self._wait()

    def wake(self) -> None:
        """Check again what is due; to be called in the loop."""
        self._changed.set()

    def drop_all(self) -> None:
        """Cancel the attempts in progress; to be called in the loop."""
        for task in self._attempts:
            task.cancel()
        self.wake()

    def _start_due(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        api = self.frontend.api
        with api.lock:
            api.queue.on_change = self.wake
            taken = api.queue.take_due(self.frontend.clock.now())
        for delivery, action in taken:
            task = group.create_task(self._attempt(session, api, delivery, action))
            self._attempts.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        self.wake()

    async def _wait(self) -> None:
        due = self.frontend.api.queue.next_due()
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._changed.wait())]
        if due < math.inf:
            waits.append(asyncio.create_task(self.frontend.clock.sleep_until(due)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(waits)

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        api: Api,
        delivery: Delivery,
        action: WebhookAction | None,
    ) -> None:
        async with self._places:
            now = self.frontend.clock.now()
            delivery.body = delivery.body or make_body(api, delivery, now)
            headers, body = _prepare(delivery, action, now)
            post = functools.partial(
                _post, session, api.queue.deliver_to, delivery.url or "", headers, body
            )
            status, error = await post()
            if isinstance(action, Duplicate):
                await post()
        attempt = DeliveryAttempt(now, headers, status, error, action)
        with api.lock:
            api.queue.finish_attempt(delivery, attempt, self.frontend.clock.now())

    async def settle(self) -> None:
        """Return when every delivery that is due has been attempted."""
        async with self._quiet:
            await self._quiet.wait_for(self._is_quiet)

    def _is_quiet(self) -> bool:
        due = self.frontend.api.queue.next_due() <= self.frontend.clock.now() + TICK
        return not due and not self._attempts


def make_body(api: Api, delivery: Delivery, now: float) -> bytes:
    """What is posted: the event and the swap as it is now."""
    return encode({"event": delivery.event, **api.view(delivery.swap, now, delivery.swap.origin)})


def _prepare(
    delivery: Delivery, action: WebhookAction | None, now: float
) -> tuple[tuple[tuple[str, str], ...], bytes]:
    key, body = delivery.swap.owner.api_key, delivery.body
    match action:
        case BadSignature():
            key = f"not {key}"
        case ClockSkew(seconds):
            now += seconds
            body = encode(skew_swaps(json.loads(body), seconds))
        case OddFields():
            body = encode(change_fields(action, json.loads(body)))
        case _:
            pass
    signature = sign(key, body, int(now))
    return (("Content-Type", "application/json"), (SIGNATURE_HEADER, signature)), body


async def _post(
    session: aiohttp.ClientSession,
    receiver: object,
    url: str,
    headers: tuple[tuple[str, str], ...],
    body: bytes,
) -> tuple[int | None, str | None]:
    if isinstance(receiver, LocalReceiver):
        return await _hand_over(receiver, WebhookPost(url, dict(headers), body))
    try:
        async with session.post(
            URL(url, encoded=url.isascii()), data=body, headers=headers, allow_redirects=False
        ) as response:
            return response.status, None
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as failure:
        return None, f"{type(failure).__name__}: {failure}"


async def _hand_over(
    receiver: LocalReceiver, delivery: WebhookPost
) -> tuple[int | None, str | None]:
    try:
        async with asyncio.timeout(TIMEOUT):
            return await receiver.post(delivery), None
    except Exception as failure:
        return None, f"{type(failure).__name__}: {failure}"


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
