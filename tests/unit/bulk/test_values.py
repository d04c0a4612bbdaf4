"""An outcome as a row of a data frame, and as a notebook shows it."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aifaceswap import ContentRejectedError, Outcome, Swap, SwapFailedError
from aifaceswap.bulk import _notebook

SIGNED = "https://example.com/r/1.jpg?X-Signature=secret"
GIF = b"GIF89a\x01\x00\x01\x00" + bytes(30) + b";"
NASTY = "<img src=x onerror=alert(1)>'\"&"

DONE = Outcome(
    row=7,
    idempotency_key="key-7",
    swap=Swap(
        id="tsk_1",
        status="done",
        type="image",
        credit_cost=1.5,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        result_url=SIGNED,
        metadata={"name": "Zoë", "tags": [1, 2]},
    ),
    path=Path("out/1.jpg"),
    attempts=1,
    seconds=2.00049,
)
REJECTED = Outcome(
    row=8,
    error=ContentRejectedError(
        "The image was rejected.", status=422, code="nsfw_content_detected", request_id="req_1"
    ),
)


def test_a_row_of_a_finished_swap() -> None:
    """Plain values under stable names; the URL is without its signature."""
    assert DONE.as_row() == {
        "row": 7,
        "ok": True,
        "is_open": False,
        "idempotency_key": "key-7",
        "path": str(Path("out/1.jpg")),
        "attempts": 1,
        "seconds": 2.0,
        "swap_id": "tsk_1",
        "swap_status": "done",
        "swap_type": "image",
        "swap_credit_cost": 1.5,
        "swap_created_at": datetime(2026, 1, 2, tzinfo=UTC),
        "swap_result_url": "https://example.com/r/1.jpg?…",
        "swap_metadata": '{"name": "Zoë", "tags": [1, 2]}',
        "error_type": None,
        "error_message": None,
        "error_code": None,
        "error_request_id": None,
    }


def test_a_row_of_an_error() -> None:
    """The same names, whatever is known: what is absent is None."""
    row = REJECTED.as_row()

    assert list(row) == list(DONE.as_row())
    assert {name: value for name, value in row.items() if name.startswith("error")} == {
        "error_type": "ContentRejectedError",
        "error_message": "The image was rejected.",
        "error_code": "nsfw_content_detected",
        "error_request_id": "req_1",
    }
    assert {value for name, value in row.items() if name.startswith("swap")} == {None}
    assert (row["ok"], row["path"]) == (False, None)


def test_metadata_that_are_not_json_make_a_row() -> None:
    """A finished swap is never lost to a cosmetic field."""
    swap = Swap(id="tsk_1", status="done", metadata={"at": datetime(2026, 1, 2, tzinfo=UTC)})
    metadata = Outcome(row=0, swap=swap).as_row()["swap_metadata"]
    assert json.loads(str(metadata)) == {"at": "2026-01-02 00:00:00+00:00"}


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str | None] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]


def html_of(outcome: Outcome) -> str:
    return outcome._repr_html_()


def test_a_notebook_shows_the_saved_image(tmp_path: Path) -> None:
    """From the file, never from a URL, and with what is known of the row."""
    path = tmp_path / "1.jpg"
    path.write_bytes(GIF)
    html = html_of(Outcome(row=7, swap=DONE.swap, path=path))

    url = f"data:image/gif;base64,{base64.b64encode(GIF).decode()}"
    assert _Tags(html).sources == [url]
    assert "tsk_1" in html
    assert "secret" not in html


@pytest.mark.parametrize("place", ["missing", "page", "large", "folder", "pipe", "nul\0"])
def test_a_notebook_shows_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A file that is missing, too large or not an image is named, and nothing is raised."""
    monkeypatch.setattr(_notebook, "_LARGEST", 1000)
    (tmp_path / "page").write_text("<svg onload=alert(1)>")
    (tmp_path / "large").write_bytes(GIF + bytes(1000))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    html = html_of(Outcome(row=7, path=tmp_path / place))

    assert _Tags(html).sources == []
    assert str(tmp_path) in html


def test_a_notebook_gets_text_as_text() -> None:
    """Nothing that others wrote becomes HTML, and no signature is stored in the notebook."""
    swap = Swap(id=NASTY, status=NASTY, metadata={NASTY: SIGNED}, result_url=f"{SIGNED}{NASTY}")
    error = SwapFailedError(f"{NASTY} at {SIGNED}", swap=swap)
    html = html_of(Outcome(row=0, idempotency_key=NASTY, swap=swap, error=error, path=Path(NASTY)))

    assert {*_Tags(html).tags} == {"table", "tr", "th", "td"}
    assert "secret" not in html
    assert "https://example.com/r/1.jpg?…" in html
