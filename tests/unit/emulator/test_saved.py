"""The state as a file: what goes in comes out, and what is damaged is told by line and field."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aifaceswap import webhooks
from aifaceswap.emulator import Emulator, Fault, Limits, RealClock, VirtualClock, faults
from support.emulator_receiver import Receiver, create
from support.emulator_wire import creation, exchange, raw
from support.emulator_world import SWAP

if TYPE_CHECKING:
    from pathlib import Path


async def live(emulator: Emulator) -> None:
    """Leave something of everything in the state."""
    emulator.add_key("key_b", Limits(per_minute=2, concurrent=None))
    emulator.add_key("key_c")
    emulator.revoke_key("key_c")
    emulator.top_up(0.5)
    await exchange(emulator, creation("k1"))
    await create(emulator, source_url="https://example.com/fails.jpg", metadata={"a": ["ü", None]})
    await create(emulator, source_url="https://example.com/forever.jpg", target_face_index=2)
    body = json.dumps({**SWAP, "source_url": "https://example.com/no-credits.jpg"}).encode()
    head = f"Content-Length: {len(body)}", "Content-Type: application/json"
    await exchange(emulator, raw(body, *head, "Idempotency-Key: k2"))
    emulator.advance(2)
    await create(emulator, type="gif", enable_face_enhancer=True)
    emulator.advance(1)
    await emulator.settle()


async def look(emulator: Emulator) -> list[Any]:
    """Everything that can be seen from outside."""
    seen: list[Any] = [emulator.balance, emulator.clock.now(), emulator.swaps]
    for key in ("key_emulator", "key_b", "key_c"):
        for path in ("/me", "/swaps?limit=2"):
            request = raw(method="GET", path=f"/api/v1{path}")
            _, headers, body = await exchange(
                emulator, request.replace(b"key_emulator", key.encode())
            )
            seen.append((headers, body))
    repeated = await exchange(emulator, creation("k1"))
    return [*seen, repeated]


async def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Swaps, lists, cursors, keys, counters, refusals, credits and time, as if nothing had been."""
    path = tmp_path / "state.json"
    async with (
        Receiver([500]).serve() as receiver,
        Emulator(clock=VirtualClock(), seed=3, deliver_to=receiver.origin) as first,
    ):
        await live(first)
        first.save(path)
        async with Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as second:
            second.load(path)
            with_other_port = second.origin, first.origin
            told = [
                json.loads(json.dumps(each, default=repr).replace(*with_other_port))
                for each in (await look(second), await look(first))
            ]
            assert told[0] == told[1]

            received = len(receiver.received)
            for emulator in (first, second):
                emulator.advance(1000)
                await emulator.settle()
            assert (len(receiver.received) - received) % 2 == 0
            deliveries = [
                [(each.id, each.swap_id, each.state, each.body) for each in emulator.deliveries]
                for emulator in (first, second)
            ]
            assert [each[:3] for each in deliveries[0]] == [each[:3] for each in deliveries[1]]
            assert {state for _, _, state, _ in deliveries[1]} == {"delivered"}


async def test_a_refusal_is_remembered_over_the_file(tmp_path: Path) -> None:
    """A 402 repeats with its key; another body under it conflicts."""
    path = tmp_path / "state.json"
    async with Emulator(clock=VirtualClock(), credits=0) as emulator:
        assert (await exchange(emulator, creation("k")))[0] == 402
        emulator.save(path)
        emulator.reset(credits=5)
        assert (await exchange(emulator, creation("k")))[0] == 201
        emulator.load(path)
        emulator.top_up(5)
        assert (await exchange(emulator, creation("k")))[0] == 402
        other = creation("k").replace(b"face.jpg", b"fade.jpg")
        assert (await exchange(emulator, other))[0] == 409


async def test_deliveries_go_on_where_they_were(tmp_path: Path) -> None:
    """A planned one comes at its time, a refused one is retried, a held back one is made."""
    path = tmp_path / "state.json"
    async with Receiver([500]).serve() as receiver:
        script = [Fault("webhook", faults.Reorder(), nth=2)]
        async with Emulator(
            clock=VirtualClock(), deliver_to=receiver.origin, faults=script
        ) as emulator:
            await create(emulator)
            emulator.advance(3)
            await emulator.settle()
            await create(emulator, source_url="https://example.com/instant.jpg")
            await emulator.settle()
            await create(emulator)
            emulator.save(path)
        async with Emulator(clock=VirtualClock(), deliver_to=receiver.origin) as emulator:
            emulator.load(path)
            for seconds, count in ((0, 2), (3, 3), (2, 4), (10_000, 4)):
                emulator.advance(seconds)
                await emulator.settle()
                assert len(receiver.received) == count
            for _, headers, body in receiver.received:
                now = float(headers["x-aifaceswap-signature"][2:12])
                signature = headers["x-aifaceswap-signature"]
                event = webhooks.parse(body, signature, ["key_emulator"], now=now)
                assert event.event == "swap.completed"


