"""What a `RedisCoordinator` can be made with, and what it shows of it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest

from aifaceswap import AsyncClient, ConfigurationError
from aifaceswap.redis import RedisCoordinator
from support.leaks import places

# Never in a local of a test: only what the package's own frames hold is judged.
PASSWORD = "pw_zq9Secret_0123456789"
URL = f"redis://user:{PASSWORD}@127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests", 0),
        ("requests", 1.5),
        ("requests", True),
        ("per", 0),
        ("per", "60"),
        ("per_day", 0),
        ("slots", -1),
        ("prefix", ""),
        ("prefix", "a{b}"),
        ("prefix", "with space"),
        ("prefix", 3),
        ("on_outage", "ignore"),
        ("on_outage", None),
        ("timeout", 0),
        ("timeout", float("nan")),
    ],
)
def test_arguments_that_are_not_valid(field: str, value: Any) -> None:
    """The error names the argument, what it must be and the value, and shows no password."""
    with pytest.raises(ConfigurationError, match=rf"^{field} must .*; got ") as caught:
        RedisCoordinator(URL, **{field: value})

    assert caught.value.field == field
    assert places(caught.value, PASSWORD) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "127.0.0.1:6379",
        f"http://:{PASSWORD}@127.0.0.1",
        f"redis://:{PASSWORD}@127.0.0.1:port",
        f"redis://:{PASSWORD}@127.0.0.1:1?timeouts=3",
        f"redis://:{PASSWORD}@127.0.0.1:1?db=x",
        None,
        3,
        b"redis://127.0.0.1",
    ],
)
def test_urls_that_are_not_valid(wrong: Any) -> None:
    """They are rejected before anything is sent, and not shown: they may hold a password."""
    with pytest.raises(ConfigurationError, match=r"^url_or_factory must be a URL like") as caught:
        RedisCoordinator(wrong)

    assert caught.value.field == "url_or_factory"
    assert places(caught.value, PASSWORD) == []


@pytest.mark.parametrize("made", [lambda: None, lambda: 1 / 0, object])
async def test_a_factory_that_makes_no_client(made: Any) -> None:
    """The first call says so."""
    budget = RedisCoordinator(made).budget("scope")
    with pytest.raises(ConfigurationError, match=r"must return a redis\.asyncio client"):
        await budget.acquire()


def test_no_object_shows_or_pickles_the_password() -> None:
    """A repr goes to a log, a pickle to a queue."""
    shared = RedisCoordinator(URL)
    client = AsyncClient("key", coordinator=shared)
    for held in (shared, shared.budget("a"), shared.slots("a"), shared.ends("a"), client):
        assert PASSWORD not in f"{held!r} {vars(held)}"
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(held)
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.copy(shared)
    assert repr(shared) == (
        "RedisCoordinator(requests=60, per=60, per_day=10000, slots=10, prefix='aifaceswap')"
    )


def test_redis_is_not_installed() -> None:
    """The error says how to get it; everything else works without it."""
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "import aifaceswap; aifaceswap.AsyncClient('key'); aifaceswap.Coordinator\n"
        "try: import aifaceswap.redis\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert "pip install redis" in done.stdout


def test_who_does_not_use_it_does_not_load_it() -> None:
    """Clients and the protocols cost nothing more."""
    code = "import sys, aifaceswap; aifaceswap.Client('key'); print('redis' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "False\n"
