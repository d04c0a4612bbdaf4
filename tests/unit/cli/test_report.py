"""`aifaceswap bulk report`: one private page, without signatures and HTML of others."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import runpy
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import attrs
import pytest

from aifaceswap import ContentRejectedError, Swap, SwapFailedError
from aifaceswap.bulk._journal import JournalEntry, State, error_json, swap_json
from aifaceswap.cli import main
from aifaceswap.cli.bulk import report
from aifaceswap.emulator import _pyinstaller
from support.command_fixtures import Command
from support.journals import opened, write_entries
from support.samples import FACE, TARGET

GIF = b"GIF89a\x01\x00\x01\x00" + bytes(30) + b";"
NASTY = "</script><img src=x onerror=alert(1)><script>alert(1)</script>\u202e\x00"
SIGNED = "https://example.com/1.jpg?X-Signature=secret"
EMBED_ADVICE = "Leave out --embed: the page then shows the saved files."


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a folder of its own to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entry(number: int = 0, state: State = State.DONE, **fields: Any) -> JournalEntry:
    """A row of the journal."""
    body = {"source_url": FACE, "target_url": TARGET, "type": "image", **fields.pop("body", {})}
    fields = {"identity": bytes([number]), "key_id": 1, "sent_at": 1.0, **fields}
    return JournalEntry(number, state, f"key-{number}", json.dumps(body).encode(), **fields)


def finished(number: int = 0, **fields: Any) -> JournalEntry:
    """A row with a result."""
    path = fields.pop("path", None)
    swap = Swap(id=f"tsk_{number}", status="done", type="image", **fields)
    path = None if path is None else os.fsencode(path)
    return entry(number, swap_id=swap.id, swap_json=swap_json(swap), path=path, cost=1.5)


@attrs.define
class Page(HTMLParser):
    """A page as it was written: its tags, its text without scripts, and its data."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = attrs.field(factory=list)
    text: str = ""
    data: dict[str, Any] = attrs.field(factory=dict)
    _inside: str = ""

    def __attrs_post_init__(self) -> None:
        HTMLParser.__init__(self)
        self.feed(self.html)
        self.close()

    @classmethod
    def read(cls, path: str = "run.html") -> Page:
        return cls(Path(path).read_text("utf-8"))

    @property
    def rows(self) -> list[list[Any]]:
        rows: list[list[Any]] = self.data["rows"]
        return rows

    @property
    def policy(self) -> str:
        (policy,) = [value["content"] for _, value in self.tags if "http-equiv" in value]
        assert policy is not None
        return policy

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = "data" if dict(attrs).get("id") == "data" else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "data":
            self.data = json.loads(data)
        elif self._inside not in {"script", "style"}:
            self.text += f"{data} "


def write(*entries: JournalEntry) -> None:
    write_entries("run.sqlite", *entries)


@pytest.mark.usefixtures("service")
def test_the_page_of_a_run(command: Command) -> None:
    """Next to the journal and as private; counts and errors stand in it without scripts."""
    rows = f"{FACE},{TARGET}\n{FACE},https://example.com/fails.jpg\n"
    Path("rows.csv").write_text(f"source_url,target_url\n{rows}{FACE},https://example.com/nsfw.jpg")
    command("bulk", "rows.csv", "--output", "out")
    (image,) = Path("out").iterdir()
    outcome = command("bulk", "report", "rows.sqlite")

    assert outcome.data == {"journal": "rows.sqlite", "output": "rows.html", "rows": 3}
    assert outcome.err.startswith("Saved rows.html (3 rows, ")
    assert stat.S_IMODE(Path("rows.html").stat().st_mode) == 0o600
    page = Page.read("rows.html")
    assert re.search(r"Rows 3 +Failed 2 +Done 1 +Credits 2 ", page.text)
    assert "1 SwapFailedError processing_failed" in page.text
    assert "1 ContentRejectedError nsfw_content_detected" in page.text
    done, failed, rejected = page.rows
    assert (done[0], done[1], done[2], done[4]) == (0, "done", None, "image")
    assert done[8:11] == [[FACE], [TARGET], [str(image), "", ""]]
    assert failed[2] == "SwapFailedError processing_failed"
    assert (rejected[1], rejected[3], rejected[10]) == ("failed", None, None)
    assert page.data["images"] == []