async def test_pending_deliveries_without_a_receiver_are_undeliverable(tmp_path: Path) -> None:
    """As they would be, had they begun there; one that was undeliverable stays so."""
    path = tmp_path / "state.json"
    async with Emulator(clock=VirtualClock(), deliver_to="http://127.0.0.1:9") as emulator:
        await create(emulator)
        emulator.advance(3)
        await emulator.settle()
        emulator.save(path)
    async with Emulator(clock=VirtualClock()) as emulator:
        emulator.load(path)
        assert [each.state for each in emulator.deliveries] == ["undeliverable"]
        emulator.save(path)
    emulator = Emulator(clock=VirtualClock(), deliver_to="http://127.0.0.1:9")
    emulator.load(path)
    assert [each.url for each in emulator.deliveries] == [None]


async def test_a_failed_swap_is_refunded_once(tmp_path: Path) -> None:
    """Whether it ended before the file was written, or afterwards."""
    path = tmp_path / "state.json"
    async with Emulator(clock=VirtualClock()) as emulator:
        await create(emulator, source_url="https://example.com/fails.jpg")
        for seconds, balance in ((0, 999), (3, 1000), (3, 1000)):
            emulator.advance(seconds)
            emulator.save(path)
            emulator.load(path)
            assert emulator.balance == balance


async def test_faults_and_requests_are_no_part_of_the_state(tmp_path: Path) -> None:
    """The faults stay as they are, with their counters; the record of requests begins anew."""
    path = tmp_path / "state.json"
    async with Emulator(clock=VirtualClock()) as emulator:
        emulator.save(path)
        emulator.add_fault(Fault("*", faults.Status(500), times=None))
        await exchange(emulator, creation())
        emulator.load(path)
        assert emulator.requests == ()
        assert (await exchange(emulator, creation()))[0] == 500
        assert [record.struck for record in emulator.faults] == [2]


def test_a_real_clock_never_goes_back_to_a_file(tmp_path: Path) -> None:
    """What was saved ahead of the wall clock goes on from there, what lies behind from now."""
    path = tmp_path / "state.json"
    for start, ahead in ((9e9, True), (1e9, False)):
        Emulator(clock=VirtualClock(start=start)).save(path)
        clock = RealClock()
        Emulator(clock=clock).load(path)
        assert (clock.now() >= 9e9) == ahead
        assert clock.now() > 1.7e9


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """A failed write leaves the old file, and nothing beside it."""
    path = tmp_path / "state.json"
    emulator = Emulator(clock=VirtualClock())
    emulator.save(path)
    old = path.read_bytes()
    emulator.advance(1)
    with pytest.raises(OSError, match="Not a directory"):
        emulator.save(path / "x")
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        emulator.save(target)
    assert path.read_bytes() == old
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "state.json"]


STATE = """{
 "version": 1,
 "now": 1767225600.0,
 "credits": 1000,
 "keys": [
  {"api_key": "key_a", "recent": [1767225599.0]},
  {"api_key": "key_b", "limits": {"per_minute": 1}}
 ],
 "swaps": [
  {"id": "tsk_1", "api_key": "key_a", "type": "image", "credit_cost": 1,
   "source_url": "https://example.com/a.jpg", "target_url": "https://example.com/b.jpg",
   "webhook_url": "https://example.com/h", "created_at": 1767225600, "duration": 3}
 ],
 "planned": ["tsk_1"],
 "deliveries": [
  {"id": "dlv_1", "swap_id": "tsk_1", "state": "pending", "due": 1767225605}
 ]
}
"""


