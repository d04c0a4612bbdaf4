"""Faults for what real deployments do: Cloudflare, stuck swaps, odd fields, revoked keys."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from aifaceswap.emulator import Emulator, Fault, Limits, VirtualClock, faults
from support.emulator_receiver import Receiver, create
from support.emulator_wire import control, creation, exchange, raw
from support.emulator_world import SWAP

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [*range(520, 531), 403, 429, 503]


@pytest.mark.parametrize("commit", [False, True])
@pytest.mark.parametrize("status", PAGES)
async def test_a_page_of_cloudflare_replaces_the_response(
    emulator: Emulator, status: int, *, commit: bool
) -> None:
    """HTML with a ray id and without anything of the API, before or after the commit."""
    emulator.add_fault(Fault("POST /swaps", faults.CloudflarePage(status, commit=commit)))

    received, headers, body = await exchange(emulator, creation("k"))

    assert (received, len(emulator.swaps)) == (status, int(commit))
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["server"] == "cloudflare"
    ray = headers["cf-ray"].partition("-")[0]
    assert (len(ray), ray in body.decode()) == (16, True)
    assert not {"x-request-id", "x-ratelimit-limit", "retry-after"} & headers.keys()
    assert (headers.get("cf-mitigated") == "challenge") is (status in {403, 503})


async def test_rays_differ_and_a_page_can_name_a_wait(emulator: Emulator) -> None:
    """Each response has its own id."""
    page = faults.CloudflarePage(429, retry_after=7)
    emulator.add_fault(Fault("*", page, times=None))

    seen = [(await exchange(emulator, raw(method="GET")))[1] for _ in range(3)]

    assert len({headers["cf-ray"] for headers in seen}) == 3
    assert {headers["retry-after"] for headers in seen} == {"7"}


@pytest.mark.parametrize(
    ("action", "status", "swaps"),
    [
        (faults.Status(500), 500, 0),
        (faults.Status(500, commit=True), 500, 1),
        (faults.Body(status=502, commit=False), 502, 0),
        (faults.Body(commit=False), 502, 0),
        (faults.Body(), 201, 1),
    ],
)
async def test_an_error_comes_before_or_after_the_commit(
    emulator: Emulator, action: Any, status: int, swaps: int
) -> None:
    """`commit` says whether the request was carried out."""
    emulator.add_fault(Fault("POST /swaps", action))

    received, _, _ = await exchange(emulator, creation("k"))
    assert (received, len(emulator.swaps)) == (status, swaps)
    assert (await exchange(emulator, creation("k")))[0] == (200 if swaps else 201)


@pytest.mark.parametrize("after", ["nothing", "half"])
async def test_a_stall_can_come_before_the_commit(emulator: Emulator, after: str) -> None:
    """The client waits for a swap that will never exist."""
    emulator.add_fault(Fault("POST /swaps", faults.Stall(after, commit=False)))
    async with aiohttp.ClientSession() as http:
        request = asyncio.create_task(http.post(f"{emulator.base_url}/swaps", json=SWAP))
        while not emulator.requests:
            await asyncio.sleep(0.01)
        assert not request.done()
        request.cancel()
        await asyncio.wait([request])

    assert (emulator.swaps, emulator.requests[0].status) == ((), 0)


async def test_a_429_always_says_how_long_to_wait(emulator: Emulator) -> None:
    """A second, unless the fault names another wait; other statuses say nothing."""
    waits = []
    for action in (faults.Status(429), faults.Status(429, retry_after=9), faults.Status(503)):
        emulator.add_fault(Fault("POST /swaps", action))
        waits.append((await exchange(emulator, creation()))[1].get("retry-after"))

    assert waits == ["1", "9", None]


async def test_odd_fields_are_in_every_response(emulator: Emulator) -> None:
    """Creation, GET and list; id, type and status stay as they are."""
    emulator.add_fault(Fault("*", faults.OddFields(), times=None))
    _, _, created = await exchange(emulator, creation())
    swap = json.loads(created)
    path = f"/api/v1/swaps/{swap['id']}"
    _, _, got = await exchange(emulator, raw(method="GET", path=path))
    _, _, listed = await exchange(emulator, raw(method="GET"))
    _, _, account = await exchange(emulator, raw(method="GET", path="/api/v1/me"))

    for value in (swap, json.loads(got), json.loads(listed)["data"][0]):
        assert (value["id"], value["type"]) == (swap["id"], "image")
        assert (value["credit_cost"], value["progress"]) == ("one", "half")
        assert value["created_at"] == 1_767_225_600
        assert (value["metadata"], value["error"]) == ("none", ["unknown"])
    assert json.loads(account)["credits"]["total"] == 999


async def test_odd_fields_can_be_chosen(emulator: Emulator) -> None:
    """Any JSON, and fields that are missing."""
    action = faults.OddFields(set={"progress": None, "credit_cost": [1]}, remove=["metadata"])
    emulator.add_fault(Fault("POST /swaps", action))
    swap = json.loads((await exchange(emulator, creation()))[2])

    assert (swap["progress"], swap["credit_cost"], "metadata" in swap) == (None, [1], False)
    assert swap["created_at"] == "2026-01-01T00:00:00.000Z"


async def test_a_delivery_with_odd_fields_is_signed_as_it_is() -> None:
    """What is posted is what is signed."""
    from aifaceswap import webhooks

    fault = Fault("webhook", faults.OddFields())
    async with (
        Receiver().serve() as receiver,
        Emulator(duration=0, deliver_to=receiver.origin, faults=[fault]) as emulator,
    ):
        await create(emulator)
        await emulator.settle()
        ((_, headers, body),) = receiver.received

    webhooks.verify(body, headers[webhooks.SIGNATURE_HEADER], [emulator.api_key])
    assert json.loads(body)["progress"] == "half"


async def test_a_byte_order_mark_precedes_the_body(emulator: Emulator) -> None:
    """The length counts it, the connection stays open."""
    emulator.add_fault(Fault("POST /swaps", faults.ByteOrderMark()))
    _, _, body = await exchange(emulator, creation())

    assert body.startswith(b"\xef\xbb\xbf{")
    assert json.loads(body.decode("utf-8-sig"))["status"] == "queued"


@pytest.mark.parametrize("status", ["queued", "preparing", "processing"])
async def test_a_stuck_swap_never_finishes(emulator: Emulator, status: str) -> None:
    """It stays in its status and keeps its slot; the next one is normal."""
    emulator.configure(limits=Limits(concurrent=2))
    emulator.add_fault(Fault("POST /swaps", faults.Stuck(status)))
    await exchange(emulator, creation())
    await exchange(emulator, creation())
    emulator.advance(1e6)

    assert [swap.status for swap in emulator.swaps] == [status, "done"]
    assert (await exchange(emulator, creation()))[0] == 201
    assert (await exchange(emulator, creation()))[0] == 429


@pytest.mark.parametrize("error", [None, "no face", {"code": "no_face"}])
async def test_a_swap_fails_for_any_reason_or_none(emulator: Emulator, error: Any) -> None:
    """Its `error` is what the fault says, and its credits are given back."""
    emulator.add_fault(Fault("POST /swaps", faults.Fail(error)))
    swap_id = json.loads((await exchange(emulator, creation()))[2])["id"]
    emulator.advance(3)
    _, _, body = await exchange(emulator, raw(method="GET", path=f"/api/v1/swaps/{swap_id}"))

    assert (json.loads(body)["status"], json.loads(body)["error"]) == ("failed", error)
    assert emulator.balance == 1000


async def test_a_key_is_revoked_in_mid_run(emulator: Emulator) -> None:
    """From the given request on it is invalid, until it is added again."""
    emulator.add_fault(Fault("GET /swaps", faults.RevokeKey(), nth=2))
    seen = [(await exchange(emulator, raw(method="GET")))[0] for _ in range(3)]
    seen.append((await exchange(emulator, creation()))[0])
    emulator.add_key(emulator.api_key)
    seen.append((await exchange(emulator, creation()))[0])

    assert seen == [200, 401, 401, 401, 201]


async def test_prices_change_in_mid_run(emulator: Emulator) -> None:
    """From the given request on; the type that is not named keeps its price."""
    emulator.add_fault(Fault("POST /swaps", faults.ChangePrices(image=7), nth=2))
    for _ in range(3):
        await exchange(emulator, creation())
    await create(emulator, type="gif")

    assert [swap.credit_cost for swap in emulator.swaps] == [1, 7, 7, 2]
    emulator.reset()
    await create(emulator)
    assert emulator.swaps[0].credit_cost == 1


SCRIPT = """
[settings]
credits = 5
duration = 0
limits = { per_minute = 2 }
prices = { image = 3 }
idempotency = { reuse_status = 422, forget_after = 60 }
lag = { get = 1, list = 2.5 }
result_ttl = 60
result_links = { suffix = ".img", presigned = true, expired_status = 410 }

