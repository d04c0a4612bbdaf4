"""The emulator's web page: by HTTP, and in a real browser where there is one."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import pytest

import aifaceswap
from aifaceswap import Client
from aifaceswap.emulator import Emulator, Fault, Limits, RealClock, VirtualClock, faults
from support.browser import DESKTOP, PHONE, Browser
from support.emulator_wire import connected, control, creation, exchange, raw
from support.samples import FACE

HOOK = "https://shop.example.com/hooks/swap?shop=7"
NASTY = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
TIGHT = "<img/src=x/onerror=document.title='taken'>"
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


# --- by HTTP -------------------------------------------------------------------------------


async def test_the_page_is_there_for_everybody(emulator: Emulator) -> None:
    """Without a key, as HTML that no other page may hold in a frame."""
    status, headers, body = await exchange(emulator, GET)

    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert body.startswith(b"<!doctype html>")
    assert emulator.api_key.encode() not in body


async def test_the_policy_allows_the_pages_own_script_and_nothing_else(emulator: Emulator) -> None:
    """By its hash; no other origin is asked for anything."""
    _, headers, _ = await exchange(emulator, GET)
    policy = dict(
        part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
    )
    hashes = {kind: policy.pop(f"{kind}-src") for kind in ("script", "style")}

    assert all(value.startswith("'sha256-") and " " not in value for value in hashes.values())
    assert policy == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


async def test_head_is_the_page_without_its_body(emulator: Emulator) -> None:
    """The same headers, the length of the body too."""
    _, headers, _ = await exchange(emulator, GET)
    async with connected(emulator) as wire:
        await wire.send(GET.replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\n") + b"\r\n")
        answer = (await wire.reader.readuntil(b"\r\n\r\n")).decode().lower()
        await wire.send(GET)
        assert (await wire.answer())[0] == 200

    assert answer.startswith("http/1.1 200 ")
    for name in ("content-length", "content-security-policy", "content-type"):
        assert f"\r\n{name}: {headers[name]}\r\n" in answer


async def test_other_methods_are_refused(emulator: Emulator) -> None:
    """In the API's form."""
    status, headers, body = await exchange(emulator, raw(method="POST", path="/"))

    assert (status, headers["allow"]) == (405, "get, head")
    assert json.loads(body)["error"]["code"] == "method_not_allowed"


