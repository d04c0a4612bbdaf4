"""A request as it enters the emulator, and a response as it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aifaceswap.emulator._service.errors import Problem
    from aifaceswap.emulator.faults import RequestAction


@attrs.frozen(eq=False)
class ServerRequest:
    """What was received.

    Attributes:
        method: As on the request line.
        path: Not decoded, without the query.
        query: Not decoded, without the question mark.
        headers: Names match in any case.
        body: The bytes as sent, still encoded where there is a Content-Encoding.
        flaw: What is wrong with the body if it could not be read completely.
        rejection: Why the request is rejected before anything else.
        fault: The fault that applies to it, if any.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    flaw: Problem | None = None
    rejection: Problem | None = None
    fault: RequestAction | None = None


@attrs.frozen(eq=False)
class ServerResponse:
    """What is sent back.

    Attributes:
        status: The HTTP status.
        headers: All but Content-Length and what belongs to the connection.
        body: The bytes.
        code: What the body says is wrong, if anything is.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    code: str | None = None
