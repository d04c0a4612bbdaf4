"""What ends of swaps that other processes wait for say about the next poll."""

from __future__ import annotations

from aifaceswap._polling.schedule import OtherSwaps, PollSchedule


def test_swaps_of_others_say_how_long_swaps_take() -> None:
    """They began between two lists, and ended after the last one that showed them."""
    schedule = PollSchedule()
    others = OtherSwaps(schedule)
    others.see_list([], 100.0)
    others.see_list(["tsk_1", "tsk_2"], 102.0)
    assert others.began_at() == [101.0, 101.0]
    others.see_list(["tsk_2"], 110.0)
    others.see_end("tsk_2", 112.0)

    assert schedule.typical_duration == 10.0
    assert others.began_at() == []


def test_an_end_that_was_seen_late_says_nothing() -> None:
    """Nor does that of a swap which no list has shown."""
    schedule = PollSchedule()
    others = OtherSwaps(schedule)
    others.see_end("tsk_1", 100.0)
    others.see_list(["tsk_2"], 100.0)
    others.see_end("tsk_2", 130.0)

    assert schedule.typical_duration == 0.0