async def test_the_page_is_no_request_to_the_api(emulator: Emulator) -> None:
    """Nor is a picture on it: no record, no limit, no fault."""
    await exchange(emulator, creation())
    emulator.advance(3)
    emulator.add_fault(Fault("*", faults.Status(500), times=None))
    (swap,) = emulator.swaps
    path = f"/_emulator/swaps/{swap.id}/image"

    assert (await exchange(emulator, GET))[0] == 200
    status, headers, picture = await exchange(emulator, GET.replace(b"/", path.encode(), 1))
    assert (status, headers["content-type"], picture[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert (len(emulator.requests), emulator.faults[0].seen) == (1, 0)


async def test_a_picture_is_there_when_its_swap_is_done(emulator: Emulator) -> None:
    """Not before, not of a failed swap or of none, and not for another page."""
    await exchange(emulator, creation())
    path = f"swaps/{emulator.swaps[0].id}/image"

    assert (await control(emulator, "GET", path))[0] == 404
    assert (await control(emulator, "GET", "swaps/tsk_none/image"))[0] == 404
    emulator.advance(3)
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert (await control(emulator, "GET", path, headers=cross))[0] == 403


async def test_requests_tell_the_code_of_their_error(emulator: Emulator) -> None:
    """Also that of a fault; none where all is well."""
    emulator.add_fault(Fault("POST /swaps", faults.Status(503)))
    await exchange(emulator, creation())
    await exchange(emulator, creation())
    await exchange(emulator, raw(method="GET", path="/api/v1/nothing"))
    _, shown = await control(emulator, "GET", "requests")

    codes = ["api_temporarily_disabled", None, "not_found"]
    assert [record.code for record in emulator.requests] == codes
    assert [record["code"] for record in shown["data"]] == codes


@attrs.define
class Sheet(HTMLParser):
    """Every tag of a page, with its attributes."""

    tags: list[tuple[str, dict[str, str | None]]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


async def test_the_page_stands_alone(emulator: Emulator) -> None:
    """One file: nothing is loaded from elsewhere, nothing inline that the policy would refuse."""
    _, _, body = await exchange(emulator, GET)
    sheet = Sheet()
    sheet.feed(body.decode())
    attributes = [(name, value) for _, found in sheet.tags for name, value in found.items()]
    links = [value or "" for name, value in attributes if name in {"href", "src", "action"}]

    assert not [name for name, _ in attributes if name == "style" or name.startswith("on")]
    assert all(link.startswith(("#", "data:", "_emulator/")) for link in links)
    assert not any(sink in body for sink in (b"innerHTML", b"outerHTML", b"insertAdjacent"))


# --- in a browser --------------------------------------------------------------------------


@contextmanager
def shown(browser: Browser, **settings: Any) -> Iterator[tuple[Emulator, Client]]:
    """An emulator whose page is open; in the end it has not complained, nor asked elsewhere."""
    settings = {"limits": Limits(None, None, None), **settings}
    with (
        Emulator(**settings) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url, budget=None, max_retries=0) as client,
    ):
        browser.visit(emulator.origin + "/")
        browser.until(lambda: browser.text("#live") == "Live")
        yield emulator, client
        assert browser.complaints() == []
        assert {url.startswith(emulator.origin) for url in browser.sent() if url[:4] == "http"} == {
            True
        }


def create(client: Client, target: str = "target.jpg", **fields: Any) -> str:
    """Create a swap; its id."""
    target_url = f"https://example.com/{target}"
    return client.swaps.create(source_url=FACE, target_url=target_url, **fields).id


def reads(browser: Browser, selector: str, text: str) -> bool:
    """Whether this is what stands there."""
    return browser.text(selector) == text


def shell(browser: Browser, folder: Path) -> None:
    """Do in a shell what the page shows for one."""
    curl = browser.run("return document.getElementById('curl').textContent")
    done = subprocess.run(curl, shell=True, capture_output=True, cwd=folder, check=True, timeout=30)
    assert json.loads(done.stdout)["status"] == "queued"


def python(browser: Browser, folder: Path) -> None:
    """Run the program that the page shows."""
    program = browser.run("return document.getElementById('python').textContent")
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=30)
    assert (folder / "result.jpg").read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("way", [shell, python])
def test_a_first_swap_is_seen_up_to_its_picture(browser: Browser, tmp_path: Path, way: Any) -> None:
    """By the command or the program that the page shows, and without loading the page again."""
    if way is shell and shutil.which("curl") is None:
        pytest.skip("curl not installed")
    with shown(browser, api_key="it's<b>a</b>key", duration=2.0) as (emulator, _):
        assert browser.text("#base-url") == emulator.base_url
        assert browser.text("#api-key") == emulator.api_key
        browser.run("window.sameAsBefore = true")
        way(browser, tmp_path)
        browser.until(lambda: browser.all("#swaps li"))
        assert not browser.find("#first").is_displayed()
        browser.until(lambda: browser.shows_picture("#swaps img"))

        (swap,) = emulator.swaps
        assert browser.text("#swaps code") == swap.id
        assert "face.jpg → target.jpg" in browser.text("#swaps li")
        assert browser.text("#swaps-count") == "1"
        assert str(swap.idempotency_key) in browser.text("#requests tr:last-child")
        assert browser.text("#requests tr:last-child .state") == "201"
        assert browser.run("return window.sameAsBefore")
        assert len(emulator.requests) == int(browser.text("#requests-count"))


def test_the_progress_of_a_swap_is_shown(browser: Browser) -> None:
    """While it lasts; what failed says why. Open details stay open, and the focus where it is."""
    clock = VirtualClock()
    with shown(browser, clock=clock, duration=10.0) as (_, client):
        failing = create(client, "fails.jpg")
        browser.until(lambda: browser.all("#swaps progress"))
        assert browser.find("#swaps progress").accessible_name == f"Progress of {failing}"
        browser.find("#swaps summary").click()
        assert browser.find("#speed").text == "Virtual: it moves only on request."

        clock.advance(5)
        browser.until(lambda: browser.find("#swaps progress").get_attribute("value") == "50")
        assert '"progress": 50' in browser.text("#swaps pre")
        browser.click("+10 s")
        browser.until(lambda: "could not be swapped" in browser.text("#swaps li"))
        assert browser.text("#swaps .state") == "failed"
        assert not browser.all("#swaps progress")
        assert '"status": "failed"' in browser.text("#swaps pre")


def test_the_clock_goes_on_when_told_to(browser: Browser) -> None:
    """A virtual one; of a real one the speed is told, and it jumps ahead."""
    with shown(browser, clock=VirtualClock()) as (emulator, _):
        assert browser.text("#now") == "2026-01-01 00:00:00"
        for name, after in {
            "+10 s": "2026-01-01 00:00:10",
            "+1 min": "2026-01-01 00:01:10",
            "+1 day": "2026-01-02 00:01:10",
        }.items():
            browser.click(name)
            browser.until(functools.partial(reads, browser, "#now", after))
        assert emulator.clock.now() == 1_767_225_600 + 10 + 60 + 86_400

    clock = RealClock(speed=60)
    with shown(browser, clock=clock):
        assert browser.text("#speed") == "Real time, 60 times as fast"
        before = clock.now()
        browser.click("+1 day")
        browser.until(lambda: clock.now() > before + 86_400)


def test_a_fault_is_added_and_strikes(browser: Browser) -> None:
    """By the form; how often is seen, and it is switched off again."""
    with shown(browser) as (emulator, client):
        browser.type("[name=nth]", "2")
        browser.type("[name='do.status']", "429")
        browser.type("[name='do.retry_after']", "7")
        browser.click("Switch on")
        browser.until(lambda: browser.text("#said") == "Fault 0 is on.")
        (record,) = emulator.faults
        assert record.fault == Fault("POST /swaps", faults.Status(429, retry_after=7), nth=2)

        create(client)
        with pytest.raises(aifaceswap.RateLimitError):
            create(client)
        browser.until(lambda: "applied to 1 of 2" in browser.text("#faults"))
        browser.until(lambda: len(browser.all("#requests tr")) == 2)
        latest = [cell.text for cell in browser.all("#requests tr:first-child td")]
        assert latest[2:4] == ["429", "rate_limited"]
        assert latest[5] == "status 429, retry_after 7"

        browser.click("Switch off fault 0")
        browser.until(lambda: browser.text("#faults-count") == "none")
        assert emulator.faults == ()
        assert browser.driver.switch_to.active_element == browser.find("#faults-title")


def test_ready_made_faults_are_a_click_away(browser: Browser) -> None:
    """Each of them is taken, and all are switched off at once."""
    with shown(browser) as (emulator, client):
        names = [button.text for button in browser.all("#ready button")]
        for number, name in enumerate(names, 1):
            browser.click(name)
            browser.until(functools.partial(reads, browser, "#faults-count", str(number)))
        assert emulator.faults[0].fault.do == faults.Status(503, retry_after=1)
        with pytest.raises(aifaceswap.ServiceUnavailableError):
            create(client)
        browser.until(lambda: "applied to 1 of 1" in browser.text("#faults li:first-child"))
        browser.click("Switch all off")
        browser.until(lambda: browser.text("#faults-count") == "none")

        assert emulator.faults == ()


def test_a_wrong_fault_is_told_at_its_field(browser: Browser) -> None:
    """In the emulator's words, and the field has the focus; a mended one is taken."""
    with shown(browser) as (emulator, _):
        for field, value in {"do.status": "99", "nth": "0", "rate": "7", "match": "swaps"}.items():
            browser.type(f"[name='{field}']", value)
            browser.click("Switch on")
            browser.until(lambda: browser.all("#fault [aria-invalid=true]"))
            wrong = browser.find("#fault [aria-invalid=true]")
            assert wrong.get_attribute("name") == field
            assert browser.text("#fault-problem").startswith(f"{field}: must be ")
            assert browser.driver.switch_to.active_element == wrong
            browser.driver.refresh()
            browser.until(lambda: browser.text("#live") == "Live")
        browser.type("[name=match]", "webhook")
        browser.click("Switch on")
        browser.until(lambda: browser.text("#faults-count") == "1")

        assert emulator.faults[0].fault == Fault("webhook", faults.Duplicate())
        assert not browser.find("#fault-problem").is_displayed()


def test_the_form_knows_every_action_and_setting(browser: Browser) -> None:
    """Each is offered once for what it can strike, and none that is not there."""
    with shown(browser):
        offered = browser.run("return [REQUEST_ACTIONS, WEBHOOK_ACTIONS]")

    for match, actions in zip(("POST /swaps", "webhook"), offered, strict=True):
        for name, settings in actions.items():
            action = faults.ACTIONS[name]
            fields = [field.name for field in attrs.fields(action)]
            assert fields == [setting[0] for setting in settings]
            needed = {
                field.name: 500 for field in attrs.fields(action) if field.default is attrs.NOTHING
            }
            assert Fault(match, action(**needed)).match == match
    assert {*offered[0], *offered[1]} == {*faults.ACTIONS}


def test_headers_are_typed_as_they_are_sent(browser: Browser) -> None:
    """One a line; those to leave out with commas between them."""
    with shown(browser) as (emulator, _):
        browser.find("select[name=action] option[value=headers]").click()
        browser.type("[name='do.set']", "Retry-After: 3\nX-Time: 12:30\n\n")
        browser.type("[name='do.remove']", "x-request-id, Date")
        browser.type("[name=times]", "")
        browser.click("Switch on")
        browser.until(lambda: len(emulator.faults) == 1)

    headers = faults.Headers({"Retry-After": "3", "X-Time": "12:30"}, ("x-request-id", "Date"))
    assert emulator.faults[0].fault == Fault("POST /swaps", headers, times=None)


def test_a_webhook_is_delivered_again(browser: Browser) -> None:
    """The receiver says no at first; its answers are seen. It would not be tried again yet."""
    taken = Fault("POST /hooks/*", faults.Body("", status=200), nth=2, times=None)
    with (
        Emulator(faults=[taken]) as receiver,
        shown(browser, duration=0.0, clock=VirtualClock(), deliver_to=receiver.origin) as (
            emulator,
            client,
        ),
    ):
        swap_id = create(client, webhook_url=HOOK)
        browser.until(lambda: "→ 404" in browser.text("#deliveries"))
        assert browser.text("#deliveries .state") == "pending"
        assert f"{receiver.origin}/hooks/swap?shop=7" in browser.text("#deliveries")
        browser.click(f"Redeliver swap.completed of {swap_id}")
        browser.until(lambda: browser.text("#deliveries .state") == "delivered")

        assert "→ 200" in browser.text("#deliveries")
        assert [attempt.status for attempt in emulator.deliveries[0].attempts] == [404, 200]


def test_credits_and_keys(browser: Browser) -> None:
    """Topped up, added, revoked and made live again; what is left to each is told."""
    with shown(browser, limits=Limits(60, None, 10), credits=2.0) as (emulator, client):
        create(client)
        browser.until(lambda: "minute: 59 of 60 left" in browser.text("#keys"))
        assert "day: no limit" in browser.text("#keys")
        browser.click("Top up")
        browser.until(lambda: browser.text("#credits") == "101")
        assert emulator.balance == 101

        browser.type("#add-key input", "key/of?<b>%2F")
        browser.click("Add the key")
        browser.until(lambda: len(browser.all("#keys li")) == 2)
        browser.click("Revoke: key/of?<b>%2F")
        browser.until(lambda: "revoked" in browser.text("#keys li:last-child"))
        browser.click("Make valid: key/of?<b>%2F")
        browser.until(lambda: "slots: 10 of 10" in browser.text("#keys li:last-child"))
        browser.type("#add-key input", "a key")
        browser.click("Add the key")
        browser.until(lambda: "without spaces" in browser.text("#said"))


def test_a_reset_must_be_confirmed(browser: Browser) -> None:
    """Nothing is lost when the dialog is dismissed."""
    with shown(browser, duration=0.0) as (emulator, client):
        create(client)
        browser.until(lambda: browser.all("#swaps li"))

        browser.click("Reset")
        browser.driver.switch_to.alert.dismiss()
        assert len(emulator.swaps) == 1
        browser.click("Reset")
        browser.driver.switch_to.alert.accept()
        browser.until(lambda: not browser.all("#swaps li"))
        browser.until(lambda: browser.find("#first").is_displayed())


def test_what_others_have_sent_stays_text(browser: Browser) -> None:
    """Metadata, URLs, keys, paths, bodies and faults, also where details are open."""
    settings = {"duration": 0.0, "api_key": "<img/src=x>", "clock": VirtualClock()}
    with shown(browser, **settings) as (emulator, client):
        emulator.add_fault(Fault("GET /me", faults.Status(500, "<b>code</b>", NASTY)))
        emulator.add_fault(Fault("GET /<b>*", faults.Status(500)))
        with pytest.raises(aifaceswap.ServerError):
            client.me()
        create(client, "&lt;b&gt;", metadata={NASTY: NASTY}, webhook_url=f"{HOOK}&lt;b&gt;")
        with pytest.raises(aifaceswap.BadRequestError):
            client.request("POST", "/swaps", json={NASTY: NASTY}, idempotency_key=TIGHT)
        browser.until(lambda: browser.all("#deliveries li"))
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        browser.until(lambda: "onerror" in browser.text("#swaps pre"))

        assert NASTY in json.loads(browser.text("#swaps pre"))["metadata"]
        assert TIGHT in browser.text("#requests")
        assert "face.jpg → &lt;b&gt;" in browser.text("#swaps")
        assert "&lt;b&gt;" in browser.text("#deliveries")
        assert "<b>code</b>" in browser.text("#faults")
        assert len(browser.all("script")) == len(browser.all("img")) == 1
        assert browser.all("b, [onerror]") == []
        assert browser.driver.title == "AI Face Swap emulator"


def test_the_latest_hundred_are_shown(browser: Browser) -> None:
    """Newest first, and how many there are."""
    with shown(browser, duration=0.0) as (_, client):
        ids = [create(client) for _ in range(105)]
        browser.until(lambda: browser.text("#swaps-count") == "the latest 100 of 105")
        browser.until(lambda: browser.text("#requests-count") == "the latest 100 of 105")
        shown_ids = browser.run(
            "return [...document.querySelectorAll('#swaps .pair code')].map(c => c.textContent)"
        )

        assert shown_ids == ids[:4:-1]
        create(client)
        browser.until(lambda: browser.text("#swaps-count") == "the latest 100 of 106")
        assert len(browser.all("#swaps li")) == len(browser.all("#requests tr")) == 100


def test_where_nothing_happens_little_is_asked(browser: Browser) -> None:
    """Of each list the latest alone, until there is another."""
    look = """
        const done = arguments[0];
        clearTimeout(timer);
        polls = 1;
        performance.clearResourceTimings();
        pollOnce().then(() => done(performance.getEntriesByType("resource").map(r => r.name)));
    """
    lists = [f"{name}?limit=1" for name in ("swaps", "requests", "deliveries")]
    with shown(browser, duration=0.0, clock=VirtualClock()) as (emulator, client):
        create(client)
        browser.until(lambda: browser.shows_picture("#swaps img"))
        turn(browser, hidden=True)
        asked = browser.driver.execute_async_script(look)

        prefix = f"{emulator.origin}/_emulator/"
        assert [url.removeprefix(prefix) for url in asked] == ["", *lists, "faults", "account"]


def turn(browser: Browser, *, hidden: bool) -> None:
    """Hide the tab, or show it again, as far as the page can tell."""
    script = """
        Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    """
    browser.run(script, hidden)
    browser.until(lambda: browser.text("#live") == ("Paused" if hidden else "Live"))


def test_a_hidden_page_rests(browser: Browser) -> None:
    """It plans no further look, and looks at once when it is seen again."""
    plan = """
        const [done, plan] = [arguments[0], window.setTimeout];
        let planned = 0;
        window.setTimeout = () => ++planned;
        poll().then(() => { window.setTimeout = plan; done(planned); });
    """
    with shown(browser, duration=0.0) as (_, client):
        assert browser.driver.execute_async_script(plan) == 1
        turn(browser, hidden=True)
        assert browser.driver.execute_async_script(plan) == 0
        create(client)
        turn(browser, hidden=False)
        browser.until(lambda: browser.all("#swaps li"))


def test_the_page_outlives_the_emulator(browser: Browser) -> None:
    """It says that nobody answers, and goes on when somebody does."""
    with shown(browser) as (emulator, _):
        port = int(emulator.origin.rpartition(":")[2])
    browser.until(lambda: browser.text("#live").endswith("does not respond. Trying again."))
    with Emulator(port=port) as emulator:
        browser.until(lambda: browser.text("#live") == "Live")
    assert browser.complaints() == []


# --- for everybody -------------------------------------------------------------------------

# The least contrast of any text with what is behind it, as WCAG counts it.
CONTRAST = """
const channels = text => text.match(/[\\d.]+/g).map(Number);
const light = text => channels(text).slice(0, 3).map(value => value / 255)
  .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
const behind = element => {
  const colour = getComputedStyle(element).backgroundColor;
  return (channels(colour)[3] ?? 1) ? colour : behind(element.parentElement);
};
const texts = [...document.querySelectorAll("body *:not(script, style, noscript)")].filter(
  element => element.checkVisibility()
    && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
return Math.min(...texts.map(element => {
  const both = [getComputedStyle(element).color, behind(element)].map(light);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_and_can_be_read(
    browser: Browser, size: tuple[int, int], scheme: str
) -> None:
    """With long names, in both colour schemes: no scrolling sideways, and enough contrast."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.resize(size)
    long = "x" * 300
    with (
        Emulator() as receiver,
        shown(browser, duration=0.0, api_key="k" * 200, deliver_to=receiver.origin) as (
            emulator,
            client,
        ),
    ):
        assert not browser.overflows()
        emulator.add_fault(Fault("GET /me", faults.Status(500, code=long)))
        emulator.add_fault(Fault("GET /*", faults.Latency(0.0), times=None))
        with pytest.raises(aifaceswap.ServerError):
            client.me()
        for name in ("target.jpg", "fails.jpg", "forever.jpg", f"{long}.jpg"):
            create(client, name, webhook_url=f"{HOOK}&{long}", idempotency_key=f"{name[:200]}")
        browser.until(lambda: len(browser.all("#swaps li")) == 4)
        browser.until(lambda: len(browser.all("#deliveries > li")) == 3)
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        browser.click("Switch on")

        assert not browser.overflows()
        assert browser.run(CONTRAST) >= 4.5


def test_everything_has_a_name(browser: Browser) -> None:
    """For who hears the page: controls, sections and lists that scroll; headings in order."""
    with shown(browser, duration=0.0) as (_, client):
        create(client)
        browser.until(lambda: browser.shows_picture("#swaps img"))
        controls = browser.all("input, select, textarea, button, a, img, section, [role=region]")

        assert [node for node in controls if not node.accessible_name and node.is_displayed()] == []
        levels = [int(node.tag_name[1]) for node in browser.all("h1, h2, h3")]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert browser.find("#said").aria_role == browser.find("#live").aria_role == "status"
