"""Whether deliveries are reliable: by those of the swaps that this process waited for."""

from __future__ import annotations

import random

import pytest

from aifaceswap import Swap
from aifaceswap._polling.deliveries import DeliveryTracker


def done(number: int) -> Swap:
    return Swap(id=f"tsk_{number}", status="done", result_url="https://example.com/r.jpg")


def finish(tracker: DeliveryTracker, number: int, *, delivered: bool) -> None:
    """A swap that was waited for finishes, with or without its delivery."""
    if delivered:
        tracker.record_delivered(done(number))
    tracker.record_awaited(f"tsk_{number}")


def test_the_last_eight_must_have_arrived() -> None:
    """One that is missing makes them unreliable until eight in a row have arrived."""
    tracker = DeliveryTracker()
    for number in range(8):
        assert not tracker.are_reliable
        finish(tracker, number, delivered=True)
    assert tracker.are_reliable
    finish(tracker, 8, delivered=False)
    for number in range(9, 17):
        assert not tracker.are_reliable
        finish(tracker, number, delivered=True)
    assert tracker.are_reliable


def test_a_delivery_may_be_late() -> None:
    """It arrives after a poll has seen the end."""
    tracker = DeliveryTracker()
    for number in range(8):
        finish(tracker, number, delivered=number != 3)
    assert not tracker.are_reliable
    tracker.record_delivered(done(3))
    assert tracker.are_reliable


def test_deliveries_of_others_prove_nothing() -> None:
    """With several workers behind one port they arrive at any of them."""
    tracker = DeliveryTracker()
    for number in range(2000):
        tracker.record_delivered(done(number))
    assert not tracker.are_reliable


def test_expected_deliveries_are_reliable_until_one_is_missed() -> None:
    """The caller's word counts as much as eight deliveries."""
    tracker = DeliveryTracker()
    tracker.expect()
    assert tracker.are_reliable
    finish(tracker, 0, delivered=False)
    assert not tracker.are_reliable
    tracker.record_delivered(done(0))
    assert tracker.are_reliable


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_one_of_several_workers_hardly_ever_relies_on_them(workers: int) -> None:
    """A delivery goes to any of them, so that few of a worker's own arrive there."""
    random_worker = random.Random(workers)
    tracker = DeliveryTracker()
    relied = 0
    for number in range(10_000):
        finish(tracker, number, delivered=random_worker.randrange(workers) == 0)
        relied += tracker.are_reliable
    assert relied <= 10_000 * 2 / workers**8 + 20
