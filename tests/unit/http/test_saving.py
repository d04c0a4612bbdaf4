"""Files that appear when they are complete, on every kind of file system that Linux has."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aifaceswap import InvalidRequestError, SwapImage
from aifaceswap._http.saving import PartialFile, check_target

IMAGE = SwapImage(b"\xff\xd8\xff" + b"new" * 100, "image/jpeg")


def mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting needs root")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder, or a file in it, that a test mounts something on."""
    yield tmp_path
    for path in (tmp_path / "file.jpg", tmp_path / "folder"):
        subprocess.run(["umount", str(path)], capture_output=True, check=False)


@pytest.fixture(params=["disk", "tmpfs"])
def folder(request: pytest.FixtureRequest, mounted: Path) -> Path:
    """A folder on a disk and one in memory."""
    place = mounted / "folder"
    place.mkdir()
    if request.param == "tmpfs":
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", place)
    return place


def left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_new_file(folder: Path) -> None:
    """With the mode that the process gives new files."""
    mask = os.umask(0o027)
    try:
        path = IMAGE.save(folder / "r.jpg")
    finally:
        os.umask(mask)

    assert path.read_bytes() == IMAGE.data
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert left_in(folder) == ["r.jpg"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_its_mode(folder: Path, mode: int) -> None:
    """A private file stays private."""
    target = folder / "r.jpg"
    target.write_bytes(b"old")
    target.chmod(mode)
    IMAGE.save(target)

    assert target.read_bytes() == IMAGE.data
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_link_is_followed(folder: Path) -> None:
    """The link stays, in whatever folder its file is; a link to a new file makes that file."""
    (folder / "real").mkdir()
    real = folder / "real" / "a.jpg"
    real.write_bytes(b"old")
    real.chmod(0o600)
    for name, target in (("old.jpg", real), ("new.jpg", folder / "real" / "b.jpg")):
        (folder / name).symlink_to(target)
        IMAGE.save(folder / name)

        assert (folder / name).is_symlink()
        assert target.read_bytes() == IMAGE.data
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert left_in(folder / "real") == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "name",
    ["顔" * 85, "😀" * 63, "é" * 127, "a" * 255, "a\nb.jpg", " .jpg", "-o", "%41.jpg", "фото.jpg"],
    ids=range(9),
)
def test_names_of_any_script(folder: Path, name: str) -> None:
    """Up to the longest name that the system allows."""
    IMAGE.save(folder / name)

    assert left_in(folder) == [name]


@pytest.mark.parametrize("name", ["顔" * 86, "a" * 256], ids=["letters", "ascii"])
def test_a_longer_name_is_rejected_at_once(folder: Path, name: str) -> None:
    """Before anything is downloaded, in bytes as the system counts."""
    with pytest.raises(InvalidRequestError, match="at most 255 bytes"):
        check_target(folder / name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "not a folder"),
        ("to_folder", "not a folder"),
        ("dangling", "folder that exists"),
        ("missing/r.jpg", "folder that exists"),
        ("pipe", "regular file"),
        ("loop", "valid file name"),
        ("nul\0", "valid file name"),
    ],
)
def test_what_is_not_a_file(tmp_path: Path, name: str, reason: str) -> None:
    """Folders, devices, and links to nowhere."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("missing/x")
    (tmp_path / "loop").symlink_to("loop2")
    (tmp_path / "loop2").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InvalidRequestError, match=reason):
        IMAGE.save(tmp_path / name)


def test_a_file_that_is_mounted_is_written_in_place(mounted: Path) -> None:
    """A file of a container's host: nothing can take its place."""
    outside, target = mounted / "outside.jpg", mounted / "file.jpg"
    outside.write_bytes(b"an older and longer file" * 100)
    target.touch()
    mount("--bind", outside, target)
    IMAGE.save(target)

    assert outside.read_bytes() == IMAGE.data
    assert left_in(mounted) == ["file.jpg", "outside.jpg"]


def test_a_file_in_a_read_only_folder_is_written_in_place(mounted: Path) -> None:
    """As in a container whose one writable file is mounted."""
    folder, outside = mounted / "folder", mounted / "outside.jpg"
    folder.mkdir()
    outside.write_bytes(b"old")
    (folder / "r.jpg").touch()
    mount("--bind", folder, folder)
    mount("--bind", outside, folder / "r.jpg")
    mount("-o", "remount,ro,bind", folder)
    try:
        IMAGE.save(folder / "r.jpg")
        with pytest.raises(InvalidRequestError, match="can be written to"):
            IMAGE.save(folder / "other.jpg")
    finally:
        subprocess.run(["umount", str(folder / "r.jpg")], check=True)

    assert outside.read_bytes() == IMAGE.data


def test_a_full_disk_is_noticed_before_the_download(mounted: Path) -> None:
    """The old file stays, no part of the new one does."""
    folder = mounted / "folder"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
    (folder / "r.jpg").write_bytes(b"old")
    large = SwapImage(b"\xff\xd8\xff" + bytes(70_000), "image/jpeg")

    with pytest.raises(OSError, match="70003 bytes are needed") as caught:
        large.save(folder / "r.jpg")
    assert caught.value.errno == errno.ENOSPC
    assert (folder / "r.jpg").read_bytes() == b"old"
    assert left_in(folder) == ["r.jpg"]


def test_a_disk_that_fills_up_leaves_the_old_file(mounted: Path) -> None:
    """Also if the size was not known."""
    folder = mounted / "folder"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
    target = folder / "r.jpg"
    target.write_bytes(b"old")

    def write() -> None:
        with PartialFile(target) as partial:
            partial.file.write(bytes(70_000))
            partial.move_to(target)

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.errno == errno.ENOSPC
    assert target.read_bytes() == b"old"
    assert left_in(folder) == ["r.jpg"]


def test_two_that_write_one_file(folder: Path) -> None:
    """One of them is complete in the end, at every moment one is."""
    target = folder / "r.jpg"
    images = [SwapImage(bytes([number]) * 10_000, "image/jpeg") for number in range(8)]
    threads = [threading.Thread(target=image.save, args=(target,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert target.read_bytes() in [image.data for image in images]
    assert left_in(folder) == ["r.jpg"]


def test_a_saved_file_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are on the disk before its name is, and its name before anybody relies on it."""
    synced: list[tuple[bool, bool]] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append((is_folder, (tmp_path / "r.jpg").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    IMAGE.save(tmp_path / "r.jpg")

    assert synced == [(False, False), (True, True)]
