"""Every number, name and environment variable of the API contract, once.

The bottom of the package: models, checks, budget, CLI and pytest plugin all read them from here.
The emulator keeps its own copies: a test double that shares them could not show a mistake in them.
"""

from __future__ import annotations

from typing import Final

DEFAULT_BASE_URL: Final = "https://aifacesswap.com/api/v1"
API_KEY_VARIABLE: Final = "AIFACESWAP_API_KEY"
BASE_URL_VARIABLE: Final = "AIFACESWAP_BASE_URL"
FILES_VARIABLE: Final = "AIFACESWAP_FILES"
SIGNING_ENDPOINT_VARIABLE: Final = "AIFACESWAP_FILES_SIGNING_ENDPOINT"
REDIS_VARIABLE: Final = "AIFACESWAP_REDIS"  # of the command line alone

REQUESTS_PER_WINDOW: Final = 60
WINDOW: Final = 60.0  # seconds, sliding
REQUESTS_PER_DAY: Final = 10_000  # UTC day
MAX_UNFINISHED_SWAPS: Final = 10

DEFAULT_PAGE_SIZE: Final = 25
MAX_PAGE_SIZE: Final = 100

SWAP_COMPLETED: Final = "swap.completed"  # names of webhook events
SWAP_FAILED: Final = "swap.failed"
SIGNATURE_HEADER: Final = "x-aifaceswap-signature"
SIGNATURE_TOLERANCE: Final = 300.0  # seconds, back and ahead

ATTEMPT_TIMEOUT: Final = 30.0  # seconds, as in the service's own samples
