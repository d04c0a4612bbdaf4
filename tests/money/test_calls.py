"""Money in single calls: every fault before and after the commit, in every way to call.

Whatever goes wrong, whatever ends a call names its idempotency key, and the same call with that
key leads to one swap that was paid once. `nox -s money -- calls` runs all cells and prints the
table of the docs; the tests run a sample.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from aifaceswap import AIFaceSwapError, AsyncClient, Client, Swap
from aifaceswap.budget import Permit, Purpose
from aifaceswap.emulator import Emulator, Idempotency, Lag, Limits
from aifaceswap.emulator.faults import ByteOrderMark, Fault, OddFields, RequestAction
from money.test_bulk import ACTIONS
from support.samples import URLS
from support.virtual_time import run_virtual

ALL = os.environ.get("AIFACESWAP_MONEY") == "all"
LIMITS = Limits(per_minute=None, per_day=None, concurrent=10)
MOST_CALLS = 8
KEY = re.compile(r"idempotency key: ([^\s,]+)")
ID = re.compile(r"swap id: (\S+)")

FAULTS: dict[str, Callable[[bool], RequestAction]] = {
    **ACTIONS,
    "odd fields": lambda _: OddFields(),
    "byte-order mark": lambda _: ByteOrderMark(),
}
MOMENTS = {"before the commit": False, "after the commit": True}
# The service's own behaviour beside the fault: slow idempotency, reads that lag behind.
SERVICE: dict[str, Any] = {
    "idempotency": Idempotency(in_progress=3.0, reuse_status=422),
    "lag": Lag(get=2.0, list=2.0),
}

Attempt = Callable[[str | None], Awaitable[Swap]]


class SoftTimeLimit(BaseException):
    """As a job queue raises it in the middle of a job."""


def key_of(error: BaseException) -> str:
    """The idempotency key that the end of a call names."""
    if isinstance(error, AIFaceSwapError):
        assert error.idempotency_key
        return error.idempotency_key
    endings = [error, error.__cause__, error.__context__]
    notes = " ".join(note for end in endings for note in getattr(end, "__notes__", ()))
    found = KEY.search(notes)
    assert found, f"{error!r} names no key: {notes}"
    return found[1]


async def repeat(attempt: Attempt, key: str | None = None) -> Swap:
    """Repeat a call with the key that its end has named, until it returns."""
    for _ in range(MOST_CALLS):
        try:
            return await attempt(key)
        except (AIFaceSwapError, TimeoutError, SoftTimeLimit, asyncio.CancelledError) as error:
            key = key_of(error)
    raise AssertionError(f"not done after {MOST_CALLS} calls")


async def created(client: AsyncClient) -> Swap:
    return await repeat(lambda key: client.swaps.create(**URLS, idempotency_key=key))


async def run(client: AsyncClient) -> Swap:
    return await repeat(lambda key: client.swaps.run(**URLS, idempotency_key=key))


async def cancelled(client: AsyncClient) -> Swap:
    """Cancelled at many moments of the call, each time a little later."""
    delays = iter((0.0, 0.001, 0.002, 0.3, 1.0, 4.0))

    async def attempt(key: str | None) -> Swap:
        task = asyncio.create_task(client.swaps.run(**URLS, idempotency_key=key))
        # Before its first step a task has no key, and has sent nothing.
        await asyncio.sleep(0)
        if (delay := next(delays, None)) is not None:
            await asyncio.sleep(delay)
            task.cancel()
        return await task

    return await repeat(attempt)


async def timed_out(client: AsyncClient) -> Swap:
    """Under `asyncio.timeout()`, with a little more time at each repetition."""
    delays = iter((0.001, 0.002, 0.5, 2.0, 8.0))

    async def attempt(key: str | None) -> Swap:
        async with asyncio.timeout(next(delays, None)):
            return await client.swaps.run(**URLS, idempotency_key=key)

    return await repeat(attempt)


async def interrupted(client: AsyncClient) -> Swap:
    """A foreign exception between two attempts, and then one while the call waits."""
    raised = iter((True, False, True))

    def stop(_: Swap) -> None:
        if next(raised, False):
            raise SoftTimeLimit

    async def attempt(key: str | None) -> Swap:
        return await client.swaps.run(**URLS, idempotency_key=key, on_update=stop)

    return await repeat(attempt)


class Interrupting:
    """A rate limiter that raises a foreign exception once, after the first attempt."""

    def __init__(self) -> None:
        self._count = 0

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        self._count += 1
        if self._count == 2:
            raise SoftTimeLimit
        return self

    def settle(self, rate_limit: object = None) -> None:
        """Nothing is counted."""

    def cancel(self) -> None:
        """Nothing is counted."""

    def penalize(self, seconds: float, *, purpose: Purpose | None = None, code: str = "") -> None:
        """Each call waits after its own 429."""


WAYS: dict[str, Callable[[AsyncClient], Awaitable[Swap]]] = {
    "create()": created,
    "run()": run,
    "cancelled": cancelled,
    "timeout": timed_out,
    "interrupted": interrupted,
}
BLOCKING = ("blocking", "blocking run()", "blocking, by signals")


def blocking(client: Client, way: str) -> Swap:
    """The blocking client, in real time; broken off by a signal handler's exception."""
    key: str | None = None
    call = client.swaps.create if way == "blocking" else client.swaps.run
    delays = iter((0.005, 0.05, 0.3) if way == "blocking, by signals" else ())

    def stop(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimit

    handler = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(MOST_CALLS):
            try:
                signal.setitimer(signal.ITIMER_REAL, next(delays, 0.0))
                swap: Swap = call(**URLS, idempotency_key=key)
            except (AIFaceSwapError, SoftTimeLimit) as error:
                key = key_of(error)
            else:
                return swap
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        signal.signal(signal.SIGALRM, handler)
    raise AssertionError(f"not done after {MOST_CALLS} calls")


def cells() -> Iterator[tuple[str, str, str]]:
    """Every fault, moment and way; in the tests a sample that has each of them."""
    number = 0
    for fault in FAULTS:
        for moment in MOMENTS:
            for way in (*WAYS, *BLOCKING):
                number += 1
                if ALL or (number % 3 == 0 and way in WAYS) or number % 61 == 0:
                    yield fault, moment, way


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, str], Counter[bool]]]:
    """How many cells of each row of the table were as they should be."""
    results: dict[tuple[str, str], Counter[bool]] = {}
    yield results
    if ALL:
        ways = len(WAYS) + len(BLOCKING)
        print("\n\n| fault |", " | ".join(MOMENTS), "|")
        print("| --- |", " | ".join("---" for _ in MOMENTS), "|")
        for fault in FAULTS:
            counts = [results.get((fault, moment), Counter()) for moment in MOMENTS]
            print(f"| {fault} |", " | ".join(f"{count[True]} of {ways}" for count in counts), "|")


