"""Downloads of results: streamed, resumed, judged by their bytes, with a new link if needed."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote, urljoin, urlsplit

import anyio
import attrs
from anyio import to_thread
from yarl import URL

from aifaceswap._api.responses import RawResponse, status_error
from aifaceswap._http.attempts import CallOptions
from aifaceswap._http.images import HEAD, TAIL, SwapImage, is_truncated, media_type_of, suffix_of
from aifaceswap._http.retry import next_wait
from aifaceswap._http.saving import PartialFile
from aifaceswap._http.transport import Stream, Transport
from aifaceswap._validation import is_loopback
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    InvalidRequestError,
    SwapFailedError,
)
from aifaceswap.models import Swap, without_query

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK, _PARTIAL, _RANGE_REFUSED, _FIRST_SERVER_ERROR = 200, 206, 416, 500
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/(?:[0-9]{1,15}|\*)")
_ERROR_BODY = 65_536
_SHOWN = 200  # characters of a link in a message: a data URL is as long as its image
# A page in place of an image seldom turns into one: fewer retries than for a lost connection.
_CONTENT_RETRIES = 1
# Seconds between the polls for the link of a swap that is done and has none.
_LINK_POLLS = (1.0, 2.0, 4.0, 8.0)
_ALLOWED = "%!$&'()*+,;=:@/?~"
_RAW_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

GetSwap = Callable[[str], Awaitable[Swap]]


async def save_result(
    transport: Transport,
    swap: Swap | str,
    target: Path,
    options: CallOptions,
    get: GetSwap,
    *,
    max_bytes: int,
    add_suffix: bool = False,
) -> Path:
    """Download a swap's result into a file, which appears when it is complete.

    Args:
        transport: Opens the streams.
        swap: The swap, or its id.
        target: The file; an older one stays untouched until the new one is complete.
        options: ``timeout`` for the connection and between two chunks, ``deadline`` for all.
        get: Fetches the swap's current state, for a link.
        max_bytes: Maximum size of the result in bytes.
        add_suffix: Add the suffix that fits the bytes to the target's name.

    Returns:
        The path of the file.

    Raises:
        APIStatusError: The server rejected the request, also for a new link.
        APIConnectionError: The connection was lost too often, or the deadline passed.
        APIResponseError: The result is not an image, is too large, or has no usable link.
        OSError: The file cannot be written; the message says how to download it again.
    """
    try:
        with await to_thread.run_sync(PartialFile, target) as partial:
            fetched = _Result(transport, partial.file, options, max_bytes, partial.reserve)
            media_type = await _fetch(fetched, swap, get)
            if add_suffix:
                target = target.with_name(target.name + suffix_of(media_type))
            await to_thread.run_sync(partial.move_to, target)
            return target
    except OSError as error:
        if isinstance(error, AIFaceSwapError):
            raise
        raise _with_advice(error, swap if isinstance(swap, str) else swap.id) from error


async def fetch_result(
    transport: Transport, swap: Swap | str, options: CallOptions, get: GetSwap, *, max_bytes: int
) -> SwapImage:
    """Download a swap's result into memory; arguments and errors as in `save_result`."""
    buffer = io.BytesIO()
    fetched = _Result(transport, buffer, options, max_bytes, lambda _: None)
    media_type = await _fetch(fetched, swap, get)
    return SwapImage(buffer.getvalue(), media_type)


async def _fetch(result: _Result, swap: Swap | str, get: GetSwap) -> str:
    """Fetch a result by the swap's link; if that does not work, by one that the API returns now."""
    link = swap.result_url if isinstance(swap, Swap) and not swap.has_failed else None
    failure: AIFaceSwapError | None = None
    if link:
        try:
            return await result.fetch(link)
        except (APIStatusError, APIConnectionError, APIResponseError) as error:
            if _status_of(error) >= _FIRST_SERVER_ERROR or result.is_too_large:
                raise
            failure = error
    is_permanent = isinstance(failure, APIResponseError) and failure.permanent
    if failure is not None and result.time_left <= 0:
        raise failure
    try:
        current = await _current_link(swap if isinstance(swap, str) else swap.id, get)
    except AIFaceSwapError as error:
        if failure is None or not (is_permanent or _is_broken(error)):
            raise
        raise failure from error
    if failure is not None and is_permanent and current == link:
        raise failure
    return await result.fetch(current)


