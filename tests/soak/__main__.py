"""A web app for 24 simulated hours: `nox -s soak`, or `python -m soak [hours]`.

Two hundred handlers create swaps and wait for them, in bursts, some cancelled, one request in
twenty with a fault; webhooks come every other hour. Client, receiver and emulator run in one
loop of virtual time, over real sockets. At the end nothing may be left.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from aifaceswap import AIFaceSwapError, AsyncClient, Budget, RateLimitError, Swap, WebhookEvent
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import (
    BadSignature,
    Body,
    Close,
    CloudflarePage,
    Drop,
    Duplicate,
    Fault,
    Late,
    Latency,
    RequestAction,
    Reset,
    Stall,
    Status,
    Truncate,
    WebhookAction,
)
from aifaceswap.webhooks import WebhookApp
from bench.harness import Table, Target
from support.hooks import serve_asgi
from support.samples import KEY, URLS
from support.virtual_time import run_virtual

HANDLERS = 200
HOUR = 3600.0
DURATION = 20.0  # seconds that a swap takes
FAULTS = 0.05  # share of requests, and of deliveries
TIMEOUT = 300.0
# A polling interval, a poll that does not respond, and a window until a permit is free.
BOUND = 15.0 + 10.0 + 60.0
REQUEST_FAULTS: tuple[RequestAction, ...] = (
    *(Status(500), Status(503, retry_after=2), Status(429, "rate_limited", retry_after=1)),
    *(CloudflarePage(524), Latency(3), Stall(), Reset(), Reset(commit=False)),
    *(Close(), Truncate(), Body()),
)
WEBHOOK_FAULTS: tuple[WebhookAction, ...] = (Drop(), Late(30), Duplicate(), BadSignature())


@attrs.define
class Relay:
    """The receiver must exist before the emulator, and the client after it."""

    client: AsyncClient | None = None

    def deliver(self, event: WebhookEvent) -> None:
        if self.client is not None:
            self.client.deliver(event)


@attrs.define
class Report:
    """What has happened."""

    endings: Counter[str] = attrs.field(factory=Counter[str])
    lateness: list[float] = attrs.field(factory=list[float])
    statuses: Counter[int] = attrs.field(factory=Counter[int])
    limited: int = 0
    created: int = 0


@attrs.frozen
class Held:
    """What the process holds."""

    tasks: int
    descriptors: int
    permits: int
    objects: int


@attrs.define
class WebApp:
    """Handlers that serve visitors of one client."""

    client: AsyncClient
    emulator: Emulator
    report: Report
    until: float
    random: random.Random = attrs.field(factory=lambda: random.Random(1))
    burst: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def serve(self) -> None:
        """One visitor after another; sometimes all come at once."""
        while (left := self.until - now()) > 0:
            pause = min(left, self.random.expovariate(1 / 900))
            try:
                async with asyncio.timeout(pause):
                    await self.burst.wait()
            except TimeoutError:
                pass
            if now() < self.until:
                await self.visit()

    async def visit(self) -> None:
        """One swap; every tenth visitor leaves before it has finished."""
        hour = int((self.until - now()) // HOUR)
        hook = "https://shop.example.com/hook" if hour % 2 else None
        leaves_after = self.random.uniform(0, 25) if self.random.random() < 0.1 else None
        try:
            async with asyncio.timeout(leaves_after):
                swap = await self.client.swaps.create(**URLS, webhook_url=hook)
                self.report.created += 1
                swap = await self.client.swaps.wait(swap, timeout=TIMEOUT)
        except RateLimitError:
            self.report.endings["rejected by the rate limiter"] += 1
        except AIFaceSwapError as error:
            self.report.endings[type(error).__name__] += 1
        except TimeoutError:
            self.report.endings["cancelled"] += 1
        else:
            self.report.endings["done"] += 1
            self.report.lateness.append(self.seconds_since_end(swap))

    def seconds_since_end(self, swap: Swap) -> float:
        assert swap.created_at is not None
        return self.emulator.clock.now() - swap.created_at.timestamp() - DURATION

    async def crowd(self) -> None:
        """Every half hour all handlers get a visitor at once."""
        while now() + 1800 < self.until:
            await asyncio.sleep(1800)
            burst, self.burst = self.burst, asyncio.Event()
            burst.set()

    async def count(self) -> None:
        """Read the emulator's log before it forgets."""
        seen = 0.0
        while now() < self.until + 60:
            await asyncio.sleep(120)
            records = [record for record in self.emulator.requests if record.at > seen]
            for record in records:
                self.report.statuses[record.status] += 1
                self.report.limited += record.status == 429 and record.fault is None
            seen = max((record.at for record in records), default=seen)


