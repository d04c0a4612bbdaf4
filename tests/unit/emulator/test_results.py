"""Links to result pictures: signatures, expiry, ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap.emulator._service.errors import Rejected
from aifaceswap.emulator._service.results import read_range
from support.emulator_world import make_world

if TYPE_CHECKING:
    from support.emulator_world import Reply, World


def make_link(world: World, **fields: str) -> str:
    """The path and query of a finished swap's picture."""
    swap_id = world.create(**fields).value["id"]
    world.now += 3
    url: str = world.get(f"/swaps/{swap_id}").value["result_url"]
    return url.removeprefix("http://127.0.0.1:1")


def fetch(world: World, link: str, method: str = "GET", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.send(method, link, headers={"Authorization": "", **named})


@pytest.mark.parametrize(
    ("kind", "suffix", "content_type", "magic"),
    [("image", ".jpg", "image/jpeg", b"\xff\xd8"), ("gif", ".gif", "image/gif", b"GIF89a")],
)
def test_a_link_needs_no_key(kind: str, suffix: str, content_type: str, magic: bytes) -> None:
    """The picture comes with its type, without auth, and costs no request of the limits."""
    world = make_world()
    link = make_link(world, type=kind)
    reply = fetch(world, link)

    assert suffix in link
    assert (reply.status, reply.headers["Content-Type"]) == (200, content_type)
    assert reply.raw.startswith(magic)
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["Last-Modified"] == "Thu, 01 Jan 2026 00:00:03 GMT"
    assert "x-ratelimit-limit" not in reply.headers


def test_a_link_expires_and_each_look_gives_a_new_one() -> None:
    """A link is good for result_ttl seconds; a later GET of the swap gives a later one."""
    world = make_world()
    link = make_link(world)
    world.now += 3600
    last = fetch(world, link).status
    world.now += 1.5
    late = fetch(world, link)
    (swap,) = world.get("/swaps").value["data"]
    again = fetch(world, swap["result_url"].removeprefix("http://127.0.0.1:1"))

    assert (last, late.status, late.code, again.status) == (200, 403, "forbidden", 200)


@pytest.mark.parametrize(
    "change",
    [
        ("signature=", "signature=0"),
        ("expires=1", "expires=9"),
        (".jpg", ".gif"),
        ("tsk_", "tsk_0"),
        ("?", "?expires=1&"),
        ("signature=", "other="),
        ("expires=", "expires=%F0%9F%98%80"),
        ("signature=", "signature=%ED%A0%80"),
    ],
)
def test_a_link_that_was_tampered_with_is_rejected(change: tuple[str, str]) -> None:
    """Whatever is changed in it, the answer is an error, never a picture."""
    world = make_world()
    reply = fetch(world, make_link(world).replace(*change, 1))

    assert reply.status in {400, 403}
    assert reply.value["error"]["request_id"]


def test_a_link_to_a_swap_that_is_no_more() -> None:
    """A reset forgets the swap; its link is well signed, and leads nowhere."""
    link = make_link(make_world())
    assert fetch(make_world(), link).status == 404


def test_only_get_and_head_are_allowed() -> None:
    """405 for other methods; HEAD has the headers of GET."""
    world = make_world()
    link = make_link(world)
    head, post = fetch(world, link, "HEAD"), fetch(world, link, "POST")

    assert (head.status, post.status) == (200, 405)
    assert post.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", range(10)),
        ("bytes=90-", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-1000", range(100)),
        ("bytes=95-1000", range(95, 100)),
        ("BYTES=0-0", range(1)),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("bytes=\u0661-\u0662", None),
        ("lines=0-9", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("", None),
    ],
)
def test_a_single_range_of_bytes_is_read(header: str | None, expected: range | None) -> None:
    """One range in bytes is obeyed, all else means the whole."""
    assert read_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_without_bytes_is_not_satisfiable(header: str) -> None:
    """416 says how long the picture is."""
    with pytest.raises(Rejected) as caught:
        read_range(header, 100)

    assert caught.value.problem.status == 416
    assert caught.value.problem.headers == (("Content-Range", "bytes */100"),)


@given(st.text(alphabet="bytes=-0123456789, ", max_size=20), st.integers(1, 50))
def test_no_range_is_outside_the_picture(header: str, size: int) -> None:
    """A range that is obeyed has bytes, and all of them are there."""
    try:
        part = read_range(header, size)
    except Rejected:
        return
    assert part is None or (part and range(size)[part.start : part.stop] == part)


def test_parts_add_up_to_the_whole() -> None:
    """Two ranges with the same ETag are the picture."""
    world = make_world()
    link = make_link(world)
    whole = fetch(world, link)
    etag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
    first = fetch(world, link, Range="bytes=0-99")
    rest = fetch(world, link, Range="bytes=100-", If_Range=etag)
    by_date = fetch(world, link, Range="bytes=100-", If_Range=modified)

    assert (first.status, rest.status, by_date.status) == (206, 206, 206)
    assert first.raw + rest.raw == whole.raw
    assert first.headers["Content-Range"] == f"bytes 0-99/{len(whole.raw)}"
    assert rest.headers["ETag"] == etag


def test_a_changed_picture_is_sent_whole() -> None:
    """If-Range with another validator turns the range into the whole."""
    world = make_world()
    reply = fetch(world, make_link(world), Range="bytes=5-", If_Range='"other"')

    assert reply.status == 200


def test_a_range_past_the_end_answers_with_the_envelope() -> None:
    """416 has Content-Range and an error body."""
    world = make_world()
    reply = fetch(world, make_link(world), Range="bytes=999999-")

    assert (reply.status, reply.code) == (416, "range_not_satisfiable")
    assert reply.headers["Content-Range"].startswith("bytes */")