def _is_broken(error: AIFaceSwapError) -> bool:
    return isinstance(error, APIConnectionError | APIResponseError)


def _status_of(error: AIFaceSwapError) -> int:
    return error.status if isinstance(error, APIStatusError) else 0


async def _current_link(swap_id: str, get: GetSwap) -> str:
    """The link to a result; one that is missing just after the swap's end is polled for."""
    status = ""
    for delay in (*_LINK_POLLS, None):
        swap = await get(swap_id)
        status = swap.status
        if swap.has_failed:
            raise SwapFailedError.of(swap)
        if swap.result_url:
            return swap.result_url
        if not swap.is_finished:
            reason = f"must have a result (its status is {swap.status}; wait for it first)"
            raise InvalidRequestError.for_field("swap", swap_id, reason)
        if delay is not None:
            await asyncio.sleep(delay)
    raise APIResponseError(
        f"swap {swap_id} is {status}, but the API has returned no link to its result for "
        f"{sum(_LINK_POLLS):g} s; the swap was charged: download it again later"
    )


def _with_advice(error: OSError, swap_id: str) -> OSError:
    """The same error; its message says that nothing is lost."""
    text = (
        f"{error.strerror or error}; the swap was charged, and its result is not lost: "
        f"client.swaps.download({swap_id!r}, path) downloads it again"
    )
    return OSError(error.errno, text, error.filename)


def read_link(link: str, base_url: str) -> URL:
    """Read a link to a result, whatever it is.

    Raw characters are percent-encoded; a signature stays as it is. A user name is taken off.

    Args:
        link: The link as it was received.
        base_url: The API's URL: plain http is allowed only if both are on this machine.

    Returns:
        The URL, encoded.

    Raises:
        APIResponseError: It is not a link that a result can be downloaded from.
    """
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
        origin = URL.build(scheme=parts.scheme, host=host, port=parts.port)
        query = f"?{_encoded(parts.query)}" if parts.query else ""
        url = URL(f"{origin}{_encoded(parts.path) or '/'}{query}", encoded=True)
        is_local = is_loopback(url.host) and is_loopback(urlsplit(base_url).hostname)
    except Exception:  # whatever a parser raises
        raise _unusable(link, "has a malformed URL", permanent=True) from None
    if not host or (url.scheme != "https" and not (url.scheme == "http" and is_local)):
        raise _unusable(link, "must have an https:// URL", permanent=True)
    return url


def _encoded(text: str) -> str:
    """Percent-encode raw characters, and nothing that is encoded already."""
    return quote(_RAW_PERCENT.sub("%25", text), safe=_ALLOWED, errors="replace")


def _unusable(link: str, fault: str, *, permanent: bool) -> APIResponseError:
    shown = (without_query(link) or "")[:_SHOWN]
    return APIResponseError(f"the result at {shown} {fault}", permanent=permanent)


