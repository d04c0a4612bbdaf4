"""Where the suite runs, how sure each fact is, and what becomes of one that is wrong."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Generator, Iterator
from urllib.parse import urlsplit

import pytest

from aifaceswap.emulator import Emulator, VirtualClock
from conformance.service import Receiver, Service

PREFIX = "AIFACESWAP_CONFORMANCE_"
KEY, URL, SPEND = f"{PREFIX}KEY", f"{PREFIX}URL", f"{PREFIX}SPEND"
SOURCE, TARGET = f"{PREFIX}SOURCE_URL", f"{PREFIX}TARGET_URL"

LEVELS = ("documented", "inferred", "assumed")
EMULATOR, REAL = "emulator", "service"

# Seconds before each request to the real service, which allows 60 in a minute.
GAP = 1.1


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "sure(level): how sure the fact is that the test checks",
        "emulated(reason, **settings): why the real service is not asked; of the emulator",
        "costs: may cost credits of the real service",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "service" not in metafunc.fixturenames:
        return
    levels = [mark.args[0] for mark in metafunc.definition.iter_markers("sure")]
    assert len(levels) == 1, f"{metafunc.definition.nodeid}: how sure is the fact?"
    assert levels[0] in LEVELS
    emulated = metafunc.definition.get_closest_marker("emulated") is not None
    where = [EMULATOR] if emulated or KEY not in os.environ else [EMULATOR, REAL]
    metafunc.parametrize("service", where, indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say what the real service will be asked, and what that costs, before it is asked."""
    asked = list(filter(_is_real, session.items))
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not asked:
        return
    if _may_spend() and not (SOURCE in os.environ and TARGET in os.environ):
        raise pytest.UsageError(f"{SPEND} needs two public pictures: {SOURCE} and {TARGET}")
    if terminal is not None:
        terminal.write_line(_plan(asked))


def _plan(asked: list[pytest.Item]) -> str:
    paid = sum(item.get_closest_marker("costs") is not None for item in asked)
    allowed = _may_spend()
    plan = f"\n{_url()}: checking {len(asked)} facts; {paid} of them need a swap.\n"
    if not allowed:
        return f"{plan}Nothing will be spent: those are skipped, unless {SPEND} allows it.\n"
    return (
        f"{plan}They cost one swap of type image; its price is not documented (the emulator "
        f"assumes 1 credit).\nOnce more than {allowed:g} credits are spent ({SPEND}), nothing "
        f"is sent that may cost any.\n"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the real service proves wrong what is only assumed, it is a finding, not a failure."""
    report = yield
    error = call.excinfo
    if not report.failed or error is None or not _is_real(item) or error.errisinstance(OSError):
        return report
    (mark,) = item.iter_markers("sure")
    if mark.args[0] != "documented":
        report.outcome = "skipped"
        report.wasxfail = (
            f"FINDING: the emulator has it ({mark.args[0]}) that {_fact(item)} "
            f"The service: {error.exconly()}"
        )
    return report


def _fact(item: pytest.Item) -> str:
    return str(getattr(item, "function", item).__doc__)


def _is_real(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("service") == REAL


def _url() -> str:
    return os.environ.get(URL, "https://aifacesswap.com/api/v1").rstrip("/")


def _may_spend() -> float:
    return float(os.environ.get(SPEND, "0"))


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    if request.param == REAL:
        yield _real_service()
        return
    mark = request.node.get_closest_marker("emulated")
    settings = dict(mark.kwargs) if mark else {}
    if "receiver" in request.fixturenames:
        settings["deliver_to"] = request.getfixturevalue("receiver").origin
    with Emulator(clock=VirtualClock(), **settings) as emulator:
        yield Service(
            emulator.base_url,
            emulator.api_key,
            source_url="https://example.com/face.jpg",
            target_url="https://example.com/target.jpg",
            pause=emulator.advance,
            emulator=emulator,
        )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@functools.cache
def _real_service() -> Service:
    # A stand-in for the service, on this machine, has nothing to be spared.
    return Service(
        _url(),
        os.environ[KEY],
        source_url=os.environ.get(SOURCE, ""),
        target_url=os.environ.get(TARGET, ""),
        pause=time.sleep,
        gap=0.0 if urlsplit(_url()).hostname == "127.0.0.1" else GAP,
        may_spend=_may_spend(),
    )
