"""What a model reads: swaps as JSON with the next step, and errors as sentences."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import ValidationError

from aifaceswap import errors
from aifaceswap._http.images import SwapImage
from aifaceswap.cli.failures import format_duration
from aifaceswap.cli.mcp.ledger import CreditLimitError
from aifaceswap.models import Swap, without_queries

#: Hosts reject responses of more than 1 MiB, in which an image is base64.
MAX_ENCODED = 1_000_000
_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_SHOWN = 1000  # characters of a reason
_SAME = "again with the same arguments: nothing is charged twice."
_AGAIN = f"Call {_SAME}"
# A proxy or another server has responded: its page says nothing to a model.
_PAGE = f"{_AGAIN} If that does not help, ask the user to run aifaceswap doctor."
_OTHER_IMAGES = "Do not repeat this call. Use other images."

#: What to do next; the row of an error's own class applies, or that of its nearest base class.
_ADVICE: dict[type[BaseException], str] = {
    errors.AIFaceSwapError: _AGAIN,
    CreditLimitError: "Only the user can raise the limit, with --max-credits of the server.",
    errors.InvalidRequestError: "Nothing was sent. Correct the arguments.",
    errors.SourceUnreachableError: "Nothing was charged. Use URLs that open without a login.",
    errors.AuthenticationError: "Ask the user to set a valid key in AIFACESWAP_API_KEY.",
    errors.InsufficientCreditsError: f"Ask the user to add credits. Then call {_SAME}",
    errors.NotFoundError: "Check the id with the tool list.",
    errors.PayloadTooLargeError: _OTHER_IMAGES,
    errors.UnsupportedMediaTypeError: "Source must be an image; target must be of the type given.",
    errors.ContentRejectedError: _OTHER_IMAGES,
    errors.RateLimitError: f"Wait {{delay}}. {_AGAIN}",
    errors.ConcurrencyLimitError: f"Wait for an unfinished swap with the tool wait. {_AGAIN}",
    errors.SwapFailedError: "The same arguments return this failed swap. Use other images, or pass "
    "another variation to create (and pay for) a new swap.",
    errors.UnresolvedRowError: "Tell the user. A variation may be charged again.",
    errors.JournalError: "Ask the user to fix this, or to start the server with another --ledger.",
    OSError: "Ask the user to fix this. Then call the tool download.",
}

_log = logging.getLogger("aifaceswap")


def call_again(tool: str) -> str:
    """The advice to repeat a call."""
    return f"Call {tool} {_SAME}"


def text_result(text: str, *, is_error: bool = False) -> CallToolResult:
    """A result that is one text."""
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)


def json_result(facts: Mapping[str, Any], image: SwapImage | None = None) -> CallToolResult:
    """A result that is a JSON object, after an image if that is small enough for hosts."""
    content: list[ContentBlock] = []
    if image is not None and image.media_type in _IMAGE_TYPES:
        data = base64.b64encode(image.data).decode()
        if len(data) <= MAX_ENCODED:
            content.append(ImageContent(type="image", data=data, mime_type=image.media_type))
    return CallToolResult(content=[*content, TextContent(type="text", text=json.dumps(facts))])


def swap_facts(swap: Swap, file: Path | None = None) -> dict[str, Any]:
    """A swap and what to do next, without its URLs: their queries are signatures."""
    reason = swap.error_message if swap.has_failed else None
    todo = "download" if swap.is_finished else "wait"
    is_over = swap.has_failed or file is not None
    facts = {
        "id": swap.id,
        "status": str(swap.status),
        "progress": None if swap.is_finished else swap.progress,
        "type": swap.type,
        "credits": swap.credit_cost,
        "created_at": None if swap.created_at is None else swap.created_at.isoformat(),
        "error": None if reason is None else without_queries(reason),
        "file": None if file is None else str(file),
        "next": None if is_over else f"Call {todo} with this id.",
    }
    return {name: value for name, value in facts.items() if value is not None}


def failure(error: ToolError) -> CallToolResult:
    """What a model is to know of a call that failed."""
    cause = error.__cause__
    match cause:
        case ValidationError():
            faults = (f"{fault['loc'][0]}: {fault['msg']}." for fault in cause.errors())
            text = " ".join([*faults, _ADVICE[errors.InvalidRequestError]])
            return text_result(text, is_error=True)
        case errors.AIFaceSwapError():
            return text_result(_sentences(cause, cause.message), is_error=True)
        case OSError():
            reason = f"{cause.filename or 'The result'}: {cause.strerror or cause}"
            return text_result(_sentences(cause, reason), is_error=True)
        case None:  # an unknown tool
            return text_result(str(error), is_error=True)
        case _:
            _log.error("a tool call failed", exc_info=cause)
            return text_result(f"The server failed. {_AGAIN}", is_error=True)


def _sentences(error: Exception, reason: str) -> str:
    """What happened and what to do next; the arguments have shorter names than the API's."""
    advice = next(_ADVICE[kind] for kind in type(error).__mro__ if kind in _ADVICE)
    if isinstance(error, errors.APIStatusError) and error.code is None:
        reason, advice = f"HTTP {error.status} without an error of the API", _PAGE
    elif isinstance(error, errors.APIStatusError):
        reason = f"{reason.rstrip('.')} ({error.code})"
    reason = without_queries(reason).replace("source_url", "source").replace("target_url", "target")
    delay = format_duration(getattr(error, "retry_after", None))
    return f"{reason[:_SHOWN].rstrip('.')}. {advice.format(delay=delay)}"
