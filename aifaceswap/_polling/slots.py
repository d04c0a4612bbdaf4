"""Slots for single swaps: taken before they are created, freed by any process that sees the end."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import asynccontextmanager, suppress

from aifaceswap._limits import MAX_UNFINISHED_SWAPS
from aifaceswap._polling.watcher import Watcher
from aifaceswap.coordination import Slots, SwapReport
from aifaceswap.errors import AIFaceSwapError, ConcurrencyLimitError

# Seconds between two signs of life of one who has a slot and no swap yet.
_RENEWAL = 20.0
# Seconds between two attempts to get a slot, while no end of a swap is seen.
_PAUSE = 0.25
# Seconds after which a slot expires: that of a key which has no swap, and that of a swap that
# nobody has seen finish.
_KEY_LEASE = 60.0
_SWAP_LEASE = 900.0
_REMEMBERED = 1000


class LocalSlots:
    """The `Slots` of one API key in this process, for clients without a coordinator."""

    def __init__(self, number: int = MAX_UNFINISHED_SWAPS) -> None:
        self._number = number
        self._lock = threading.Lock()
        # When the slot of each key or swap expires.
        self._keys: dict[str, float] = {}
        self._swaps: dict[str, float] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()

    async def take(self, name: str) -> Collection[str] | None:
        """Take a slot, if one is free; see `Slots.take`."""
        now = asyncio.get_running_loop().time()
        with self._lock:
            for slots in (self._keys, self._swaps):
                for expired in [one for one, ends in slots.items() if ends <= now]:
                    del slots[expired]
            if name not in self._keys and len(self._keys) + len(self._swaps) >= self._number:
                return list(self._swaps)
            self._keys[name] = now + _KEY_LEASE
        return None

    async def bind(self, name: str, swap_id: str) -> None:
        """Rename a slot: its swap has been created. Swaps without a slot are not counted."""
        with self._lock:
            has_slot = self._keys.pop(name, None) is not None
            if has_slot and swap_id not in self._finished:
                self._swaps[swap_id] = asyncio.get_running_loop().time() + _SWAP_LEASE

    async def free(self, name: str) -> None:
        """Free a slot whose swap was not created; see `Slots.free`."""
        with self._lock:
            self._keys.pop(name, None)

    def publish_soon(self, report: SwapReport) -> None:
        """Free the slots of finished swaps."""
        with self._lock:
            for swap in report.swaps:
                if swap.is_finished:
                    self._swaps.pop(swap.id, None)
                    self._finished[swap.id] = None
            while len(self._finished) > _REMEMBERED:
                self._finished.popitem(last=False)


_local: dict[str, LocalSlots] = {}


def local_slots(scope: str) -> LocalSlots:
    """The slots that all clients of one key share in this process."""
    return _local.setdefault(scope, LocalSlots())


def forget_local() -> None:
    """Free all slots: for tests, whose servers start again."""
    _local.clear()


class HeldSlot:
    """A slot for a swap that is about to be created: kept inside the block until it has one.

    When the block ends without a swap, the slot is given back. Otherwise it is freed when the swap
    has finished.

    Attributes:
        may_count: Whether the service may have created a swap whose id is not known.
    """

    def __init__(self, slots: Slots, name: str) -> None:
        self._slots = slots
        self._name = name
        self._is_bound = False
        self.may_count = False

    async def bind(self, swap_id: str) -> None:
        """Its swap has been created."""
        self._is_bound = True
        await self._slots.bind(self._name, swap_id)

    async def __aenter__(self) -> None:
        self._renewal = asyncio.get_running_loop().create_task(self._renew())

    async def __aexit__(self, *_: object) -> None:
        self._renewal.cancel()
        if not (self._is_bound or self.may_count):
            await self._slots.free(self._name)

    async def _renew(self) -> None:
        while not self._is_bound:
            await asyncio.sleep(_RENEWAL)
            with suppress(AIFaceSwapError):
                await self._slots.take(self._name)


class SwapSlots:
    """Takes slots for a client, and notices which calls fill them.

    Attributes:
        is_shared: Whether other processes share the slots.
    """

    def __init__(self, slots: Slots, watcher: Watcher, *, is_shared: bool) -> None:
        self.is_shared = is_shared
        self._slots = slots
        self._watcher = watcher
        self._held: dict[str, HeldSlot] = {}
        self._lanes: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    @asynccontextmanager
    async def hold(self, name: str, max_wait: float | None) -> AsyncGenerator[None]:
        """Hold a slot while the block runs, and then for as long as its swap is unfinished."""
        held = self._held[name] = await self.acquire(name, max_wait)
        try:
            async with held:
                yield
        finally:
            if self._held.get(name) is held:
                del self._held[name]

    async def acquire(self, name: str, max_wait: float | None = None) -> HeldSlot:
        """Wait for a slot.

        Raises `ConcurrencyLimitError` after `max_wait` seconds.
        """
        lane = self._lane()
        # Those who wait come first.
        if lane.locked() or await self._slots.take(name) is not None:
            try:
                async with asyncio.timeout(max_wait), lane:
                    await self._wait(name)
            except TimeoutError:
                raise _none_free(max_wait or 0.0) from None
        return HeldSlot(self._slots, name)

    async def record_created(self, name: str, swap_id: str) -> None:
        """A call has created a swap: it counts, whether it has a slot or not."""
        held = self._held.get(name) or HeldSlot(self._slots, name)
        await held.bind(swap_id)

    def record_failed(self, name: str, error: BaseException) -> None:
        """A call has not returned a swap, and may have created one."""
        has_proof = isinstance(error, AIFaceSwapError) and not error.may_have_succeeded
        if not has_proof and (held := self._held.get(name)) is not None:
            held.may_count = True

    async def _wait(self, name: str) -> None:
        """Ask again and again, at once when a swap that holds a slot has finished."""
        watches: dict[str, asyncio.Task[None]] = {}
        try:
            while (holders := await self._slots.take(name)) is not None:
                self._watch(watches, holders)
                open_watches = [watch for watch in watches.values() if not watch.done()]
                if open_watches:
                    first = asyncio.FIRST_COMPLETED
                    await asyncio.wait(open_watches, timeout=_PAUSE, return_when=first)
                else:
                    await asyncio.sleep(_PAUSE)
        finally:
            await _end(watches.values())

    def _watch(self, watches: dict[str, asyncio.Task[None]], holders: Collection[str]) -> None:
        """Watch the swaps that hold slots; one whose watch has failed is not watched again."""
        loop = asyncio.get_running_loop()
        for swap_id in watches.keys() - set(holders):
            watches.pop(swap_id).cancel()
        for swap_id in holders:
            if swap_id not in watches:
                watches[swap_id] = loop.create_task(self._watch_one(swap_id))

    async def _watch_one(self, swap_id: str) -> None:
        with suppress(AIFaceSwapError):
            await self._watcher.watch(swap_id)

    def _lane(self) -> asyncio.Lock:
        """Of each event loop one asks for a slot, and the others wait behind it."""
        loop = asyncio.get_running_loop()
        for closed in [one for one in list(self._lanes) if one.is_closed()]:
            self._lanes.pop(closed, None)
        return self._lanes.setdefault(loop, asyncio.Lock())


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _none_free(seconds: float) -> ConcurrencyLimitError:
    return ConcurrencyLimitError(
        f"no slot is free after {seconds:g} s: others have as many unfinished swaps as the service "
        "allows; nothing was sent",
        status=429,
        code="rate_limited_concurrent",
        retry_after=1.0,
    )
