"""Every example in README and docs runs, against an emulator."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aifaceswap import errors
from aifaceswap.emulator import Emulator, Limits

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> dict[str, str]:
    """Each Python example by its page and line."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            if block[1] == "python":
                line = text.count("\n", 0, block.start()) + 2
                # Padded, so that a traceback names the line of the page.
                found[f"{page.name}:{line}"] = "\n" * (line - 1) + block[2]
    return found


EXAMPLES = examples()


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    limits = Limits(per_minute=None, per_day=None, concurrent=None)
    with Emulator(duration=0.1, limits=limits) as emulator:
        monkeypatch.setenv("AIFACESWAP_API_KEY", emulator.api_key)
        monkeypatch.setenv("AIFACESWAP_BASE_URL", emulator.base_url)
        monkeypatch.chdir(tmp_path)
        yield emulator


@pytest.mark.parametrize("place", EXAMPLES)
def test_an_example_runs(place: str, emulator: Emulator) -> None:
    """As it stands on its page, for a reader who has imported the package."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec("import aifaceswap", namespace)
    exec(compile(EXAMPLES[place], place, "exec"), namespace)


def test_the_readmes_main_job_does_what_it_says(tmp_path: Path) -> None:
    """One command from a checkout to a picture."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    install, _, command = BLOCK.findall(text)[0][1].strip().partition(" && ")
    assert install == "pip install '.[cli]'"
    words = shlex.split(command)
    assert words[0] == "aifaceswap"
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_the_tree_on_the_errors_page_is_the_one_in_the_code() -> None:
    """Both show the same picture."""
    assert errors.__doc__ is not None
    drawn = [line.strip() for line in errors.__doc__.splitlines() if "──" in line]
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert drawn == [line.strip() for line in page.splitlines() if "──" in line]


def test_every_link_between_pages_leads_somewhere() -> None:
    """No page points at one that does not exist."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} → {target}"