def test_the_policy_allows_the_pages_own_script_alone(command: Command) -> None:
    """By its hash; images are files or in the page, and nothing is loaded from elsewhere."""
    write(finished())
    command("bulk", "report", "run.sqlite")
    page = Page.read()
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for content in re.findall(r"<(?:style|script)>(.*?)</", page.html, re.DOTALL)
    ]

    assert [part.strip() for part in page.policy.split(";")] == [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "img-src 'self' file: data:",
        f"script-src {hashes[1]}",
        f"style-src {hashes[0]}",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    attributes = {name for _, found in page.tags for name in found}
    assert not {name for name in attributes if name == "style" or name.startswith("on")}
    assert not attributes & {"src", "href", "action"}
    assert not re.search("innerHTML|outerHTML|insertAdjacent|document.write|{{", page.html)


def test_what_others_wrote_stays_text(command: Command) -> None:
    """Whatever stands in URLs, metadata, errors, ids and file names; no signature is kept."""
    bodies = {"source_url": SIGNED, "target_url": f"{FACE}{NASTY}", "metadata": {NASTY: SIGNED}}
    swap = Swap(id=NASTY, status="failed", error={"code": NASTY, "message": NASTY})
    error = ContentRejectedError(f"{NASTY} {SIGNED}", status=422, code=NASTY, request_id=NASTY)
    names = {"path": os.fsencode(f"{NASTY}.jpg"), "swap_id": NASTY}
    journal = "<img src=x onerror=alert(1)>.sqlite"
    write_entries(
        journal,
        entry(0, State.FAILED, body=bodies, error_json=error_json(error), **names),
        entry(
            1,
            State.FAILED,
            swap_json=swap_json(swap),
            error_json=error_json(SwapFailedError.of(swap)),
        ),
        finished(2, result_url=SIGNED),
        finished(3, path=b"\xff.jpg"),
        entry(4, State.FAILED, error_json=error_json(ContentRejectedError("\ud800", status=422))),
        entry(5, State.FAILED, error_json=error_json(ContentRejectedError("x" * 9999, status=422))),
    )
    command("bulk", "report", journal, "-o", "<b>.html")
    page = Page.read("<b>.html")

    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not {"img", "b"} & {tag for tag, _ in page.tags}
    assert "secret" not in page.html
    assert "\u202e" not in page.text
    first, _, signed, odd, half, long = page.rows
    assert first[8] == "https://example.com/1.jpg?…"
    assert first[9] == f"{FACE}{NASTY}"
    assert json.loads(first[12]) == {NASTY: "https://example.com/1.jpg?…"}
    assert first[10] == f"{NASTY}.jpg"
    assert first[13] == f"{NASTY} https://example.com/1.jpg?…"
    assert signed[10] == "https://example.com/1.jpg?…"
    assert (odd[10], half[13], len(long[13])) == ("\udcff.jpg", "\ud800", 2001)


@pytest.mark.parametrize("name", ["1 ü#?%.jpg", "a:b.jpg", "-.jpg", b"\xff.jpg"])
def test_saved_images_are_shown_from_their_files(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str | bytes
) -> None:
    """Relative to the page if they are below its folder, from wherever the page is made."""
    path = Path("out", os.fsdecode(name))
    path.parent.mkdir()
    path.write_bytes(GIF)
    write(finished(0, path=path), finished(1, path=path.resolve()), finished(2, path="gone"))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    command("bulk", "report", "../run.sqlite", "-o", "../run.html")
    command("bulk", "report", "../run.sqlite", "-o", "run.html")

    def links(page: Page) -> list[str]:
        return [row[10][1] or row[10][0] for row in page.rows[:2]]

    beside, elsewhere = Page.read("../run.html"), Page.read()
    assert [file_of(link, folder) for link in links(beside)] == [folder / path] * 2
    assert links(elsewhere) == [(folder / path).as_uri()] * 2
    assert beside.rows[2][10] == "gone"


def file_of(link: str, folder: Path) -> Path:
    """The file that a relative link leads to."""
    url = urlsplit(urljoin((folder / "run.html").as_uri(), link))
    assert url.scheme == "file"
    return Path(os.fsdecode(unquote_to_bytes(url.path)))


def test_local_files_are_shown(command: Command) -> None:
    """A source or target that was published is its file; what has no path is its URL."""
    Path("face.gif").write_bytes(GIF)
    gone = str(Path("gone.gif").resolve())
    files = {"source": {"path": str(Path("face.gif").resolve())}, "target": {"path": gone}}
    write(
        entry(0, files=json.dumps(files), body={"source_url": SIGNED, "target_url": SIGNED}),
        entry(1, files=json.dumps({"source": {"path": None}}), body={"source_url": SIGNED}),
        entry(2, body={"source_url": None}),
    )
    command("bulk", "report", "run.sqlite", "--embed")
    page = Page.read()

    assert page.rows[0][8:10] == [[files["source"]["path"], "face.gif", 0], gone]
    assert page.rows[1][8:10] == ["https://example.com/1.jpg?…", [TARGET]]
    assert page.rows[2][8] is None


def test_embedded_images(command: Command) -> None:
    """Each file once, whatever its name says; what is not an image stays a file."""
    Path("1.jpg").write_bytes(GIF)
    Path("2.jpg").write_text("<svg onload=alert(1)>")
    write(finished(0, path="1.jpg"), finished(1, path="1.jpg"), finished(2, path="2.jpg"))
    command("bulk", "report", "run.sqlite", "--embed")
    page = Page.read()

    assert page.data["images"] == [f"data:image/gif;base64,{base64.b64encode(GIF).decode()}"]
    images = [["1.jpg", "", 0], ["1.jpg", "", 0], ["2.jpg", "", ""]]
    assert images == [row[10] for row in page.rows]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("_MOST_EMBEDDED", 1, "the journal has 2 rows, more than 1"),
        ("_MOST_BYTES", 60, "its images are larger than 0 MiB together"),
    ],
)
def test_too_much_to_embed(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: int, reason: str
) -> None:
    """It says why, and an older page stays."""
    monkeypatch.setattr(report, name, value)
    for number in (1, 2):
        Path(f"{number}.gif").write_bytes(GIF)
    write(finished(0, path="1.gif"), finished(1, path="2.gif"))
    Path("run.html").write_text("older")
    outcome = command("bulk", "report", "run.sqlite", "--embed")

    assert (outcome.code, outcome.next) == (1, EMBED_ADVICE)
    assert reason in outcome.err
    assert Path("run.html").read_text() == "older"
    assert sorted(Path().glob(".*")) == []


