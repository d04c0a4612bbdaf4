"""Many swaps in one run: `bulk()` of the clients returns these classes."""

from __future__ import annotations

from aifaceswap.bulk._run import AsyncBulk
from aifaceswap.bulk._values import BulkProgress, BulkSettings, Outcome

__all__ = ["AsyncBulk", "BulkProgress", "BulkSettings", "Outcome"]
