"""An emulator for tests under any test framework.

The pytest plugin is built on it. Under unittest::

    class ShopTest(unittest.TestCase):
        def setUp(self):
            self.emulator = self.enterContext(use_emulator(credits=5))
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final
from unittest import mock

from aifaceswap import budget
from aifaceswap._limits import (
    API_KEY_VARIABLE,
    BASE_URL_VARIABLE,
    FILES_VARIABLE,
    REQUESTS_PER_DAY,
    REQUESTS_PER_WINDOW,
)
from aifaceswap._polling import poller, slots
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator._emulator import rebase

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Unpack

    from aifaceswap.emulator.settings import Settings

__all__ = ["use_emulator"]

# Seconds between polls. A second, as for the real service, would be most of a test.
_INTERVAL: Final = 0.02
_UNLIMITED: Final = 1_000_000_000


@contextlib.contextmanager
def use_emulator(**settings: Unpack[Settings]) -> Generator[Emulator]:
    """Run an emulator, and let clients that the tested code creates find it.

    It sets ``AIFACESWAP_API_KEY`` and ``AIFACESWAP_BASE_URL``, polls come every 0.02 s, and the
    client-side rate limiter starts new. Swaps are done at the first poll by default.

    Args:
        settings: Settings of the emulator: `faults`, `credits`, `limits`, `duration`, `spread`,
            `deliver_to`, `idempotency`, `lag`, `prices`, `result_ttl`, `result_links`. With
            ``limits=None`` neither the emulator nor the clients limit requests.

    Yields:
        The emulator, in a thread of its own. `Emulator.reset()` returns to these settings.

    Raises:
        ValueError: A setting is out of range; the message names it.
        TypeError: A setting is of a wrong type or unknown; the message names it.
    """
    with Emulator(duration=0) as emulator, prepared(emulator, settings):
        yield emulator


@contextlib.contextmanager
def prepared(emulator: Emulator, settings: Settings) -> Generator[None]:
    """Reset a running emulator to these settings, and let clients find it."""
    rebase(emulator, settings)
    variables = {
        API_KEY_VARIABLE: emulator.api_key,
        BASE_URL_VARIABLE: emulator.base_url,
        FILES_VARIABLE: "",  # local files go to the emulator
    }
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(poller, "SHORTEST_INTERVAL", _INTERVAL),
    ):
        # The emulator's minute starts again, and so must that of the clients.
        budget.forget_shared()
        slots.forget_local()
        _share_budget(emulator)
        yield


def _share_budget(emulator: Emulator) -> None:
    """Let clients not wait for a limit that the emulator does not have."""
    limits = emulator.settings.get("limits") or Limits()
    shared = budget.Budget(
        REQUESTS_PER_WINDOW if limits.per_minute else _UNLIMITED,
        per_day=REQUESTS_PER_DAY if limits.per_day else None,
    )
    budget.shared_budget(emulator.base_url, emulator.api_key, shared)
