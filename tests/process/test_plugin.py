"""The pytest plugin, in pytest runs of its users."""

from __future__ import annotations

import re

import pytest

import aifaceswap.bulk
import aifaceswap.emulator
import aifaceswap.sync

HEAD = """
import asyncio
import pytest
from aifaceswap import *
from aifaceswap.emulator import Fault, Limits
from aifaceswap.emulator.faults import Status

FACES = {
    "source_url": "https://example.com/face.jpg",
    "target_url": "https://example.com/target.jpg",
}
"""


# pytest-asyncio warns without it.
LOOP_SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")


pytest_plugins = ["pytester"]

# Loaded before the runs in this process, each of which forgets what it has imported.
LOADED = (aifaceswap.sync, aifaceswap.bulk, aifaceswap.emulator)


class World:
    """A folder with somebody's tests."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        self._monkeypatch = monkeypatch
        # Nothing of this project's own settings.
        pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def run(
        self,
        tests: str,
        *options: str,
        only: str = "aifaceswap.pytest_plugin",
        process: bool = False,
    ) -> str:
        """What pytest prints of these tests, with this plugin alone or else all that it finds."""
        self._pytester.makepyfile(test_shop=tests)
        self._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", only)
        plugin = ["-p", only] if only else []
        run = self._pytester.runpytest_subprocess if process else self._pytester.runpytest_inprocess
        done = run("-p", "no:cacheprovider", *plugin, *options)
        return f"{done.stdout.str()}\n{done.stderr.str()}"


@pytest.fixture
def world(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(pytester, monkeypatch)


def counts(output: str) -> dict[str, int]:
    """How many tests had which end."""
    last = [line for line in output.splitlines() if line.endswith("s ==") or " in " in line][-1]
    return {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error)", last)}


def test_a_synchronous_test_has_a_client(world: World) -> None:
    """Its swaps end at once, and the server tells what has come."""
    output = world.run(
        HEAD
        + """
def test_swap(aifaceswap_sync_client, aifaceswap_emulator, tmp_path):
    swap = aifaceswap_sync_client.swaps.run(**FACES)
    picture = aifaceswap_sync_client.swaps.download(swap, tmp_path / "out.jpg")
    assert picture.read_bytes()[:2] == bytes([0xFF, 0xD8])
    assert [made.id for made in aifaceswap_emulator.swaps] == [swap.id]
"""
    )
    assert counts(output) == {"passed": 1}, output


@pytest.mark.parametrize(
    ("options", "marks"),
    [
        (("-p", "pytest_asyncio.plugin", *LOOP_SCOPE), "@pytest.mark.asyncio"),
        (
            ("-p", "anyio.pytest_plugin"),
            '@pytest.mark.anyio\n@pytest.mark.parametrize("anyio_backend", ["asyncio"])',
        ),
    ],
    ids=["pytest-asyncio", "anyio"],
)
def test_an_asynchronous_test_has_a_client(
    world: World, options: tuple[str, ...], marks: str
) -> None:
    """Under pytest-asyncio and under anyio, in each test's own event loop."""
    tests = """
@pytest.mark.parametrize("again", range(3))
async def test_swaps(aifaceswap_client, aifaceswap_emulator, again):
    runs = [aifaceswap_client.swaps.run(**FACES) for _ in range(5)]
    assert {swap.status for swap in await asyncio.gather(*runs)} == {"done"}
    assert len(aifaceswap_emulator.swaps) == 5
"""
    output = world.run(f"{HEAD}{marks}{tests}", *options)
    assert counts(output) == {"passed": 3}, output


def test_every_test_has_a_fresh_server(world: World) -> None:
    """What one test has done, added or used up is not there in the next one."""
    output = world.run(
        HEAD
        + """
def test_first(aifaceswap_sync_client, aifaceswap_emulator):
    aifaceswap_sync_client.swaps.run(**FACES)
    aifaceswap_emulator.add_fault(Fault("*", Status(500), times=None))
    aifaceswap_emulator.revoke_key(aifaceswap_emulator.api_key)

def test_second(aifaceswap_sync_client, aifaceswap_emulator):
    assert (aifaceswap_emulator.swaps, aifaceswap_emulator.requests) == ((), ())
    assert aifaceswap_sync_client.me().credits.total == 1000
"""
    )
    assert counts(output) == {"passed": 2}, output


def test_limits_begin_anew_with_each_test(world: World) -> None:
    """Three tests of fifty requests do not wait for the minute of the first one to pass."""
    output = world.run(
        HEAD
        + """
@pytest.mark.parametrize("number", range(3))
def test_many(aifaceswap_sync_client, number):
    for _ in range(50):
        aifaceswap_sync_client.me()
"""
    )
    assert counts(output) == {"passed": 3}, output


