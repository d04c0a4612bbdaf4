"""Slots: what is held, what is doubtful, and how doubtful ones are probed; in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from aifaceswap.bulk._slots import Slot, Slots


async def soon(slots: Slots, *, first: bool = False) -> Slot | None:
    """A slot that is free within a moment, or None."""
    try:
        async with asyncio.timeout(0.01):
            return await slots.acquire(first=first)
    except TimeoutError:
        return None


async def taken(slots: Slots, number: int) -> list[Slot]:
    return [await slots.acquire() for _ in range(number)]


async def test_as_many_as_the_run_may_have() -> None:
    """The next one waits for one that is released."""
    slots = Slots(2, 10)
    first, _ = await taken(slots, 2)
    assert await soon(slots) is None
    first.release()
    assert await soon(slots) is not None


async def test_swaps_of_others_count_against_the_limit_of_the_key_alone() -> None:
    """A run that may have one swap has it although others have one, too."""
    slots = Slots(1, 10)
    others = [slots.hold(own=False) for _ in range(9)]
    (own,) = await taken(slots, 1)
    own.release()
    slots.hold(own=False)
    assert await soon(slots) is None
    others[0].release()
    assert await soon(slots) is not None


async def test_doubtful_slots_are_probed_one_at_a_time() -> None:
    """Each that is accepted was free; one that is refused makes the next probe wait."""
    slots = Slots(2, 2)
    for slot in await taken(slots, 2):
        slot.doubt()
    probe = await slots.acquire()
    assert probe.is_probe
    assert await soon(slots) is None
    probe.accepted()
    again = await slots.acquire()
    assert again.is_probe
    again.refused(0.0)
    assert await soon(slots) is None
    began = asyncio.get_running_loop().time()
    third = await slots.acquire()
    assert third.is_probe
    assert 1.5 < asyncio.get_running_loop().time() - began < 3


async def test_refusals_back_off_to_a_minute_and_obey_retry_after() -> None:
    """The service is asked less and less often whether a slot is free."""
    slots = Slots(1, 1)
    (slot,) = await taken(slots, 1)
    slot.doubt()
    clock = asyncio.get_running_loop().time
    waits: list[float] = []
    for retry_after in (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 90.0):
        slot = await slots.acquire()
        began = clock()
        slot.refused(retry_after)
        slot = await slots.acquire()
        waits.append(round(clock() - began))
        slot.release()
    assert waits == [2, 4, 8, 16, 32, 60, 90]


async def test_a_slot_that_others_took_becomes_doubtful() -> None:
    """The run has one less, until a probe finds one free."""
    slots = Slots(2, 2)
    one, two = await taken(slots, 2)
    one.refused(1.0)
    assert await soon(slots) is None
    two.release()
    probe = await slots.acquire(first=True)
    assert not probe.is_probe


async def test_a_doubtful_swap_that_finishes_frees_its_slot() -> None:
    """No probe is needed then."""
    slots = Slots(1, 1)
    (slot,) = await taken(slots, 1)
    slot.doubt_in(5.0)
    await asyncio.sleep(6)
    slot.release()
    assert not (await slots.acquire()).is_probe


async def test_a_slot_that_is_released_in_time_is_never_doubted() -> None:
    """Its timer ends with it."""
    slots = Slots(1, 1)
    (slot,) = await taken(slots, 1)
    slot.doubt_in(5.0)
    slot.release()
    (other,) = await taken(slots, 1)
    await asyncio.sleep(10)
    assert await soon(slots) is None
    other.release()


@pytest.mark.parametrize("at_the_last_moment", [False, True])
async def test_a_cancelled_acquire_leaks_nothing(*, at_the_last_moment: bool) -> None:
    """Even if the slot was granted in the same moment."""
    slots = Slots(1, 1)
    (slot,) = await taken(slots, 1)
    waiting = asyncio.ensure_future(slots.acquire())
    await asyncio.sleep(0)
    if at_the_last_moment:
        slot.release()
        waiting.cancel()
    else:
        waiting.cancel()
        slot.release()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await soon(slots) is not None


async def test_who_lost_a_slot_comes_first() -> None:
    """Rows that were begun are finished before new ones."""
    slots = Slots(1, 1)
    (slot,) = await taken(slots, 1)
    order: list[str] = []

    async def wait(name: str, *, first: bool) -> None:
        (await slots.acquire(first=first)).release()
        order.append(name)

    tasks = [asyncio.ensure_future(wait("new", first=False))]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(wait("begun", first=True)))
    await asyncio.sleep(0)
    slot.release()
    await asyncio.gather(*tasks)
    assert order == ["begun", "new"]