[[fault]]
match = "POST /swaps"
do = { action = "cloudflare_page", status = 524, commit = false }

[[fault]]
match = "POST /swaps"
do = { action = "odd_fields", set = { progress = [1] }, remove = ["error"] }

[[fault]]
match = "POST /swaps"
do = { action = "change_prices", gif = 9 }
"""


def test_a_file_has_settings_and_faults(tmp_path: Path) -> None:
    """The arguments of an `Emulator`."""
    from aifaceswap.emulator import Idempotency, Lag, ResultLinks, load_settings

    path = tmp_path / "script.toml"
    path.write_text(SCRIPT)
    emulator = Emulator(clock=VirtualClock(), **load_settings(path))

    assert (emulator.credits, emulator.duration, emulator.result_ttl) == (5, 0, 60)
    assert emulator.limits == Limits(per_minute=2)
    assert emulator.prices == {"image": 3, "gif": 2}
    assert emulator.idempotency == Idempotency(reuse_status=422, forget_after=60)
    assert emulator.lag == Lag(get=1, list=2.5)
    assert emulator.result_links == ResultLinks(".img", presigned=True, expired_status=410)
    assert [record.fault.do for record in emulator.faults] == [
        faults.CloudflarePage(524, commit=False),
        faults.OddFields(set={"progress": [1]}, remove=["error"]),
        faults.ChangePrices(gif=9),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[settings]\nlag = { get = -1 }", "settings.lag.get: must be at least 0; got -1"),
        ("[settings]\nlga = 1", "settings.lga: is not known here; known are credits, limits"),
        ("[settings]\nprices = 7", "settings.prices: must be an object; got 7"),
        ("[settings]\nidempotency = { reuse_status = 404 }", "must be 409 or 422; got 404"),
        ("[settings]\nfaults = []", "settings.faults: is not known here"),
    ],
)
def test_the_error_of_a_bad_setting_names_the_field(
    tmp_path: Path, text: str, message: str
) -> None:
    """And the file."""
    from aifaceswap.emulator import load_settings

    path = tmp_path / "script.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^/.*script\.toml: settings") as caught:
        load_settings(path)

    assert message in str(caught.value)


async def test_settings_change_over_http_and_swaps_stay(emulator: Emulator) -> None:
    """`settings` keeps everything else, `reset` returns to the constructor's."""
    await create(emulator)
    given = {
        "prices": {"image": 3},
        "lag": {"list": 60},
        "limits": None,
        "result_links": {"suffix": ".img"},
    }
    status, shown = await control(emulator, "POST", "settings", given)
    await create(emulator)

    assert (status, shown["prices"], shown["lag"]) == (
        200,
        {"image": 3, "gif": 2},
        {"get": 0, "list": 60},
    )
    assert shown["limits"] == {
        "per_minute": None,
        "per_day": None,
        "concurrent": None,
        "window": 60,
    }
    assert [swap.credit_cost for swap in emulator.swaps] == [1, 3]
    assert (await control(emulator, "GET", "settings"))[1] == shown
    _, after = await control(emulator, "POST", "reset")
    assert (after["prices"], after["limits"]["per_minute"]) == ({"image": 1, "gif": 2}, 60)
    assert emulator.swaps == ()
    status, error = await control(emulator, "POST", "settings", {"lag": {"get": "x"}})
    assert (status, error["error"]["message"]) == (
        400,
        'The body: lag.get: must be a number; got "x"',
    )


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lag": 3}, TypeError, r"lag must be a Lag\(...\); got 3"),
        ({"prices": {"film": 1}}, ValueError, "prices must name the types 'image' or 'gif'"),
        ({"prices": {"gif": -1}}, ValueError, r"prices\['gif'\] must be 0 or more; got -1"),
        ({"limits": 7}, TypeError, r"limits must be a Limits\(...\) or None; got 7"),
        ({"credit": 7}, TypeError, "credit"),
    ],
)
async def test_a_wrong_setting_changes_nothing(
    emulator: Emulator, settings: Any, error: type[Exception], message: str
) -> None:
    """Neither at `configure()` nor at `reset()`."""
    await create(emulator)
    before = emulator.settings
    for change in (emulator.configure, emulator.reset):
        with pytest.raises(error, match=message):
            change(**settings)

    assert (emulator.settings, len(emulator.swaps)) == (before, 1)
