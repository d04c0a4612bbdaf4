"""The emulator for tests under any framework, here unittest."""

from __future__ import annotations

import os
import unittest
from typing import Any

import pytest

import aifaceswap
from aifaceswap.emulator import Fault, Limits, faults
from aifaceswap.testing import use_emulator

URLS: dict[str, Any] = {
    "source_url": "https://example.com/face.jpg",
    "target_url": "https://example.com/target.jpg",
}


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    """Run the tests of a class, as unittest does."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_a_unittest_has_an_emulator_for_each_test() -> None:
    """Clients of the tested code find it; neither requests nor budgets are left of other tests."""

    class Shop(unittest.TestCase):
        def setUp(self) -> None:
            self.emulator = self.enterContext(use_emulator(credits=5))

        def _use_up(self) -> None:
            with aifaceswap.Client(max_wait=0.0) as client:
                for _ in range(60):
                    client.me()
                with pytest.raises(aifaceswap.RateLimitError):
                    client.me()

        def test_first(self) -> None:
            self._use_up()

        def test_second(self) -> None:
            self._use_up()

        def test_third(self) -> None:
            with aifaceswap.Client() as client:
                assert client.swaps.run(**URLS).status == "done"
            assert self.emulator.balance == 4

    result = run(Shop)

    assert (result.errors, result.failures, result.testsRun) == ([], [], 3)


def test_an_async_unittest_has_an_emulator() -> None:
    """In an `IsolatedAsyncioTestCase`, too."""

    class Shop(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            self.emulator = self.enterContext(use_emulator())

        async def test_run(self) -> None:
            async with aifaceswap.AsyncClient() as client:
                assert (await client.swaps.run(**URLS)).status == "done"

    result = run(Shop)

    assert (result.errors, result.failures, result.testsRun) == ([], [], 1)


def test_everything_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables, also after an error."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", "key_before")
    monkeypatch.delenv("AIFACESWAP_BASE_URL", raising=False)
    emulating = use_emulator()
    emulator = emulating.__enter__()
    assert os.environ["AIFACESWAP_BASE_URL"] == emulator.base_url
    error = ZeroDivisionError()
    assert not emulating.__exit__(ZeroDivisionError, error, None)

    assert os.environ["AIFACESWAP_API_KEY"] == "key_before"
    assert "AIFACESWAP_BASE_URL" not in os.environ


@pytest.mark.parametrize("limits", [None, Limits(None, None, None)])
def test_without_limits_clients_do_not_wait(limits: Limits | None) -> None:
    """More requests than a minute allows, with no time to wait."""
    with use_emulator(limits=limits) as emulator, aifaceswap.Client(max_wait=0.0) as client:
        for _ in range(70):
            client.me()

    assert [request.status for request in emulator.requests] == [200] * 70


def test_a_reset_returns_to_the_settings_that_were_given() -> None:
    """Faults and limits survive a change of the receiver."""
    fault = Fault("GET /me", faults.Status(503))
    with use_emulator(faults=[fault], limits=Limits(per_minute=3)) as emulator:
        for change in (emulator.configure, emulator.reset):
            change(deliver_to="http://127.0.0.1:9")
            assert [record.fault for record in emulator.faults] == [fault]
            assert emulator.settings["limits"] == Limits(per_minute=3)
            assert emulator.settings["deliver_to"] == "http://127.0.0.1:9"
        emulator.reset()
        assert emulator.settings["deliver_to"] is None


@pytest.mark.parametrize(
    ("settings", "error"), [({"credit": 5}, TypeError), ({"credits": -5}, ValueError)]
)
def test_a_wrong_setting_is_rejected(settings: Any, error: type[Exception]) -> None:
    """Before the test runs; the message names it."""
    with pytest.raises(error, match="credit"), use_emulator(**settings):
        raise AssertionError


def test_local_files_go_to_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment names a bucket, which tests must not fill."""
    monkeypatch.setenv("AIFACESWAP_FILES", "s3://production")
    with use_emulator(), aifaceswap.Client() as client:
        url = client.swaps.publish(b"\xff\xd8\xff\xe0" + bytes(100))

    assert "/_emulator/files/" in url
    assert os.environ["AIFACESWAP_FILES"] == "s3://production"
