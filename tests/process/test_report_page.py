"""The page of `aifaceswap bulk report` in a real browser, where there is one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest

from aifaceswap import Client, ContentRejectedError, Swap
from aifaceswap.bulk._journal import JournalEntry, State, error_json, swap_json
from aifaceswap.cli import main
from aifaceswap.emulator import Emulator
from support.browser import DESKTOP, PHONE, Browser
from support.journals import write_entries

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
# Keys as WebDriver names them.
CONTROL, RELEASE = "\ue009", "\ue000"
TAKEN = "document.title='taken'"
PAYLOADS = [
    f"</script><script>{TAKEN}</script>",
    f'"><img src=x onerror="{TAKEN}">',
    f"<svg/onload={TAKEN}>",
    f"<!--<script>{TAKEN}//",
    f"javascript:{TAKEN}",
    f"&lt;img src=x onerror={TAKEN}&gt; {{{{rows}}}} ${{{TAKEN}}}",
    f"\u202e\x00 {'w' * 400}",
]


def entry(number: int, state: State, payload: str = "", path: Path | None = None) -> JournalEntry:
    """A row of which everything that others can write has a payload in it."""
    urls = {"source_url": f"https://example.com/{payload}", "target_url": payload}
    body = {**urls, "type": payload or "image", "metadata": {payload or "order": payload or number}}
    swap = Swap(
        id=f"tsk_{number}{payload}",
        status=state.name.lower(),
        type=payload,
        error={"code": payload, "message": payload} if payload else None,
        result_url=payload or None,
    )
    error = ContentRejectedError(f"Rejected. {payload}", status=422, code=payload or "nsfw")
    failed = state == State.FAILED
    return JournalEntry(
        number,
        state,
        f"key-{number}{payload}",
        json.dumps(body).encode(),
        identity=number.to_bytes(4, "big"),
        key_id=1,
        sent_at=1.0,
        swap_id=swap.id,
        swap_json=swap_json(swap),
        error_json=error_json(error) if failed else None,
        path=None if path is None else os.fsencode(path),
        cost=1.0,
        seconds=2.5,
    )


@attrs.frozen
class Folder:
    """A folder with a journal, its page and an image."""

    path: Path
    image: Path

    def show(self, browser: Browser, *entries: JournalEntry, options: tuple[str, ...] = ()) -> None:
        """Write a journal and its page, and open that."""
        journal = self.path / "run.sqlite"
        journal.unlink(missing_ok=True)
        write_entries(journal, *entries)
        assert main(["bulk", "report", str(journal), *options]) == 0
        browser.visit((self.path / "run.html").as_uri())
        browser.until(browser.find("#main").is_displayed)


@pytest.fixture(scope="module")
def image() -> bytes:
    """The result of a swap."""
    url = "https://example.com/instant.jpg"
    with (
        Emulator(duration=0.0) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url) as client,
    ):
        return client.swaps.fetch(client.swaps.run(source_url=url, target_url=url)).data


@pytest.fixture
def folder(tmp_path: Path, image: bytes) -> Folder:
    """A folder with an image, whose name needs quoting."""
    path = tmp_path / "1 ü#?%'\".jpg"
    path.write_bytes(image)
    return Folder(tmp_path, path)


def rows(browser: Browser) -> list[str]:
    """The titles of the rows that are shown."""
    script = "return [...document.querySelectorAll('#rows strong')].map(row => row.textContent)"
    titles: list[str] = browser.run(script)
    return titles


@SIZES
def test_what_others_wrote_is_only_text(
    browser: Browser, folder: Folder, size: tuple[int, int]
) -> None:
    """Of each payload, wherever it stands: it is shown, runs nothing, loads nothing, and fits."""
    browser.resize(size)
    entries = [entry(number, State.FAILED, text) for number, text in enumerate(PAYLOADS, 1)]
    nasty = folder.path / "<img src=x onerror=alert(1)>.jpg"
    nasty.write_bytes(folder.image.read_bytes())
    folder.show(browser, entry(0, State.DONE, path=nasty), *entries)
    browser.until(browser.shows_picture)
    for details in browser.all("#rows summary"):
        details.click()

    assert browser.driver.title == "Bulk run run.sqlite"
    assert browser.run("return document.querySelectorAll('script, svg').length") == 1
    assert PAYLOADS[1] in browser.text("#rows li:nth-child(3)")
    assert PAYLOADS[0] in browser.text("table")
    assert not browser.overflows()
    assert browser.complaints() == []
    assert {url.partition(":")[0] for url in browser.sent()} == {"file"}
    assert all(
        link.get_attribute("href").startswith(("https://example.com/", "file:"))
        for link in browser.all("#rows a")
    )


@SIZES
def test_rows_are_searched_filtered_and_turned(
    browser: Browser, folder: Folder, size: tuple[int, int]
) -> None:
    """Fifty rows a page; search and filters apply together, and a page can be named."""
    browser.resize(size)
    states = [State.DONE] * 100 + [State.FAILED] * 20 + [State.CREATED]
    folder.show(browser, *(entry(number, state) for number, state in enumerate(states)))
    assert browser.text("#found") == "Rows 1 to 50 of 121"
    assert rows(browser) == [f"Row {number}" for number in range(50)]
    assert browser.find("#previous").get_property("disabled")

    browser.click("Next", ".pages")
    browser.click("Next", ".pages")
    assert rows(browser) == [f"Row {number}" for number in range(100, 121)]
    assert browser.driver.switch_to.active_element == browser.find("#title")
    assert browser.find("#next").get_property("disabled")
    # Selected first: an empty field would be a page, too.
    browser.find("#page").send_keys(f"{CONTROL}a{RELEASE}2\n")
    assert rows(browser)[0] == "Row 50"

    browser.find("#state option[value=failed]").click()
    assert browser.text("#found") == "Rows 1 to 20 of 20"
    browser.find("#kind option:last-child").click()
    browser.type("#search", "  KEY-11")
    browser.until(lambda: browser.text("#found") == "Rows 1 to 10 of 10")
    browser.type("#search", "row 5")
    browser.until(lambda: browser.text("#found") == "No rows match")
    browser.find("#state option[value='']").click()
    browser.find("#kind option[value='']").click()
    assert rows(browser) == ["Row 5", *(f"Row {number}" for number in range(50, 60))]
    assert not browser.overflows()
    assert browser.complaints() == []


def test_a_row_is_complete(browser: Browser, folder: Folder) -> None:
    """Images side by side, cost, time, and keys that can be copied."""
    browser.resize(PHONE)
    folder.show(
        browser, entry(7, State.DONE, path=folder.image), entry(8, State.DONE, path=Path("gone"))
    )
    browser.until(browser.shows_picture)
    figures = browser.all("#rows li:first-child figure")
    assert [figure.text.partition(":")[0] for figure in figures] == ["Source", "Target", "Result"]
    assert len({figure.location["y"] for figure in figures}) == 1
    assert "Row 7 done image 1 credit 2.5 s" in " ".join(
        browser.text("#rows li:first-child").split()
    )

    swap, key = browser.all("#rows li:first-child .line button")
    key.click()
    browser.until(lambda: key.text == "Copied")
    assert browser.run("return String(getSelection())") == "key-7"
    assert swap.text == "Copy"
    assert browser.all("#rows li:last-child img") == []


def test_embedded_images_need_no_file(browser: Browser, folder: Folder) -> None:
    """The page alone shows them; a file that goes missing later is named."""
    rows = (entry(0, State.DONE, path=folder.image),)
    folder.show(browser, *rows, options=("--embed",))
    folder.image.rename(folder.path / "elsewhere")
    browser.driver.refresh()
    browser.until(browser.shows_picture)
    assert browser.find("img").get_attribute("src").startswith("data:image/jpeg;base64,")

    (folder.path / "elsewhere").rename(folder.image)
    folder.show(browser, *rows)
    folder.image.unlink()
    browser.driver.refresh()
    browser.until(lambda: "Not loaded" in browser.text("#rows"))


def test_remote_images_are_loaded_if_that_is_asked_for(browser: Browser, folder: Folder) -> None:
    """Their URLs are requested complete; what cannot be loaded is named."""
    row = entry(0, State.DONE)
    urls = {"source_url": "https://images.invalid/1.jpg?signature=1", "target_url": "x"}
    folder.show(
        browser, attrs.evolve(row, body=json.dumps(urls).encode()), options=("--remote-images",)
    )
    browser.until(lambda: "Not loaded" in browser.text("#rows"))
    assert urls["source_url"] in browser.sent()
    assert "signature" not in browser.text("#rows")
    assert browser.complaints() == []


def test_counts_are_readable_without_scripts(browser: Browser, folder: Folder) -> None:
    """Counts and errors; the page says what needs scripts."""
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        journal = folder.path / "run.sqlite"
        write_entries(journal, entry(0, State.DONE), entry(1, State.FAILED))
        assert main(["bulk", "report", str(journal)]) == 0
        browser.visit((folder.path / "run.html").as_uri())
        counts = " ".join(browser.text("dl").split())
        assert counts.startswith("Rows 2 Done 1 Failed 1 Credits 2 Made 20")
        assert "ContentRejectedError nsfw Rejected." in browser.text("table")
        assert "need JavaScript" in browser.text("body")
        assert not browser.find("#main").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