@attrs.define
class _Result:
    """One download: what has been received so far, and how to get the rest."""

    transport: Transport
    sink: IO[bytes]
    options: CallOptions
    max_bytes: int
    reserve: Callable[[int], None]
    size: int = 0
    # What proves that the rest belongs to what was received: without it a resumed file could be
    # half of one image and half of another.
    validator: str | None = None
    redirects: int = 0
    is_too_large: bool = False
    ends: float = 0.0
    url: URL = attrs.field(factory=URL)
    media_type: str = ""

    async def fetch(self, link: str) -> str:
        """Fetch the result by this link; returns what it is."""
        self.ends = self.ends or asyncio.get_running_loop().time() + self.options.deadline
        self.url = read_link(link, self.transport.base_url)
        self.redirects = 0
        await self._start_over()
        await self._fetch_with_retries()
        return self.media_type

    @property
    def time_left(self) -> float:
        """Seconds until the deadline, which holds for all links of this result together."""
        return self.ends - asyncio.get_running_loop().time()

    @property
    def file(self) -> anyio.AsyncFile[bytes]:
        return anyio.wrap_file(self.sink)

    async def _fetch_with_retries(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._attempt(self.time_left)
            except AIFaceSwapError as error:
                if isinstance(error, APIConnectionError):
                    error.attempts = attempt
                retries = self.options.max_retries
                if isinstance(error, APIResponseError):
                    retries = min(retries, _CONTENT_RETRIES)
                wait = next_wait(attempt, error, self.time_left, max_retries=retries)
                if wait is None:
                    raise
            else:
                return
            await asyncio.sleep(wait)

    async def _attempt(self, time_left: float) -> None:
        try:
            async with asyncio.timeout(time_left):
                while not await self._exchange():
                    pass
        except TimeoutError as error:
            if isinstance(error, APITimeoutError):
                raise
            text = f"the download did not finish within {self.options.deadline:g} s"
            raise APITimeoutError(text) from None

    async def _exchange(self) -> bool:
        """One request; True when the result is complete."""
        async with self.transport.stream(self.url, self._headers(), self.options.timeout) as stream:
            location = stream.headers.get("Location")
            if stream.status in _REDIRECTS and location:
                self._redirect(location)
                return False
            if stream.status == _RANGE_REFUSED and self.size:
                await self._start_over()
                return False
            if stream.status not in (_OK, _PARTIAL):
                raise status_error(await _error_response(stream), 1, None)
            await self._place(stream)
            await self._receive(stream)
            await self._judge(stream.headers.get("Content-Type", ""))
            return True

    def _headers(self) -> Mapping[str, str]:
        if not self.size or self.validator is None:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    async def _place(self, stream: Stream) -> None:
        """Make sure that the next chunks are written where they belong."""
        content_range = _CONTENT_RANGE.fullmatch(stream.headers.get("Content-Range", ""))
        begins = int(content_range[1]) if content_range else None
        if stream.status == _PARTIAL and begins != self.size:
            self.validator = None
            raise APIConnectionError("the server sent another part of the file than requested")
        if stream.status == _OK:
            await self._start_over()
        self.validator = _validator(stream.headers)

    async def _start_over(self) -> None:
        await self.file.seek(0)
        await self.file.truncate()
        self.size = 0
        self.validator = None

    async def _receive(self, stream: Stream) -> None:
        length = stream.headers.get("Content-Length", "")
        encoded = "Content-Encoding" in stream.headers
        expected = self.size + int(length) if length.isdecimal() and not encoded else None
        self._check_size(expected or 0)
        self.reserve((expected or 0) - self.size)
        async for chunk in stream.chunks:
            self._check_size(self.size + len(chunk))
            await self.file.write(chunk)
            self.size += len(chunk)
        if expected not in (None, self.size) or not self.size:
            raise APIConnectionError(f"the download ended after {self.size} of {expected} bytes")

    async def _judge(self, content_type: str) -> None:
        """Check what was received by its own bytes; a server's word counts for little."""
        await self.file.seek(0)
        head = await self.file.read(HEAD)
        await self.file.seek(max(0, self.size - TAIL))
        tail = await self.file.read(TAIL)
        media_type = media_type_of(head, content_type)
        fault = None
        if media_type is None:
            fault = "is text and not an image"
        elif is_truncated(media_type, head, tail, self.size):
            fault = f"is truncated ({self.size} bytes)"
        if fault is not None:
            await self._start_over()
            raise self._unusable(fault, permanent=False)
        self.media_type = media_type or ""

    def _redirect(self, location: str) -> None:
        self.redirects += 1
        if self.redirects > _MAX_REDIRECTS:
            raise self._unusable(f"redirects more than {_MAX_REDIRECTS} times", permanent=True)
        self.url = read_link(_joined(str(self.url), location), self.transport.base_url)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            self.is_too_large = True
            raise self._unusable(f"is larger than {self.max_bytes} bytes", permanent=True)

    def _unusable(self, fault: str, *, permanent: bool) -> APIResponseError:
        return _unusable(str(self.url), fault, permanent=permanent)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise _unusable(url, "redirects to a malformed URL", permanent=True) from None


def _validator(headers: Mapping[str, str]) -> str | None:
    """The value for If-Range: a strong ETag, else the time of the last change."""
    if "Content-Encoding" in headers:
        return None
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


async def _error_response(stream: Stream) -> RawResponse:
    body = b""
    async for chunk in stream.chunks:
        body += chunk
        if len(body) > _ERROR_BODY:
            break
    return RawResponse(stream.status, stream.headers, body[:_ERROR_BODY])
