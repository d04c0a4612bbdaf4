"""A headless Chromium and the one page it shows."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NEEDED = {
    "selenium": importlib.util.find_spec("selenium"),
    "chromium": shutil.which("chromium"),
    "chromedriver": shutil.which("chromedriver"),
}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --force-device-scale-factor=1"
)
TIMEOUT = 90.0
PHONE = (390, 844)
DESKTOP = (1280, 800)


class Browser:
    """What a person does with a page, and sees of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def visit(self, url: str) -> None:
        """Show a page; what others have written to the logs is forgotten."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def find(self, selector: str) -> Any:
        """The one element that matches."""
        (element,) = self.all(selector)
        return element

    def all(self, selector: str) -> list[Any]:
        """The elements that match."""
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def text(self, selector: str) -> str:
        """The text that is shown of it."""
        shown: str = self.find(selector).text
        return shown

    def type(self, selector: str, text: str) -> None:
        """Type over what is there."""
        self.find(selector).clear()
        self.find(selector).send_keys(text)

    def click(self, name: str, within: str = "body") -> None:
        """Click on the button with this name, as a screen reader tells it."""
        (button,) = [
            button
            for button in self.all(f"{within} button")
            if button.is_displayed() and button.accessible_name == name
        ]
        # Not below what stays at the top of a page.
        self.run("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def run(self, script: str, *arguments: object) -> Any:
        """The result of a script."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(
            self.driver,
            TIMEOUT,
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
        return bool(self.run(script))

    def shows_picture(self, selector: str = "img") -> bool:
        """Whether a picture of the service has been loaded and can be seen."""
        picture = self.find(selector)
        script = "return arguments[0].complete && arguments[0].naturalWidth"
        return bool(picture.is_displayed() and self.run(script, picture) == 128)

    def complaints(self) -> list[str]:
        """What the page has written to the console, but for answers that are errors."""
        log = self.driver.get_log("browser")
        return [line["message"] for line in log if line["source"] != "network"]

    def sent(self) -> list[str]:
        """The URLs that the page has asked for since it was shown, or the last look."""
        log = self.driver.get_log("performance")
        events = [json.loads(line["message"])["message"] for line in log]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start one, or skip the test where something is missing."""
    missing = [name for name, there in NEEDED.items() if not there]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    from selenium.common.exceptions import WebDriverException

    try:
        driver = _start(profile)
    except WebDriverException:  # another one has taken the port that it had chosen
        driver = _start(profile)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def _start(profile: Path) -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, Service(shutil.which("chromedriver")))
