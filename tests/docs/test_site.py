"""The built pages: no warning, no dead link, nothing from elsewhere, nothing that overflows."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
import pytest

from support.doc_pages import DOCS, pages

BUILDERS = ("sphinx", "furo", "myst_parser")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BROWSER = {
    "selenium": importlib.util.find_spec("selenium"),
    "chromium": CHROMIUM,
    "chromedriver": shutil.which("chromedriver"),
}
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
]
PHONE, DESKTOP = (390, 844), (1280, 900)
# What sticks out of the page, and is not in a box of its own that scrolls.
TOO_WIDE = """
const scrolls = element => element.tagName !== "ARTICLE" && (
    ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
    || scrolls(element.parentElement));
return [...document.querySelectorAll("article *")]
    .filter(element => element.getBoundingClientRect().right > window.innerWidth + 1)
    .filter(element => !scrolls(element))
    .map(element => element.outerHTML.slice(0, 100));
"""
# Building takes longer than a test may, beside others on a busy machine.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as HTML, built as `nox -s docs` does."""
    for builder in BUILDERS:
        pytest.importorskip(builder)
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", str(DOCS), str(out)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


def sheets(site: Path) -> list[Path]:
    """The pages; files that are only handed out are none."""
    found = (path.relative_to(site) for path in site.rglob("*.html"))
    return [path for path in sorted(found) if path.parts[0] not in {"_static", "_downloads"}]


# --- links -----------------------------------------------------------------------------------


@attrs.define
class Page(HTMLParser):
    """The links and anchors of one page."""

    links: list[str] = attrs.field(factory=list)
    loads: list[str] = attrs.field(factory=list)
    anchors: set[str] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found[name] or "" for name in ("id", "name") if name in found}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"] or "")
        if tag == "link" and found.get("rel") == "stylesheet":
            self.loads.append(found["href"] or "")
        if tag in {"script", "img", "iframe", "source"} and found.get("src"):
            self.loads.append(found["src"] or "")


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    found = {}
    for path in sheets(site):
        found[site / path] = page = Page()
        page.feed((site / path).read_text(encoding="utf-8"))
    return found


def test_every_page_is_built(built: dict[Path, Page], site: Path) -> None:
    """Each page below docs has its HTML."""
    written = {page.relative_to(DOCS).with_suffix(".html") for page in pages()[1:]}

    assert written <= {path.relative_to(site) for path in built}


def test_every_inside_link_leads_somewhere(built: dict[Path, Page]) -> None:
    """To a file that is there and, where the link names one, to an anchor on it."""
    dead = []
    for path, page in built.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = built[target].anchors if target in built else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                dead.append(f"{path.name} → {link}")

    assert dead == []


def test_nothing_is_loaded_from_elsewhere(built: dict[Path, Page]) -> None:
    """The pages work without a network, and tell nobody who reads them."""
    foreign = {load for page in built.values() for load in page.loads if urlsplit(load).netloc}

    assert foreign == set()


def test_llms_txt_names_every_page(site: Path) -> None:
    """The table of contents for language models is whole, and so is the text."""
    index = (site / "llms.txt").read_text(encoding="utf-8")
    whole = (site / "llms-full.txt").read_text(encoding="utf-8")
    for page in pages()[1:]:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        if name != "index":
            assert f"]({name}.html)" in index
            assert page.read_text(encoding="utf-8").strip() in whole


# --- in a browser ----------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    missing = [name for name, there in BROWSER.items() if not there]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    from selenium.common.exceptions import WebDriverException

    profile = str(tmp_path_factory.mktemp("chromium"))
    try:
        driver = _start(profile)
    except WebDriverException:  # another one has taken the port that it had chosen
        driver = _start(profile)
    yield driver
    driver.quit()


def _start(profile: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


def _resize(browser: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_overflows(size: tuple[int, int], site: Path, url: str, browser: Any) -> None:
    """No page has to be scrolled sideways."""
    _resize(browser, *size)
    wide = {}
    for name in map(Path.as_posix, sheets(site)):
        browser.get(f"{url}/{name}")
        width, room = browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        sticking_out = browser.execute_script(TOO_WIDE)
        if width > room or room != size[0] or sticking_out:
            wide[name] = (width, room, sticking_out)

    assert wide == {}


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("429", "Rate limits"),
        ("idempotency", "Idempotency and safe retries"),
        ("install", "Installation"),
        ("proxy", "Proxies and TLS"),
        ("timeout", "Waiting and polling"),
        ("webhook", "Webhooks"),
    ],
)
def test_the_search_finds_the_page(words: str, title: str, url: str, browser: Any) -> None:
    """Without a server behind it, and the page is among the first hits."""
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get(f"{url}/search.html?q={words}")
    found = WebDriverWait(browser, 60).until(
        lambda page: (
            page.find_elements("css selector", ".search-summary")
            and page.execute_script(
                "return [...document.querySelectorAll('#search-results li a')]"
                ".map(a => a.innerText)"
            )
        )
    )

    assert title in found[:3]


def test_every_picture_is_seen(site: Path, url: str, browser: Any) -> None:
    """Pictures are loaded, and say in words what they show."""
    _resize(browser, *DESKTOP)
    seen = set()
    for path in sheets(site):
        browser.get(f"{url}/{path.as_posix()}")
        for width, words, source in browser.execute_script(
            "return [...document.querySelectorAll('article img')]"
            ".map(image => [image.naturalWidth, image.alt, image.src])"
        ):
            assert width > 0, source
            assert words, source
            seen.add(Path(urlsplit(source).path).name)

    assert {plot.name for plot in DOCS.glob("plots/*.svg")} <= seen
