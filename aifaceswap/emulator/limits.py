"""The rate limits of one API key, as a setting of the emulator."""

from __future__ import annotations

import attrs

from aifaceswap.emulator import _validators as validators


@attrs.frozen
class Limits:
    """The rate limits of one API key. None turns a limit off.

    Attributes:
        per_minute: Requests allowed in a sliding window, 1 or more.
        per_day: Requests allowed in a UTC day, 1 or more.
        concurrent: Unfinished swaps allowed at a time, 1 or more.
        window: Length of the sliding window in seconds, greater than 0. The API's is 60.
    """

    per_minute: int | None = attrs.field(
        default=60, validator=validators.integer(least=1, optional=True)
    )
    per_day: int | None = attrs.field(
        default=10_000, validator=validators.integer(least=1, optional=True)
    )
    concurrent: int | None = attrs.field(
        default=10, validator=validators.integer(least=1, optional=True)
    )
    window: float = attrs.field(default=60.0, validator=validators.number(above=0.0))
