"""The pages of the examples in a real browser, where there is one."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest

from examples.apps import FACE, PATIENCE, TARGET, App, ask, require, running

NEEDED = [
    what
    for what, there in {
        "selenium": importlib.util.find_spec("selenium"),
        "chromium": shutil.which("chromium"),
        "chromedriver": shutil.which("chromedriver"),
    }.items()
    if not there
]
pytestmark = pytest.mark.skipif(bool(NEEDED), reason=f"{', '.join(NEEDED)} not installed")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --force-device-scale-factor=1"
)
PHONE = (390, 844)
DESKTOP = (1280, 800)


Factory: TypeAlias = pytest.TempPathFactory


class Browser:
    """A headless Chromium and the one page it shows."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def visit(self, url: str) -> None:
        """Show a page; what others have written to the console is forgotten."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(url)

    def find(self, selector: str) -> Any:
        """The one element that matches."""
        (element,) = self.driver.find_elements("css selector", selector)
        return element

    def text(self, selector: str) -> str:
        """The text that is shown of it."""
        shown: str = self.find(selector).text
        return shown

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(
            self.driver,
            PATIENCE,
            poll_frequency=0.05,
            # A page that loads itself anew may be between the two.
            ignored_exceptions=[StaleElementReferenceException, ValueError],
        )
        wait.until(lambda _: condition())

    def resize(self, size: tuple[int, int]) -> None:
        """Set the size of the page in CSS pixels: a window is never as narrow as a phone."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def overflows(self) -> bool:
        """Whether the page is wider than what shows it."""
        script = "const e = document.documentElement; return e.scrollWidth > e.clientWidth"
        return bool(self.driver.execute_script(script))

    def fill(self, source: str = FACE, target: str = TARGET) -> None:
        """Type two URLs over what is there."""
        for name, url in (("source_url", source), ("target_url", target)):
            self.find(f"#{name}").clear()
            self.find(f"#{name}").send_keys(url)

    def shows_picture(self) -> bool:
        """Whether a picture has been loaded and can be seen."""
        picture = self.find("img")
        script = "return arguments[0].complete && arguments[0].naturalWidth"
        return bool(picture.is_displayed() and self.driver.execute_script(script, picture) == 128)

    def complaints(self) -> list[str]:
        """What the page has written to the console, but for answers that are errors."""
        log = self.driver.get_log("browser")
        return [line["message"] for line in log if line["source"] != "network"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: Factory) -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="module", params=["fastapi", "aiohttp"])
def app(request: pytest.FixtureRequest, tmp_path_factory: Factory) -> Iterator[App]:
    """The two examples that share the page."""
    with _emulated(request.param, tmp_path_factory) as app:
        yield app


@pytest.fixture(scope="module", params=["django", "flask"])
def form_app(request: pytest.FixtureRequest, tmp_path_factory: Factory) -> Iterator[App]:
    """The two examples that share the form."""
    with _emulated(request.param, tmp_path_factory) as app:
        yield app


@contextmanager
def _emulated(name: str, folders: Factory) -> Iterator[App]:
    require(name)
    with running(name, folders.mktemp(name), "--emulator", "--duration", "3") as app:
        yield app


def made(app: App) -> int:
    """How many swaps the emulator of an example has made."""
    base_url, key = app.find(r"Emulator at (\S+), key"), app.find(r"key (\S+)\n")
    url, headers = f"{base_url}/swaps?limit=100", {"Authorization": f"Bearer {key}"}
    return len(ask("GET", url, None, headers).json["data"])


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_two_urls_become_a_picture(browser: Browser, app: App, size: tuple[int, int]) -> None:
    """By keyboard and mouse: the progress is shown, then the picture; and again after a reload."""
    before = made(app)
    browser.resize(size)
    browser.visit(f"{app.url}/")
    assert [label.text for label in browser.driver.find_elements("css selector", "label")] == [
        "Picture of the face",
        "Picture to put it into",
    ]
    assert not browser.find("img").is_displayed()
    browser.fill()
    assert not browser.overflows()
    browser.find("button").click()
    browser.until(lambda: float(browser.find("progress").get_attribute("value") or 0) > 0)
    assert "%" in browser.text("#status")
    browser.until(browser.shows_picture)

    assert not browser.find("progress").is_displayed()
    assert not browser.overflows()
    browser.driver.refresh()
    browser.until(browser.shows_picture)
    assert browser.find("#source_url").get_attribute("value") == FACE
    assert made(app) == before + 1
    assert browser.complaints() == []


def test_the_page_says_what_is_wrong(browser: Browser, app: App) -> None:
    """At the field, in words; a mended form is taken."""
    browser.visit(f"{app.url}/")
    browser.fill(target="http://<img src=x onerror=alert(1)>")
    browser.find("button").click()
    browser.until(lambda: browser.text("#problem").startswith("target_url: "))
    assert browser.find("#target_url").get_attribute("aria-invalid") == "true"
    assert browser.driver.switch_to.active_element == browser.find("#target_url")
    assert not browser.overflows()

    browser.fill("https://example.com/fails.jpg")
    browser.find("button").click()
    browser.until(lambda: "could not be swapped" in browser.text("#problem"))
    assert browser.find("#target_url").get_attribute("aria-invalid") == "false"
    assert browser.complaints() == []


def test_the_page_comes_back_when_it_is_asked_to(browser: Browser, app: App) -> None:
    """All ten slots are taken: it says so, and gets its picture when one is free."""
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: app.customer().order(FACE), range(10)))
    browser.visit(f"{app.url}/")
    browser.fill("https://example.com/instant.jpg")
    browser.find("button").click()
    browser.until(lambda: "Trying again in" in browser.text("#status"))
    browser.until(browser.shows_picture)
    assert browser.complaints() == []


def test_a_click_twice_is_one_swap(browser: Browser, app: App) -> None:
    """However fast."""
    before = made(app)
    browser.visit(f"{app.url}/")
    browser.fill("https://example.com/instant.jpg")
    browser.driver.execute_script(
        "const f = document.querySelector('form'); f.requestSubmit(); f.requestSubmit()"
    )
    browser.until(browser.shows_picture)

    assert made(app) == before + 1


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_form_becomes_a_picture(browser: Browser, form_app: App, size: tuple[int, int]) -> None:
    """Without a line of JavaScript: the page of the order loads itself anew until it has ended."""
    before = made(form_app)
    browser.resize(size)
    browser.visit(f"{form_app.url}/")
    browser.fill("http://example.com/face.jpg")
    browser.find("button").click()
    browser.until(lambda: browser.text("#problem").startswith("source_url: "))
    assert browser.find("#source_url").get_attribute("aria-invalid") == "true"
    assert browser.find("#target_url").get_attribute("value") == TARGET
    assert not browser.overflows()

    browser.fill()
    browser.find("button").click()
    browser.until(lambda: float(browser.find("progress").get_attribute("value") or 0) > 0)
    browser.until(browser.shows_picture)
    assert not browser.overflows()
    assert made(form_app) == before + 1
    assert browser.complaints() == []
