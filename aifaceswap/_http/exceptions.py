"""Maps aiohttp's exceptions to the package's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp

from aifaceswap.errors import (
    APIConnectionError,
    APITimeoutError,
)


async def mapped_chunks(chunks: AsyncIterator[bytes], timeout: float) -> AsyncGenerator[bytes]:
    """The same pieces; where they end in one of aiohttp's errors, it is one of ours."""
    try:
        async for chunk in chunks:
            yield chunk
    except RAISED as error:
        failure = connection_error(error, timeout)
    else:
        return
    raise failure


class _Lost(Exception):  # noqa: N818 - a carrier, never seen outside
    """Carries a lost connection past aiohttp, which would send a GET again unasked."""


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Lost(error) from error


SEND_ONCE = (_send_once,)
RAISED = (aiohttp.ClientError, _Lost, OSError, ValueError, RuntimeError)
_NEVER_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ServerFingerprintMismatch,
    ValueError,
    RuntimeError,
)


def connection_error(error: BaseException, timeout: float) -> APIConnectionError:
    """Our error for one of aiohttp's. Its words are ours: theirs may hold headers and URLs.

    Args:
        error: What aiohttp raised.
        timeout: The attempt's timeout in seconds, for the message.

    Returns:
        The error, with `sent` telling whether the request may have reached the service.
    """
    if isinstance(error, _Lost):
        error = error.args[0]
    sent = not isinstance(error, _NEVER_SENT)
    if isinstance(error, TimeoutError):
        return APITimeoutError(f"no complete response within {timeout:.3g} s", sent=sent)
    return APIConnectionError(f"{_what_happened(error)} ({type(error).__name__})", sent=sent)


def _what_happened(error: BaseException) -> str:  # noqa: C901, PLR0911 - a table of words
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host!r} does not resolve"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {error.host!r} is not valid: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy rejected the request with status {error.status}"
        case aiohttp.ClientResponseError():
            # Its first line alone: what follows are bytes of the response.
            return f"the response is not HTTP: {error.message.partition(chr(10))[0]}"
        case aiohttp.ClientPayloadError():
            return "the response was truncated or cannot be decompressed"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "the URL is malformed"
        case RuntimeError():
            return "the session is closed or belongs to another event loop"
        case aiohttp.ServerFingerprintMismatch():
            return "the certificate is not the one that was expected"
        case ValueError():
            return "the request cannot be sent"
        case _:
            return "the connection was lost before the response was complete"
