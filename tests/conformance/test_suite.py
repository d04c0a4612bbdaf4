"""The suite itself: what it asks of a real service, spends, and says where one is different."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aifaceswap.emulator import Emulator, Limits

HERE = Path(__file__).parent
# Loading these takes longer than the facts do.
SKIPPED = ("schemathesis", "hypothesispytest", "xdist", "cacheprovider")


@pytest.fixture
def stand_in() -> Iterator[Emulator]:
    """An emulator in the place of the real service."""
    with Emulator(duration=0) as emulator:
        yield emulator


def ask(
    stand_in: Emulator, spend: str = "0", facts: str = "test"
) -> subprocess.CompletedProcess[str]:
    """Run the suite, or those facts of it, against it."""
    settings = {
        "KEY": stand_in.api_key,
        "URL": stand_in.base_url,
        "SPEND": spend,
        "SOURCE_URL": "https://example.com/face.jpg",
        "TARGET_URL": "https://example.com/target.jpg",
    }
    without = [word for plugin in SKIPPED for word in ("-p", f"no:{plugin}")]
    chosen = [str(HERE / "test_facts.py"), "-k", f"service and ({facts})"]
    return subprocess.run(
        # -P: what is tested is what is installed.
        [sys.executable, "-P", "-m", "pytest", "-q", *without, *chosen],
        env=os.environ | {f"AIFACESWAP_CONFORMANCE_{n}": value for n, value in settings.items()},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_nothing_is_spent_without_consent(stand_in: Emulator) -> None:
    """Without consent it creates nothing, and says which facts it could not check."""
    done = ask(stand_in)

    assert done.returncode == 0, done.stdout
    assert "Nothing will be spent" in done.stdout
    assert "may cost credits" in done.stdout
    assert {"GET", "PUT"} == {request.method for request in stand_in.requests}


def test_one_swap_is_paid(stand_in: Emulator) -> None:
    """With consent it says what it costs, and creates one swap; it fits into the key's minute."""
    done = ask(stand_in, spend="1")

    assert done.returncode == 0, done.stdout
    assert "They cost one swap of type image" in done.stdout
    assert "may cost credits;" not in done.stdout
    assert len(stand_in.swaps) == 1
    assert len(stand_in.requests) < 60


def test_a_wrong_documented_fact_is_a_failure() -> None:
    """Where the service is not as documented, the suite is red."""
    with Emulator(limits=Limits(per_minute=59)) as stand_in:
        done = ask(stand_in, facts="minute")

    assert done.returncode == 1
    assert "FAILED tests/conformance/test_facts.py::test_the_limit_of_the_minute[" in done.stdout


def test_a_wrong_assumption_is_a_finding(stand_in: Emulator) -> None:
    """Where the service is not as assumed, the suite says so, stays green, and overspends once."""
    stand_in.configure(prices={"image": 5})
    done = ask(stand_in, spend="1", facts="price or replay or missing")

    assert done.returncode == 0, done.stdout
    assert "FINDING: the emulator has it (assumed) that An image costs 1 credit" in done.stdout
    assert "may cost credits" in done.stdout
    assert [request.method for request in stand_in.requests].count("POST") == 1
