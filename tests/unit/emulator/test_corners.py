"""What is rarely asked of the emulator."""

from __future__ import annotations

import runpy
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from aifaceswap import emulator
from aifaceswap.emulator import Emulator, _pyinstaller
from aifaceswap.emulator.faults import Drop, Fault, Status


def status_of(url: str, method: str = "GET") -> int:
    """What a request is answered with."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_pages_and_pictures_are_only_read() -> None:
    """405 for whatever would change them."""
    with Emulator() as emulator:
        origin = emulator.base_url.removesuffix("/api/v1")
        assert [status_of(f"{origin}/{path}", "PUT") for path in ("", "results/x.jpg")] == [405] * 2


def test_a_fault_is_removed_among_others() -> None:
    """By its number, for requests and for deliveries; another number is none."""
    emulator = Emulator()
    numbers = [
        emulator.add_fault(fault)
        for fault in (
            Fault("GET /me", Status(500)),
            Fault("*", Status(503)),
            Fault("webhook", Drop()),
        )
    ]
    for number in numbers[1:]:
        emulator.remove_fault(number)
    assert [record.number for record in emulator.faults] == numbers[:1]
    with pytest.raises(KeyError):
        emulator.remove_fault(numbers[1])


def test_leaving_twice_is_leaving_once() -> None:
    """As closing a file twice is."""
    emulator = Emulator()
    with emulator:
        pass
    emulator.__exit__(None, None, None)
    assert emulator.requests == ()


def test_a_frozen_executable_gets_every_file_of_the_emulator() -> None:
    """PyInstaller's hook, which the package declares, names all that is not Python."""
    folder = Path(emulator.__file__).parent
    (hooks,) = _pyinstaller.get_hook_dirs()
    found = runpy.run_path(f"{hooks}/hook-aifaceswap.emulator.py")["datas"]
    files = {
        str(path.relative_to(folder.parent.parent))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }

    assert {f"{target}/{Path(source).name}" for source, target in found} == files
    assert all(Path(source).is_file() for source, _ in found)