def test_the_marker_sets_the_server_up(world: World) -> None:
    """The test's own arguments count before those of its class."""
    output = world.run(
        HEAD
        + """
@pytest.mark.aifaceswap(credits=7, duration=60)
class TestShop:
    def test_class(self, aifaceswap_sync_client):
        assert aifaceswap_sync_client.me().credits.total == 7

    @pytest.mark.aifaceswap(credits=0)
    def test_poor(self, aifaceswap_sync_client):
        with pytest.raises(InsufficientCreditsError):
            aifaceswap_sync_client.swaps.create(**FACES)

    def test_slow(self, aifaceswap_sync_client):
        with pytest.raises(WaitTimeoutError):
            aifaceswap_sync_client.swaps.wait(
                aifaceswap_sync_client.swaps.create(**FACES), timeout=0.2
            )

@pytest.mark.aifaceswap(
    faults=[Fault("POST /swaps", Status(503)), Fault("GET /me", Status(402))],
    limits=Limits(per_minute=4),
)
def test_bad_day(aifaceswap_sync_client, aifaceswap_emulator):
    aifaceswap_sync_client.swaps.create(**FACES)
    with pytest.raises(InsufficientCreditsError):
        aifaceswap_sync_client.me()
    impatient = Client(budget=None, max_retries=0)
    with impatient, pytest.raises(RateLimitError):
        for _ in range(5):
            impatient.me()
    assert [request.status for request in aifaceswap_emulator.requests][:3] == [503, 201, 402]
"""
    )
    assert counts(output) == {"passed": 4}, output


def test_clients_of_the_tested_code_find_the_server(world: World) -> None:
    """By the environment, which is as before after the test."""
    output = world.run(
        HEAD
        + """
import os

def test_shop(aifaceswap_emulator):
    with Client() as client:
        client.swaps.create(**FACES)
    assert len(aifaceswap_emulator.swaps) == 1

def test_afterwards():
    assert not [name for name in os.environ if name.startswith("AIFACESWAP_")]
"""
    )
    assert counts(output) == {"passed": 2}, output


@pytest.mark.parametrize(
    ("marker", "fault"),
    [
        ("credit=0", "credit: no such argument; there are faults, credits, limits"),
        ("5", "5 has no name; write faults=... or so"),
        ("credits=-1", "credits must be"),
        ("faults=['POST /swaps']", "faults"),
    ],
)
def test_a_bad_marker_is_named(world: World, marker: str, fault: str) -> None:
    """The test is an error that says what would be right."""
    output = world.run(
        HEAD
        + f"""
@pytest.mark.aifaceswap({marker})
def test_shop(aifaceswap_emulator):
    pass
"""
    )
    assert counts(output) == {"error": 1}, output
    assert f"@pytest.mark.aifaceswap: {fault}" in output


def test_a_failed_test_shows_its_requests(world: World) -> None:
    """Those that did not fail show nothing."""
    output = world.run(
        HEAD
        + """
def test_good(aifaceswap_sync_client):
    aifaceswap_sync_client.me()

def test_bad(aifaceswap_sync_client):
    aifaceswap_sync_client.swaps.create(**FACES)
    assert False

def test_idle(aifaceswap_emulator):
    assert False
"""
    )
    assert counts(output) == {"passed": 1, "failed": 2}, output
    assert "aifaceswap emulator call" in output
    assert "POST /api/v1/swaps -> 201\n" in output
    assert "no request came" in output
    assert "/api/v1/me" not in output


def test_workers_have_a_server_each(world: World) -> None:
    """Under pytest-xdist."""
    output = world.run(
        HEAD
        + """
@pytest.mark.parametrize("number", range(12))
def test_shop(aifaceswap_sync_client, aifaceswap_emulator, number):
    aifaceswap_sync_client.swaps.run(**FACES)
    assert len(aifaceswap_emulator.swaps) == 1
""",
        *("-p", "xdist", "-n2"),
        process=True,
    )
    assert counts(output) == {"passed": 12}, output


def test_it_is_light_until_it_is_used(world: World) -> None:
    """Neither aiohttp nor the emulator is loaded for those who have no use for them."""
    output = world.run(
        """
import sys

def test_nothing():
    ours = {name for name in sys.modules if name.partition(".")[0] == "aifaceswap"}
    light = {"aifaceswap", "aifaceswap._version", "aifaceswap.pytest_plugin"}
    assert ours == light
    assert not {"aiohttp", "anyio", "attrs", "cattrs"} & sys.modules.keys()
""",
        process=True,
    )
    assert counts(output) == {"passed": 1}, output


def test_pytest_finds_it(world: World) -> None:
    """It is there once the package is installed, and tells its marker."""
    output = world.run("", "--markers", *LOOP_SCOPE, only="", process=True)
    assert "@pytest.mark.aifaceswap(faults=..., credits=..., limits=..., duration=..., " in output