async def test_a_state_can_be_written_by_hand(tmp_path: Path) -> None:
    """What is not said is as by default."""
    path = tmp_path / "state.json"
    path.write_text(STATE)
    async with Emulator(clock=VirtualClock()) as emulator:
        emulator.load(path)
        request = raw(method="GET", path="/api/v1/swaps/tsk_1").replace(b"key_emulator", b"key_a")
        status, headers, body = await exchange(emulator, request)

    assert (status, json.loads(body)["status"]) == (200, "queued")
    assert headers["x-ratelimit-remaining"] == "58"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": 2', "line 2: version: must be 1 for this release, not 2"),
        ('"version": 1,\n', "", "line 1: version: is missing"),
        ("1767225600.0", '"now"', 'line 3: now: must be a number, not "now"'),
        ("1767225600.0", "1e999", "line 3: now: must be a number, not Infinity"),
        ("1767225600.0", "-1", "line 3: now: must be at least 0, not -1"),
        ("1767225600.0", "NaN", "NaN is no number"),
        ("1767225600.0,", "1767225600.0", "line 4: is no JSON: Expecting ',' delimiter"),
        ('"credits": 1000', '"credit": 1000', "line 4: credit: is not known here; known are"),
        ('"keys": [', '"keys": 7, "x": [', "line 5: keys: must be a list, not 7"),
        ('"key_b"', '"key b"', "line 7: keys[1].api_key: must be visible ASCII without spaces"),
        ('"key_b"', '"key_a"', "line 7: keys[1].api_key: is there twice"),
        ('{"per_minute": 1}', "7", "line 7: keys[1].limits: must be an object, not 7"),
        ('"per_minute": 1', '"per_minute": 0', "line 7: keys[1].limits.per_minute: must be at lea"),
        ("[1767225599.0]", "[null]", "line 6: keys[0].recent[0]: must be a number, not null"),
        ("[1767225599.0]", "{}", "line 6: keys[0].recent: must be a list, not {}"),
        (
            '"tsk_1", "api_key": "key_a"',
            '"a/b", "api_key": "key_a"',
            "line 10: swaps[0].id: must",
        ),
        (
            '"api_key": "key_a", "type"',
            '"api_key": "key_c", "type"',
            "line 10: swaps[0].api_key: is",
        ),
        (
            '"swaps": [\n',
            (
                '"swaps": [\n  {"id": "tsk_1", "api_key": "key_a", "credit_cost": 1, '
                '"type": "gif", "source_url": "https://a.io", "target_url": "https://b.io", '
                '"created_at": 1, "duration": 1},\n'
            ),
            "line 11: swaps[1].id: tsk_1 is there twice",
        ),
        (
            '"recent": [1767225599.0]',
            (
                '"refusals": [{"idempotency_key": "k", "request": {"type": "gif"}, "status": 402, '
                '"code": "x", "message": "y"}]'
            ),
            "line 6: keys[0].refusals[0].request.source_url: must be a public https URL",
        ),
        ('"image"', '"film"', "line 10: swaps[0].type: must be 'image' or 'gif'"),
        ("https://example.com/a.jpg", "ftp://a", "line 11: swaps[0].source_url: must be an https"),
        ('"duration": 3', '"duration": -3', "line 12: swaps[0].duration: must be at least 0"),
        ('["tsk_1"]', '["tsk_2"]', "line 14: planned[0]: tsk_2 is none of the swaps"),
        (
            '"swap_id": "tsk_1"',
            '"swap_id": "x"',
            "line 16: deliveries[0].swap_id: x is none",
        ),
        ('"pending"', '"lost"', "line 16: deliveries[0].state: must be 'pending' or 'delivered'"),
        (STATE, "[]", "line 1: must be an object, not []"),
        (STATE, "", "line 1: is no JSON: Expecting value"),
        (STATE, "[" * 100_000, "is no JSON: "),
        ("example.com/h", "\ud800", "line 12: is not UTF-8"),
    ],
)
def test_a_damaged_file_is_told_by_line_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """The error begins with the file; the emulator is as it was."""
    path = tmp_path / "state.json"
    assert old in STATE
    path.write_bytes(STATE.replace(old, new, 1).encode(errors="surrogatepass"))
    emulator = Emulator(clock=VirtualClock())
    with pytest.raises(ValueError, match=r"^") as caught:
        emulator.load(path)

    assert str(caught.value).startswith(f"{path}")
    assert message in str(caught.value)
    assert (emulator.swaps, emulator.balance) == ((), 1000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path]
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += places(value[key], (*path, key))
    return found


async def ask(emulator: Emulator) -> list[int]:
    """The statuses of requests about everything, now and after all has ended."""
    found = []
    async with emulator:
        for seconds in (0, 1e6):
            emulator.advance(seconds)
            for key in (b"key_a", b"key_b"):
                for path in ("me", "swaps", "swaps/tsk_1"):
                    request = raw(method="GET", path=f"/api/v1/{path}")
                    answer = await exchange(emulator, request.replace(b"key_emulator", key))
                    found.append(answer[0])
    return found


@settings(deadline=None)
@given(st.sampled_from(places(json.loads(STATE))[1:]), JSON)
def test_anything_anywhere_is_refused_or_works(place: tuple[Any, ...], value: Any) -> None:
    """An error that names the file, or a state that answers requests."""
    state = json.loads(STATE)
    holder = state
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    emulator = Emulator(clock=VirtualClock(), duration=0)
    said = None
    try:
        emulator.restore(json.dumps(state).encode(), "f")
    except ValueError as error:
        said = str(error)
    if said is None:
        assert max(asyncio.run(ask(emulator))) < 500
    else:
        assert said.startswith("f")
