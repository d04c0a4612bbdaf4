"""An example beside a service of the test's own, which shows what the example has sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from aifaceswap.emulator import Emulator
from process.examples.apps import NEEDS, App, Customer, free_port, require, running


@attrs.frozen
class World:
    """A service, an example that uses it for real, and a customer."""

    service: Emulator
    app: App
    customer: Customer


@contextmanager
def world_of(name: str, folder: Path) -> Iterator[World]:
    """Without ``--emulator``: key, base URL and public URL come from outside."""
    port = free_port()
    options = ("--port", str(port), "--public-url", "https://shop.example.com/")
    with Emulator(duration=2.0, deliver_to=f"http://127.0.0.1:{port}") as service:
        env = {"AIFACESWAP_API_KEY": service.api_key, "AIFACESWAP_BASE_URL": service.base_url}
        with running(name, folder, *options, env=env) as app:
            yield World(service, app, app.customer())


@pytest.fixture(scope="module", params=sorted(NEEDS))
def name(request: pytest.FixtureRequest) -> str:
    """The name of an example whose framework is installed."""
    name: str = request.param
    require(name)
    return name


@pytest.fixture(scope="module")
def world(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests of an example."""
    with world_of(name, tmp_path_factory.mktemp(name)) as world:
        yield world


@pytest.fixture
def fresh_world(name: str, tmp_path: Path) -> Iterator[World]:
    """One for a test that needs all slots and requests."""
    with world_of(name, tmp_path) as world:
        yield world
