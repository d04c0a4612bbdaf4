"""Every example in README and docs runs, against an emulator; every command prints what it says."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aifaceswap import errors
from aifaceswap.emulator import Emulator, Limits
from support.buckets import GIF, JPEG
from support.doc_pages import (
    DOCS,
    ROOT,
    Block,
    Command,
    Terminal,
    blocks,
    commands,
    fences,
    name_of,
    pages,
)

PAGES = {name_of(page): page for page in pages()}
EXAMPLES = {
    f"{name}:{block.line}": block
    for name, page in PAGES.items()
    for block in blocks(page)
    if block.language == "python" and not block.file
}
# Shown, not run: commands that install or need another machine, files, and drawings.
ONLY_SHOWN = {"bash", "sh", "text", "toml", "yaml", "json", "ini"}
# Commands whose output is an example, by their beginnings: they need a key of the reader's, the
# network, an hour, or a hand at Ctrl-C. What they print is tested with the command line.
NOT_COMPARED = {
    "docs/command-line.md": (
        *("pip", "aifaceswap create", "aifaceswap list", "aifaceswap me", "aifaceswap run"),
        *("aifaceswap bulk", "aifaceswap webhook", "aifaceswap doctor", "aifaceswap emulator"),
    )
}
# What commands of a page run that the package does not bring.
NEEDED = {
    "docs/guides/migrating.md": ["requests"],
}
# Python for packages that need not be here; another test runs it and names the page.
RUN_ELSEWHERE = "py"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    limits = Limits(per_minute=None, per_day=None, concurrent=None)
    with Emulator(duration=0.1, limits=limits) as emulator:
        monkeypatch.setenv("AIFACESWAP_API_KEY", emulator.api_key)
        monkeypatch.setenv("AIFACESWAP_BASE_URL", emulator.base_url)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "face.jpg").write_bytes(JPEG)
        (tmp_path / "party.gif").write_bytes(GIF)
        yield emulator


# --- examples and commands -------------------------------------------------------------------


@pytest.mark.parametrize("place", EXAMPLES)
@pytest.mark.usefixtures("emulator")
def test_an_example_runs(place: str) -> None:
    """As it stands on its page, for a reader who has imported the package."""
    block = EXAMPLES[place]
    # Padded, so that a traceback names the line of the page.
    code = compile("\n" * (block.line - 1) + block.text, place, "exec")
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec("import aifaceswap", namespace)
    exec(code, namespace)


WITH_COMMANDS = [
    name
    for name, page in PAGES.items()
    if any(block.language == "console" for block in blocks(page))
    and page.parent.name != "tutorials"  # test_tutorials.py carries those out, twice
]


# Real programs, one after the other: a busy machine takes its time.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_print_what_the_page_shows(name: str, tmp_path: Path) -> None:
    """Carried out in the page's order, with the files that the page tells to save."""
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    terminal = Terminal(tmp_path)
    try:
        for block in blocks(PAGES[name]):
            if block.file:
                terminal.save(block.file, block.text)
            elif block.language == "console":
                for command in commands(block):
                    if not command.line.startswith(NOT_COMPARED.get(name, ())):
                        terminal.carry_out(command)
    finally:
        terminal.close()


# --- nothing is left out ---------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_no_code_of_a_page_goes_unseen(name: str) -> None:
    """Each block is one that is run, or of a kind that is only shown."""
    page = PAGES[name]
    found = blocks(page)

    assert 2 * len(found) == fences(page), "a fence is indented, unnamed or not closed"
    kinds = {block.language for block in found if block.language[0] != "{"}
    assert kinds <= {"python", "console", RUN_ELSEWHERE, *ONLY_SHOWN}
    if RUN_ELSEWHERE in kinds:
        assert page.name in _other_tests(), f"no test runs the `py` blocks of {name}"


