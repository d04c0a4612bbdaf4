"""The pictures are what the script makes of the benchmarks' output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.doc_pages import DOCS, pages

PLOTS = DOCS / "plots"
PICTURES = sorted(path.name for path in PLOTS.glob("*.svg"))


def texts(picture: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def maker(picture: str) -> str:
    """The matplotlib that drew it."""
    found = re.search(r"Matplotlib v[\d.]+", picture)
    assert found is not None
    return found[0]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pictures, drawn anew."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("plots")
    draw = [sys.executable, str(PLOTS / "draw.py"), "--into", str(folder)]
    subprocess.run(draw, check=True, capture_output=True)
    return folder


def test_every_picture_is_drawn_by_the_script(drawn: Path) -> None:
    """None was made by hand, none is left over."""
    assert sorted(path.name for path in drawn.iterdir()) == PICTURES


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_up_to_date(name: str, drawn: Path) -> None:
    """It says the same words and numbers; the same matplotlib gives the same bytes."""
    kept, fresh = ((folder / name).read_text(encoding="utf-8") for folder in (PLOTS, drawn))

    assert texts(kept) == texts(fresh) != []
    if maker(kept) == maker(fresh):
        assert kept == fresh


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_shown(name: str) -> None:
    """A picture that is on no page is not needed."""
    assert any(f"plots/{name}" in page.read_text(encoding="utf-8") for page in pages())


def test_the_data_says_what_it_was_measured_with() -> None:
    """A figure without its versions could not be repeated."""
    setting = json.loads((PLOTS / "benchmarks.json").read_text(encoding="utf-8"))["setting"]

    assert {"python", "aifaceswap", "aiohttp"} <= setting.keys()