def now() -> float:
    return asyncio.get_running_loop().time()


def held(budget: Budget) -> Held:
    gc.collect()
    ours = Counter(str(type(one).__module__).split(".emulator")[0] for one in gc.get_objects())
    package = [name for name in ours if name.startswith("aifaceswap.")]
    return Held(
        tasks=len(asyncio.all_tasks()),
        descriptors=len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0,
        permits=len(budget._window.in_flight),
        objects=sum(ours[name] for name in package),
    )


@asynccontextmanager
async def world(report: Report, seconds: float) -> AsyncIterator[tuple[WebApp, Budget]]:
    relay, began = Relay(), now()
    requests = [Fault("*", one, rate=FAULTS / len(REQUEST_FAULTS)) for one in REQUEST_FAULTS]
    hooks = [Fault("webhook", one, rate=FAULTS / len(WEBHOOK_FAULTS)) for one in WEBHOOK_FAULTS]
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(serve_asgi(WebhookApp(None, KEY, client=relay)))
        emulator = await stack.enter_async_context(
            Emulator(
                api_key=KEY,
                duration=DURATION,
                credits=1e9,
                limits=Limits(per_day=None, concurrent=None),
                faults=[*requests, *hooks],
                deliver_to=f"http://127.0.0.1:{receiver.port}",
            )
        )
        budget = Budget(per_day=None, clock=emulator.clock.now)
        client = AsyncClient(KEY, base_url=emulator.base_url, budget=budget, max_wait=60)
        relay.client = await stack.enter_async_context(client)
        yield WebApp(client, emulator, report, began + seconds), budget


async def soak(hours: float, report: Report) -> tuple[Held, Held]:
    """What the process holds before the first visitor, and a minute after the last."""
    async with world(report, hours * HOUR) as (app, budget):
        await app.visit()
        await app.client.aclose()
        before = held(budget)
        counting = asyncio.ensure_future(app.count())
        await asyncio.gather(app.crowd(), *(app.serve() for _ in range(HANDLERS)))
        await counting
        await app.client.aclose()
        await asyncio.sleep(120)
        return before, held(budget)


def main(hours: float) -> None:
    """Print what was done, how late, and what is left."""
    report, began = Report(), time.perf_counter()
    before, after = run_virtual(soak, hours, report)
    seconds = time.perf_counter() - began
    late = sorted(report.lateness)
    rows: list[tuple[str, str | float]] = [
        ("swaps created", report.created),
        *((f"visits: {how}", number) for how, number in report.endings.most_common()),
        ("requests", sum(report.statuses.values())),
        ("429 of the limits", report.limited),
        ("waits later than their swap: median", f"{late[len(late) // 2]:.1f} s"),
        ("99 of 100", f"{late[len(late) * 99 // 100]:.1f} s"),
        ("latest", f"{late[-1]:.1f} s"),
        *(
            (f"{name}, before and after", f"{start} / {getattr(after, name)}")
            for name, start in attrs.asdict(before).items()
        ),
        ("real time", f"{seconds:.0f} s"),
    ]
    Table(
        f"{hours:g} simulated hours of a web app with {HANDLERS} handlers",
        ("", ""),
        rows,
        targets=[
            Target("429 of the limits", report.limited, 0),
            Target("latest wait, seconds", late[-1], BOUND),
            Target("tasks left", after.tasks - before.tasks, 0),
            Target("descriptors left", after.descriptors - before.descriptors, 0),
            Target("permits left", after.permits, 0),
            Target("objects of the client left", after.objects - before.objects, 3000),
        ],
    ).print()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 24.0)
