"""Async-first SDK for the AI Face Swap API, with a synchronous facade and a local emulator.

``AsyncClient`` is for asyncio programs, ``Client`` for all others::

    import aifaceswap

    with aifaceswap.Client() as client:  # the key is read from AIFACESWAP_API_KEY
        swap = client.swaps.run(
            source_url="https://example.com/face.jpg",
            target_url="https://example.com/target.jpg",
        )
        client.swaps.download(swap, "result.jpg")

Names are loaded when they are first used: importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

from aifaceswap._version import __version__

# Type checkers know the name. Not from typing, which would be most of the import's time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from aifaceswap import budget, coordination, emulator, errors, files, models, webhooks
    from aifaceswap._http.images import SwapImage
    from aifaceswap.budget import Budget, Permit, RequestBudget
    from aifaceswap.bulk import AsyncBulk, BulkProgress, Outcome
    from aifaceswap.client import AsyncClient, AsyncSwaps
    from aifaceswap.coordination import Coordinator, Ends, Slots, SwapReport
    from aifaceswap.errors import (
        AIFaceSwapError,
        APIConnectionError,
        APIResponseError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        BulkStoppedError,
        ConcurrencyLimitError,
        ConfigurationError,
        ConflictError,
        ContentRejectedError,
        DailyLimitError,
        FileStoreError,
        InsufficientCreditsError,
        InvalidRequestError,
        JournalError,
        NotFoundError,
        PayloadTooLargeError,
        RateLimitError,
        ServerError,
        ServiceUnavailableError,
        SourceUnreachableError,
        SwapFailedError,
        UnprocessableContentError,
        UnresolvedRowError,
        UnsupportedMediaTypeError,
        WaitTimeoutError,
        WebhookVerificationError,
        WebhookVerificationReason,
    )
    from aifaceswap.models import (
        Account,
        Credits,
        RateLimit,
        Response,
        Swap,
        SwapPage,
        SwapRequest,
        SwapStatus,
        SwapType,
        WebhookEvent,
    )
    from aifaceswap.sync import Bulk, Client, Swaps

__all__ = [
    "AIFaceSwapError",
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "Account",
    "AsyncBulk",
    "AsyncClient",
    "AsyncSwaps",
    "AuthenticationError",
    "BadRequestError",
    "Budget",
    "Bulk",
    "BulkProgress",
    "BulkStoppedError",
    "Client",
    "ConcurrencyLimitError",
    "ConfigurationError",
    "ConflictError",
    "ContentRejectedError",
    "Coordinator",
    "Credits",
    "DailyLimitError",
    "Ends",
    "FileStoreError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "JournalError",
    "NotFoundError",
    "Outcome",
    "PayloadTooLargeError",
    "Permit",
    "RateLimit",
    "RateLimitError",
    "RequestBudget",
    "Response",
    "ServerError",
    "ServiceUnavailableError",
    "Slots",
    "SourceUnreachableError",
    "Swap",
    "SwapFailedError",
    "SwapImage",
    "SwapPage",
    "SwapReport",
    "SwapRequest",
    "SwapStatus",
    "SwapType",
    "Swaps",
    "UnprocessableContentError",
    "UnresolvedRowError",
    "UnsupportedMediaTypeError",
    "WaitTimeoutError",
    "WebhookEvent",
    "WebhookVerificationError",
    "WebhookVerificationReason",
    "__version__",
    "budget",
    "coordination",
    "emulator",
    "errors",
    "files",
    "models",
    "webhooks",
]

# Where names live, the cheapest module first; the modules themselves are public, too.
_HOMES = ("errors", "models", "budget", "coordination", "client", "sync", "bulk", "_http.images")
_MODULES = ("budget", "coordination", "emulator", "errors", "files", "models", "webhooks")


# Not for type checkers: to them every misspelt name would be one that exists.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        modules = (import_module(f"{__name__}.{home}") for home in _HOMES)
        value: object = next(vars(module)[name] for module in modules if name in vars(module))
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