def test_remote_images_are_asked_for(command: Command) -> None:
    """Then the page has the complete URLs, and the policy allows them."""
    write(finished(0, result_url=SIGNED), finished(1, result_url="http://127.0.0.1/1.jpg"))
    command("bulk", "report", "run.sqlite", "--remote-images")
    page = Page.read()

    assert "img-src 'self' file: data: https:;" in page.policy
    assert page.rows[0][8:11] == [
        [FACE, "", ""],
        [TARGET, "", ""],
        ["https://example.com/1.jpg?…", SIGNED, ""],
    ]
    assert page.rows[1][10] == ["http://127.0.0.1/1.jpg"]


async def test_a_report_while_a_run_writes(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is only read: the run keeps its lock, and rows in progress are counted."""
    monkeypatch.setattr(report, "_STEP", 1)
    async with opened("run.sqlite") as journal:
        await journal.write(entry(0, State.CREATED, swap_id="tsk_0"))
        assert command("bulk", "report", "run.sqlite").code == 0
        await journal.write(finished(1))

    assert re.search("Rows 1 +In progress 1 ", Page.read().text)


def test_a_report_on_stdout(capsysbinary: pytest.CaptureFixture[bytes], folder: Path) -> None:
    """The page alone, byte for byte; no file is made."""
    write(finished())
    code = main(["bulk", "report", "run.sqlite", "-o", "-"])
    out, err = capsysbinary.readouterr()

    assert (code, err) == (0, b"")
    assert out.startswith(b"<!doctype html>")
    assert out.endswith(b"</html>\n")
    assert [path.name for path in folder.iterdir()] == ["run.sqlite"]


def test_a_frozen_executable_gets_the_template() -> None:
    """PyInstaller's hook for the module names it, where the module reads it."""
    (hooks,) = _pyinstaller.get_hook_dirs()
    ((source, target),) = runpy.run_path(f"{hooks}/hook-{report.__name__}.py")["datas"]

    assert Path(source) == Path(report.__file__).with_name("report.html")
    assert Path(source).is_file()
    assert target == report.__package__.replace(".", "/")