def _other_tests() -> str:
    files = (ROOT / "tests").rglob("test_*.py")
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("name", PAGES)
def test_every_file_of_a_page_is_used(name: str) -> None:
    """What a reader is told to save is what a command or another file then runs."""
    found = blocks(PAGES[name])
    said = "\n".join(block.text for block in found if block.language == "console")
    for block in found:
        if block.file:
            stem = Path(block.file).stem
            uses = said + "\n".join(other.text for other in found if other is not block)
            assert re.search(rf"\b{stem}\b", uses), f"{block.file} is never run"
            assert block.language != RUN_ELSEWHERE


def test_every_page_below_docs_is_looked_at() -> None:
    """Whatever Sphinx builds, in whatever folder, is in these tests."""
    built = {path for path in DOCS.rglob("*") if path.suffix in {".md", ".rst", ".txt", ".ipynb"}}

    assert {path for path in built if "_build" not in path.parts} <= {*PAGES.values()}


# --- the checks themselves -------------------------------------------------------------------


def test_a_command_is_compared_with_all_it_prints() -> None:
    """Only `…` may differ: within a line, or as whole lines."""
    shown = Command("x", "a … c\n…\nend")

    assert shown.printed("a b c\nend")
    assert shown.printed("a b c\n1\n2\nend")
    assert not shown.printed("a b c\n1\nend\nmore")
    assert not shown.printed("a b\nend")
    assert shown.printed("a b c\nend\nmore", so_far=True)
    assert Command("x", f"tsk_{'0' * 24} 1").printed(f"tsk_{'1' * 24} 1")
    assert not Command("x", f"tsk_{'0' * 24} 1").printed(f"tsk_{'1' * 24} 2")


def test_a_wrong_page_is_told(tmp_path: Path) -> None:
    """Another output, a failure without one, and output without a command are all errors."""
    terminal = Terminal(tmp_path)
    terminal.carry_out(Command("echo 1; exit 1", "1"))

    with pytest.raises(AssertionError, match="is not"):
        terminal.carry_out(Command("echo 1", "2"))
    with pytest.raises(AssertionError, match="exit 1"):
        terminal.carry_out(Command("exit 1", ""))
    with pytest.raises(AssertionError, match="line 7"):
        list(commands(Block("console", "1\n$ echo 1\n", 7)))


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_installed_from_an_index(name: str) -> None:
    """There is no release yet: pages install from a folder, and one line says what comes later."""
    text = PAGES[name].read_text(encoding="utf-8")
    lines = re.findall(r"^.*pip3? install [^&\n]*\baifaceswap\b.*$", text, re.MULTILINE)

    for line in lines:
        assert "/aifaceswap" in line or line.startswith("Once there is a release"), line


# --- README, errors, links -------------------------------------------------------------------


def test_the_readmes_main_job_does_what_it_says(tmp_path: Path) -> None:
    """One command from a checkout to a picture."""
    install, _, command = blocks(ROOT / "README.md")[0].text.strip().partition(" && ")
    assert install == "pip install '.[cli]'"
    words = shlex.split(command)
    assert words[0] == "aifaceswap"
    (tmp_path / "docs").symlink_to(DOCS)
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.gif").read_bytes()[:6] == b"GIF89a"


def test_the_readmes_terminal_shows_what_the_readme_says() -> None:
    """The picture has the first command, and the fields of its output."""
    picture = (DOCS / "_static" / "terminal.svg").read_text(encoding="utf-8")
    shown = html.unescape(picture).replace("\N{NO-BREAK SPACE}", " ")
    (block,) = (block for block in blocks(ROOT / "README.md") if block.language == "console")
    (command,) = commands(block)

    again = "draw it again: docs/plots/terminal.py"
    assert f">{command.line}<" in shown, again
    for name in re.findall(r"^([A-Z]\w+(?: as)?)  ", command.output, re.MULTILINE):
        assert f">{name}<" in shown, again


def test_the_tree_on_the_errors_page_is_the_one_in_the_code() -> None:
    """Both show the same picture."""
    assert errors.__doc__ is not None
    drawn = [line.strip() for line in errors.__doc__.splitlines() if "──" in line]
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert drawn == [line.strip() for line in page.splitlines() if "──" in line]


def test_every_link_between_pages_leads_somewhere() -> None:
    """No page points at one that does not exist."""
    for name, page in PAGES.items():
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{name} → {target}"
