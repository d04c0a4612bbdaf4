"""One of several workers that share a store of the page about webhooks.

``python seen_worker.py KIND PLACE LOG SEED``: deliveries come again until each has been handled.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

from aifaceswap import WebhookEvent, webhooks
from aifaceswap.webhooks import SeenStore

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
BLOCK = re.compile(r"^```py(?:thon)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY = "key_test_123"
DELIVERIES = 30
# Long enough for a busy machine: a claim that is not renewed in time is handled twice.
LEASE = 5.0


def store(kind: str, place: str) -> SeenStore:
    """The store that the page shows, or that of a coordinator."""
    if kind == "redis":
        from aifaceswap.redis import RedisCoordinator

        return RedisCoordinator(place, timeout=5).seen(lease=LEASE)
    (code,) = (
        block for block in BLOCK.findall(PAGE.read_text("utf-8")) if "class DatabaseSeen" in block
    )
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(code.partition("\n\n\nseen = ")[0], names)
    return names["DatabaseSeen"](place, LEASE)  # type: ignore[no-any-return]


async def main(kind: str, place: str, log: str, seed: str) -> None:
    chance = random.Random(seed)

    async def handler(event: WebhookEvent) -> None:
        note("begins", event.swap.id)
        # One takes longer than the lease.
        is_long = event.swap.id == "tsk_7"
        await asyncio.sleep(1.2 * LEASE if is_long else chance.uniform(0, 0.1))
        if chance.random() < 0.1:
            note("fails", event.swap.id)
            raise ZeroDivisionError
        note("ends", event.swap.id)

    def note(what: str, swap_id: str) -> None:
        with open(log, "a") as file:
            file.write(f"{seed} {what} {swap_id}\n")

    receiver = webhooks.WebhookApp(handler, KEY, seen=store(kind, place))._receiver
    # Twice each, in any order.
    waiting = [number for number in range(DELIVERIES) for _ in range(2)]
    chance.shuffle(waiting)
    print("ready", flush=True)

    async def deliver(number: int) -> None:
        body = b'{"event":"swap.completed","id":"tsk_%d"}' % number
        until = time.monotonic() + 60
        while time.monotonic() < until:
            verdict = await receiver.receive(body, webhooks.sign(body, KEY))
            if verdict.status == 204:
                return
            await asyncio.sleep(chance.uniform(0.02, 0.1))
        note("never", f"tsk_{number}")

    async def work() -> None:
        while waiting:
            await deliver(waiting.pop())

    await asyncio.gather(*(work() for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
