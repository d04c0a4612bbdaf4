"""Settings for what the documents leave open: idempotency, lag, prices, result links."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from aifaceswap.emulator import Idempotency, Lag, Limits, ResultLinks
from support.emulator_world import START, Reply, World, make_world


def test_a_key_is_in_progress_for_a_time() -> None:
    """Until then the same request gets 409; afterwards it gets its swap."""
    world = make_world(idempotency=Idempotency(in_progress=2))
    created = world.create("k")

    world.now += 1
    early = world.create("k")
    world.now += 1
    late = world.create("k")

    assert (early.status, early.code) == (409, "idempotency_in_progress")
    assert (late.status, late.value["id"]) == (200, created.value["id"])
    assert len(world.api.state.swaps) == 1


@pytest.mark.parametrize("status", [409, 422])
def test_a_key_is_reused_with_another_body(status: int) -> None:
    """The status is a setting, also while the first request is in progress."""
    world = make_world(idempotency=Idempotency(reuse_status=status, in_progress=9))
    world.create("k")

    refused = world.create("k", type="gif")

    assert (refused.status, refused.code) == (status, "idempotency_conflict")


def test_a_key_is_forgotten_after_a_time() -> None:
    """From then on it creates another swap, and another body is accepted."""
    world = make_world(idempotency=Idempotency(forget_after=10))
    first = world.create("k")

    world.now += 9.9
    assert world.create("k").value["id"] == first.value["id"]
    world.now += 0.1
    second = world.create("k", type="gif")
    assert (second.status, second.value["id"] == first.value["id"]) == (201, False)
    assert world.create("k", type="gif").value["id"] == second.value["id"]


def test_a_402_is_forgotten_with_its_key() -> None:
    """After that time, credits that were added count."""
    world = make_world(balance=0, idempotency=Idempotency(forget_after=10))
    assert world.create("k").status == 402
    world.api.state.credits = 5
    assert world.create("k").status == 402

    world.now += 10

    assert world.create("k").status == 201


def items(reply: Reply) -> list[tuple[str, str]]:
    return [(item["id"], item["status"]) for item in reply.value["data"]]


def test_reads_are_behind_writes() -> None:
    """A new swap is missing, then it is as it was; replays and `me` are not behind."""
    world = make_world(duration=10, lag=Lag(get=2, list=4))
    swap_id = world.create("k").value["id"]

    world.now += 1.9
    assert world.get(f"/swaps/{swap_id}").code == "not_found"
    assert items(world.get("/swaps")) == []
    assert world.create("k").value["id"] == swap_id
    world.now += 0.1
    assert world.get(f"/swaps/{swap_id}").value["status"] == "queued"
    assert items(world.get("/swaps")) == []
    world.now = START + 10
    assert world.get(f"/swaps/{swap_id}").value["status"] == "processing"
    assert items(world.get("/swaps")) == [(swap_id, "processing")]
    world.now = START + 12
    assert world.get(f"/swaps/{swap_id}").value["status"] == "done"
    assert items(world.get("/swaps")) == [(swap_id, "processing")]
    world.now = START + 14
    assert items(world.get("/swaps")) == [(swap_id, "done")]


def test_a_late_list_can_be_paged() -> None:
    """Cursors lead on from what is visible."""
    world = make_world(duration=0, lag=Lag(list=5))
    ids = []
    for _ in range(4):
        ids.append(world.create().value["id"])
        world.now += 2

    first = world.get("/swaps?limit=1")
    second = world.get(f"/swaps?limit=1&cursor={first.value['next_cursor']}")

    assert [items(page)[0][0] for page in (first, second)] == [ids[1], ids[0]]
    assert second.value["next_cursor"] is None


STYLES = [
    (ResultLinks(), ".jpg"),
    (ResultLinks(suffix=".jpeg"), ".jpeg"),
    (ResultLinks(suffix=".img", presigned=True), ".img"),
    (ResultLinks(presigned=True, expired_status=410), ".jpg"),
]


def open_link(world: World, url: str) -> Reply:
    parts = urlsplit(url)
    return world.send("GET", f"{parts.path}?{parts.query}", headers={"Authorization": ""})


def finished(world: World) -> str:
    """The result URL of a swap that is done."""
    swap_id = world.create().value["id"]
    world.now += 3
    return str(world.get(f"/swaps/{swap_id}").value["result_url"])


@pytest.mark.parametrize(("style", "suffix"), STYLES)
def test_links_have_the_style_that_is_set(style: ResultLinks, suffix: str) -> None:
    """They are served while valid, and their bytes are a JPEG whatever the suffix."""
    world = make_world()
    world.api.results.style = style
    url = finished(world)

    image = open_link(world, url)

    assert urlsplit(url).path.endswith(suffix)
    assert ("X-Amz-Signature" in url) is style.presigned
    assert (image.status, image.headers["Content-Type"]) == (200, "image/jpeg")
    assert image.raw.startswith(b"\xff\xd8")


@pytest.mark.parametrize("presigned", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_expired_link_has_the_status_that_is_set(status: int, *, presigned: bool) -> None:
    """A presigned one answers in XML, as a bucket does."""
    world = make_world()
    world.api.results.style = ResultLinks(presigned=presigned, expired_status=status)
    url = finished(world)

    world.now += 3599
    assert open_link(world, url).status == 200
    world.now += 2
    expired = open_link(world, url)

    wanted = "application/xml" if presigned else "application/json"
    assert (expired.status, expired.headers["Content-Type"]) == (status, wanted)


@pytest.mark.parametrize("presigned", [False, True])
def test_a_forged_link_is_forbidden(*, presigned: bool) -> None:
    """Longer lives and other swaps need another signature."""
    world = make_world()
    world.api.results.style = ResultLinks(presigned=presigned)
    url, other = finished(world), finished(world)
    parts, moved = urlsplit(url), urlsplit(other)

    changes = [
        url.replace("Expires=3600", "Expires=9999") if presigned else url.replace("=1767", "=9767"),
        url.replace(parts.path, moved.path),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        url.partition("?")[0],
    ]

    assert [open_link(world, change).status for change in changes] == [403] * 4
    assert open_link(world, url).status == 200


def test_links_can_have_another_origin() -> None:
    """For code that wants https."""
    world = make_world()
    world.api.results.style = ResultLinks(origin="https://cdn.example.com")

    assert finished(world).startswith("https://cdn.example.com/results/tsk_")


@pytest.mark.parametrize(("proto", "scheme"), [("https", "https"), ("http", "http"), ("x", "http")])
def test_links_are_https_behind_a_proxy_that_says_so(proto: str, scheme: str) -> None:
    """Clients accept plain http on loopback alone."""
    world = make_world()
    finished(world)
    reply = world.get("/swaps", Host="emulator.example", **{"X-Forwarded-Proto": proto})

    assert reply.value["data"][0]["result_url"].startswith(f"{scheme}://emulator.example/results/")


def test_prices_are_a_setting() -> None:
    """Charged at the creation, shown in the swap, given back when it fails."""
    world = make_world(balance=10, limits=Limits(None, None, None))
    world.api.state.prices = {"image": 0.5, "gif": 4}

    assert world.create().value["credit_cost"] == 0.5
    assert world.create(type="gif").value["credit_cost"] == 4
    world.create(type="gif", source_url="https://example.com/fails.jpg")
    assert world.create(type="gif").code == "insufficient_credits"
    world.now += 3
    assert world.get("/me").value["credits"]["total"] == 5.5