# A signal can arrive while Python runs a weak reference's callback, which drops its exception.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("fault", "moment", "way"), [*cells()])
def test_each_call_is_paid_once(
    fault: str, moment: str, way: str, table: dict[tuple[str, str], Counter[bool]]
) -> None:
    """Swaps paid = swaps wanted, and whatever ended the call named its key."""
    count = table.setdefault((fault, moment), Counter())
    count[False] += 1
    action = FAULTS[fault](MOMENTS[moment])
    faults = [Fault("POST /swaps", action, times=2), Fault("GET /swaps*", action)]

    async def cell() -> None:
        async with Emulator(limits=LIMITS, faults=faults, duration=5.0, **SERVICE) as emulator:
            budget = Interrupting() if way == "interrupted" else None
            async with AsyncClient(
                emulator.api_key, base_url=emulator.base_url, budget=budget, timeout=5.0
            ) as client:
                check(emulator, await WAYS[way](client))

    if way in BLOCKING:
        service = {**SERVICE, "lag": Lag(), "idempotency": Idempotency(in_progress=0.3)}
        with (
            Emulator(limits=LIMITS, faults=faults[:1], duration=0.1, **service) as emulator,
            Client(
                emulator.api_key, base_url=emulator.base_url, budget=None, timeout=0.5
            ) as client,
        ):
            check(emulator, blocking(client, way))
    else:
        run_virtual(cell)
    count[False] -= 1
    count[True] += 1


def check(emulator: Emulator, swap: Swap) -> None:
    """There is one swap, which was returned and paid."""
    assert [record.id for record in emulator.swaps] == [swap.id]
