"""Frozen values that show what the emulator has received and stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from typing import TypeAlias

    from aifaceswap.emulator._service.messages import ServerRequest
    from aifaceswap.emulator._service.state import StoredSwap
    from aifaceswap.emulator.faults import RequestAction

    #: When, what, the response's status and code, its request id.
    Entry: TypeAlias = tuple[float, ServerRequest, int, str | None, str]


@attrs.frozen
class RequestRecord:
    """One request and its response.

    Attributes:
        at: When the response was sent, in unix seconds of the emulator's clock.
        method: As received; empty where the request was not HTTP.
        path: Without the query, not decoded.
        query: Not decoded.
        status: The response's status; 0 where a `Reset(commit=False)` left none.
        code: What callers branch on, where the response is an error.
        request_id: The response's `req_…`.
        idempotency_key: From the header, or None.
        fault: What was applied to it, or None.
        headers: As received, in order; they hold the API key and are in no repr.
        body: The bytes as received.
    """

    at: float
    method: str
    path: str
    query: str = attrs.field(repr=False)
    status: int
    code: str | None
    request_id: str
    idempotency_key: str | None
    fault: RequestAction | None
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class SwapRecord:
    """One swap at the moment of the call.

    Attributes:
        id: `tsk_…`.
        type: `image` or `gif`.
        status: As a GET would response now.
        source_url: From the creation.
        target_url: From the creation.
        webhook_url: From the creation, or None.
        target_face_index: From the creation, or None.
        enable_face_enhancer: From the creation, or None.
        metadata: From the creation, or None.
        idempotency_key: The key that it was created with, or None.
        credit_cost: What it was charged.
        created_at: Unix seconds.
        finishes_at: Unix seconds; infinity where it never ends.
    """

    id: str
    type: str
    status: str
    source_url: str
    target_url: str
    webhook_url: str | None
    target_face_index: int | None
    enable_face_enhancer: bool | None
    metadata: dict[str, Any] | None
    idempotency_key: str | None
    credit_cost: float
    created_at: float
    finishes_at: float


def describe_request(entry: Entry) -> RequestRecord:
    """The record of one entry of the log."""
    now, request, status, code, request_id = entry
    return RequestRecord(
        at=now,
        method=request.method,
        path=request.path,
        query=request.query,
        status=status,
        code=code,
        request_id=request_id,
        idempotency_key=request.headers.get("Idempotency-Key"),
        fault=request.fault,
        headers=tuple(request.headers.items()),
        body=request.body,
    )


def describe_swap(swap: StoredSwap, now: float) -> SwapRecord:
    """The record of a swap as it is at `now`."""
    params = swap.params
    return SwapRecord(
        id=swap.id,
        type=params.type,
        status=swap.status(now),
        source_url=params.source_url,
        target_url=params.target_url,
        webhook_url=params.webhook_url,
        target_face_index=params.target_face_index,
        enable_face_enhancer=params.enable_face_enhancer,
        metadata=params.metadata,
        idempotency_key=swap.key,
        credit_cost=swap.cost,
        created_at=swap.created,
        finishes_at=swap.finish,
    )
