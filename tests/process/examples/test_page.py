"""The pages of the examples in a real browser, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

import pytest

from process.examples.apps import App, require, running, send_request
from support.browser import DESKTOP, PHONE, Browser
from support.samples import FACE, TARGET

Factory: TypeAlias = pytest.TempPathFactory


def fill(browser: Browser, source: str = FACE, target: str = TARGET) -> None:
    """Type two URLs over what is there."""
    browser.type("#source_url", source)
    browser.type("#target_url", target)


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
    return len(send_request("GET", url, None, headers).json["data"])


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_two_urls_become_a_picture(browser: Browser, app: App, size: tuple[int, int]) -> None:
    """By keyboard and mouse: the progress is shown, then the picture; and again after a reload."""
    before = made(app)
    browser.resize(size)
    browser.visit(f"{app.url}/")
    assert [label.text for label in browser.all("label")] == [
        "Photo of the face",
        "Photo to put it into",
    ]
    assert not browser.find("img").is_displayed()
    fill(browser)
    assert not browser.overflows()
    browser.find("button").click()
    browser.until(lambda: float(browser.find("progress").get_attribute("value") or 0) > 0)
    assert "%" in browser.text("#status")
    browser.until(browser.shows_picture)

    assert browser.find("#save a").get_attribute("href") == browser.find("img").get_attribute("src")
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
    fill(browser, target="http://<img src=x onerror=alert(1)>")
    browser.find("button").click()
    browser.until(lambda: "other photo" in browser.text("#problem"))
    assert browser.find("#target_url").get_attribute("aria-invalid") == "true"
    assert browser.driver.switch_to.active_element == browser.find("#target_url")
    assert not browser.overflows()

    fill(browser, "https://example.com/fails.jpg")
    browser.find("button").click()
    browser.until(lambda: "could not be made" in browser.text("#problem"))
    assert browser.find("#target_url").get_attribute("aria-invalid") == "false"
    assert browser.complaints() == []


def test_the_page_comes_back_when_it_is_asked_to(browser: Browser, app: App) -> None:
    """All ten slots are taken: it says so, and gets its picture when one is free."""
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: app.customer().order(FACE), range(10)))
    browser.visit(f"{app.url}/")
    fill(browser, "https://example.com/instant.jpg")
    browser.find("button").click()
    browser.until(lambda: "Trying again in" in browser.text("#status"))
    browser.until(browser.shows_picture)
    assert browser.complaints() == []


def test_a_click_twice_is_one_swap(browser: Browser, app: App) -> None:
    """However fast."""
    before = made(app)
    browser.visit(f"{app.url}/")
    fill(browser, "https://example.com/instant.jpg")
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
    fill(browser, "http://example.com/face.jpg")
    browser.find("button").click()
    browser.until(lambda: "photo of the face" in browser.text("#problem"))
    assert browser.find("#source_url").get_attribute("aria-invalid") == "true"
    assert browser.find("#target_url").get_attribute("value") == TARGET
    assert not browser.overflows()

    fill(browser)
    browser.find("button").click()
    browser.until(lambda: float(browser.find("progress").get_attribute("value") or 0) > 0)
    browser.until(browser.shows_picture)
    assert not browser.overflows()
    assert made(form_app) == before + 1
    assert browser.complaints() == []
