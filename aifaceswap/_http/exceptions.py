"""Maps aiohttp's exceptions to the package's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp

from aifaceswap.errors import APIConnectionError, APITimeoutError


async def mapped_chunks(chunks: AsyncIterator[bytes], timeout: float) -> AsyncGenerator[bytes]:
    """The same chunks, with our errors in place of aiohttp's."""
    try:
        async for chunk in chunks:
            yield chunk
    except RAISED as error:
        failure = connection_error(error, timeout)
    else:
        return
    raise failure


class _Lost(Exception):  # noqa: N818 - a carrier, never seen outside
    """Carries a lost connection past aiohttp, which would resend a GET unasked."""


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
# The next attempt would fail in the same way.
_PERMANENT = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ServerFingerprintMismatch,
    ValueError,
    RuntimeError,
)
_BAD_GATEWAY = 500  # and above: a proxy that may recover


def connection_error(
    error: BaseException, timeout: float, *, sent: bool | None = None
) -> APIConnectionError:
    """Our error for one of aiohttp's, in our words: theirs may quote headers and URLs.

    `timeout` is the attempt's, in seconds. `sent` is whether its body may have been sent; None
    if that can only be concluded from the error.
    """
    if isinstance(error, _Lost):
        error = error.args[0]
    if sent is None:
        sent = not isinstance(error, _NEVER_SENT)
    if isinstance(error, TimeoutError):
        what = "no complete response" if sent else "no connection"
        return APITimeoutError(f"{what} within {timeout:.3g} s", sent=sent)
    text = f"{_what_happened(error)} ({type(error).__name__})"
    return APIConnectionError(text, sent=sent, permanent=_is_permanent(error))


def _is_permanent(error: BaseException) -> bool:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status < _BAD_GATEWAY
    return isinstance(error, _PERMANENT)


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
            return "the response is not HTTP"
        case aiohttp.ClientPayloadError():
            return "the response was truncated or cannot be decompressed"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "the URL is malformed"
        case RuntimeError():
            return "the session is closed or belongs to another event loop"
        case aiohttp.ServerFingerprintMismatch():
            return "the certificate does not have the expected fingerprint"
        case ValueError():
            return "the request cannot be sent"
        case _:
            return "the connection was lost before the response was complete"
