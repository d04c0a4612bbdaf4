"""What is uploaded: the files in git and nothing else, the same bytes from every build."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

# Builds and whole collections, in processes of their own.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
# The sdist's own, which git does not have, and the wheel's.
SDIST_ONLY = {"PKG-INFO"}
WHEEL_ONLY = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


@pytest.fixture(scope="session")
def dist() -> Path:
    """The folder with the one wheel and the one sdist."""
    folder = os.environ.get("AIFACESWAP_DIST")
    if folder is None:
        pytest.skip("nothing is built: `nox -s build`")
    return Path(folder)


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def sdist(dist: Path) -> Path:
    (path,) = dist.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def in_git(dist: Path) -> set[str]:
    """The files that git knows, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}


def unpack(sdist: Path, folder: Path) -> Path:
    """The sdist as a source tree."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_there_is_one_wheel_and_one_sdist(dist: Path, wheel: Path, sdist: Path) -> None:
    """A wheel for every platform and a source distribution, and no third file to upload."""
    assert {wheel, sdist} == {*dist.iterdir()}
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_is_the_package(wheel: Path, in_git: set[str]) -> None:
    """Every file of the package, as it is in git, and nothing else: no test, no cache."""
    package = {name for name in in_git if name.startswith("aifaceswap/")}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        files = [name for name in names if ".dist-info/" not in name]
        others = {name.partition(".dist-info/")[2] for name in names if name not in files}
        changed = [name for name in files if archive.read(name) != (ROOT / name).read_bytes()]

    assert sorted(package) == sorted(files)
    assert others == WHEEL_ONLY
    assert changed == []
    assert "aifaceswap/py.typed" in files


def test_the_description_has_no_relative_link(wheel: Path) -> None:
    """On an index page it would lead nowhere: the description names the files instead."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()

    assert "`docs/getting-started.md`" in text
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []


def test_the_sdist_is_the_repository(sdist: Path, in_git: set[str], tmp_path: Path) -> None:
    """Every file that git has, tests and documentation included, and nothing else."""
    tree = unpack(sdist, tmp_path)
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    changed = [name for name in files & in_git if differ(tree / name, ROOT / name)]

    assert sorted(in_git | SDIST_ONLY) == sorted(files)
    assert changed == []


def differ(one: Path, other: Path) -> bool:
    return one.read_bytes() != other.read_bytes()


def test_another_build_gives_the_same_bytes(dist: Path, sdist: Path, tmp_path: Path) -> None:
    """In another folder, at another time, by another user; the wheel from the sdist, too."""
    tree = unpack(sdist, tmp_path / "elsewhere")
    (tree / "PKG-INFO").unlink()
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & 0o700)  # as under a umask of 077
    again = tmp_path / "again"
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland", "LC_ALL": "C"}
    env.pop("SOURCE_DATE_EPOCH", None)

    # Named both, each is built from the tree; for the first wheel it was built from the sdist.
    command = ["-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(again)]
    subprocess.run([sys.executable, *command], cwd=tree, env=env, umask=0o077, check=True)

    assert digests(dist) == digests(again)


def test_the_tests_are_whole_in_the_sdist(sdist: Path, tmp_path: Path) -> None:
    """Every test can be collected from the unpacked sdist, and some of them run there."""
    tree = unpack(sdist, tmp_path)
    pytest_ = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if name != "AIFACESWAP_DIST"}

    for arguments in (["--collect-only"], ["tests/release", "tests/unit/test_errors.py"]):
        done = subprocess.run(
            [*pytest_, *arguments], cwd=tree, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:]
