"""Results to files: streamed, checked, resumed, whole or absent."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import anyio
import attrs
from anyio import to_thread

from aifaceswap._api.responses import RawResponse, status_error
from aifaceswap._http.retry import next_wait
from aifaceswap._http.transport import CallOptions, Stream, Transport
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
_OK, _PARTIAL, _RANGE_REFUSED = 200, 206, 416
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/(?:[0-9]{1,15}|\*)")
_LONGEST_NAME = 100
_ERROR_BODY = 65_536


def check_target(path: str | os.PathLike[str]) -> Path:
    """Check that a file can be written there, before anything is asked of the service.

    Args:
        path: Where the file is to be.

    Returns:
        The path.

    Raises:
        InvalidRequestError: It is no file, or its folder is missing or cannot be written to.
    """
    try:
        target = Path(path)
    except TypeError:
        raise InvalidRequestError.for_field(
            "path", path, "must be a path: a str or a PathLike"
        ) from None
    if fault := _target_fault(target):
        raise InvalidRequestError.for_field("path", str(path), fault)
    return target


def _target_fault(target: Path) -> str | None:
    try:
        if not target.name or target.is_dir():
            return "must name a file, not a folder"
        if not target.parent.is_dir():
            return "must be in a folder that exists"
        if target.exists() and not target.is_file():
            return "must be a regular file"
        if not os.access(target.parent, os.W_OK):
            return "must be in a folder that can be written to"
    except (OSError, ValueError) as error:
        return f"must be a valid file name ({error})"
    return None


async def download_result(
    transport: Transport,
    swap: Swap | str,
    target: Path,
    options: CallOptions,
    get: Callable[[str], Awaitable[Swap]],
    *,
    max_bytes: int,
) -> None:
    """Download a swap's result; if its link does not work, with the one that `get` returns."""
    if isinstance(swap, Swap) and swap.result_url:
        try:
            await download(transport, _result_url(swap), target, options, max_bytes=max_bytes)
        except (APIStatusError, APIConnectionError) as error:
            if isinstance(error, APIStatusError) and error.status >= 500:  # noqa: PLR2004 - all 5xx
                raise
        else:
            return
    current = await get(swap.id if isinstance(swap, Swap) else swap)
    await download(transport, _result_url(current), target, options, max_bytes=max_bytes)


def _result_url(swap: Swap) -> str:
    if swap.has_failed:
        raise SwapFailedError.of(swap)
    if not swap.result_url:
        reason = f"must have a result (its status is {swap.status}; wait for it first)"
        raise InvalidRequestError.for_field("swap", swap.id, reason)
    return swap.result_url


async def download(
    transport: Transport, url: str, target: Path, options: CallOptions, *, max_bytes: int
) -> None:
    """Fetch a result into a file, which appears when it is whole.

    Args:
        transport: What opens the streams.
        url: Where the result is.
        target: The file; an older one stays untouched until the new one is whole.
        options: ``timeout`` for the connection and between two pieces, ``deadline`` for all.
        max_bytes: Give up beyond so many bytes.

    Raises:
        APIStatusError: The server refused, e.g. because the URL has expired.
        APIConnectionError: It broke off too often, or the deadline passed.
        APIResponseError: It is no picture, is too large, or leads to a place without TLS.
        OSError: The file cannot be written.
    """
    temporary = target.with_name(f".{target.name[:_LONGEST_NAME]}.{uuid.uuid4().hex[:12]}.part")
    try:
        async with await anyio.open_file(temporary, "xb") as file:
            fetch = _Fetch(transport, url, file, options, max_bytes)
            await fetch.run()
            await file.flush()
            await to_thread.run_sync(os.fsync, file.wrapped.fileno())
        await to_thread.run_sync(os.replace, temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


@attrs.define
class _Fetch:
    """One download: what has come so far, and how to get the rest."""

    transport: Transport
    url: str
    file: anyio.AsyncFile[bytes]
    options: CallOptions
    max_bytes: int
    size: int = 0
    # What proves that the rest belongs to what has come: without it a resumed file could be
    # half of one picture and half of another.
    validator: str | None = None
    redirects: int = 0

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        ends = clock() + self.options.deadline
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._attempt(ends - clock())
            except AIFaceSwapError as error:
                if isinstance(error, APIConnectionError):
                    error.attempts = attempt
                retries = self.options.max_retries
                wait = next_wait(attempt, error, ends - clock(), max_retries=retries)
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
            text = f"the download was not whole within {self.options.deadline:g} s"
            raise APITimeoutError(text) from None

    async def _exchange(self) -> bool:
        """One request; True when the file is whole."""
        self._check_url()
        async with self.transport.stream(self.url, self._headers(), self.options.timeout) as stream:
            location = stream.headers.get("Location")
            if stream.status in _REDIRECTS and location:
                self._redirect(location)
                return False
            if stream.status == _RANGE_REFUSED and self.size:
                await self._start_over()
                return False
            if stream.status not in (_OK, _PARTIAL):
                raise status_error(await _refusal(stream), 1, None)
            await self._place(stream)
            await self._receive(stream)
            return True

    def _headers(self) -> Mapping[str, str]:
        if not self.size or self.validator is None:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    async def _place(self, stream: Stream) -> None:
        """See to it that the pieces to come are written where they belong."""
        content_range = _CONTENT_RANGE.fullmatch(stream.headers.get("Content-Range", ""))
        begins = int(content_range[1]) if content_range else None
        if stream.status == _PARTIAL and begins != self.size:
            self.validator = None
            raise APIConnectionError("the server sent another part of the file than it was asked")
        if stream.status == _OK:
            await self._start_over()
        self.validator = _validator(stream.headers)

    async def _start_over(self) -> None:
        await self.file.seek(0)
        await self.file.truncate()
        self.size = 0
        self.validator = None

    async def _receive(self, stream: Stream) -> None:
        if stream.headers.get("Content-Type", "").startswith("text/"):
            raise self._unusable("is text and no picture", permanent=False)
        length = stream.headers.get("Content-Length", "")
        encoded = "Content-Encoding" in stream.headers
        expected = self.size + int(length) if length.isdecimal() and not encoded else None
        self._check_size(expected or 0)
        async for chunk in stream.chunks:
            self._check_size(self.size + len(chunk))
            await self.file.write(chunk)
            self.size += len(chunk)
        if expected not in (None, self.size) or not self.size:
            raise APIConnectionError(f"the download ended after {self.size} of {expected} bytes")

    def _redirect(self, location: str) -> None:
        self.redirects += 1
        if self.redirects > _MAX_REDIRECTS:
            raise self._unusable(f"redirects more than {_MAX_REDIRECTS} times", permanent=True)
        try:
            self.url = urljoin(self.url, location)
        except ValueError:
            raise self._unusable("redirects to a malformed URL", permanent=True) from None

    def _check_url(self) -> None:
        """Results come by TLS, or from this machine where the API itself is on it."""
        try:
            parts, base = urlsplit(self.url), urlsplit(self.transport.base_url)
            local = is_loopback(parts.hostname) and is_loopback(base.hostname)
        except ValueError:
            raise self._unusable("is malformed", permanent=True) from None
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise self._unusable("is not https", permanent=True)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise self._unusable(f"is larger than {self.max_bytes} bytes", permanent=True)

    def _unusable(self, fault: str, *, permanent: bool) -> APIResponseError:
        text = f"the result at {without_query(self.url)} {fault}"
        return APIResponseError(text, permanent=permanent)


def _validator(headers: Mapping[str, str]) -> str | None:
    """What If-Range can be asked with: a strong ETag, else the time of the last change."""
    if "Content-Encoding" in headers:
        return None
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


async def _refusal(stream: Stream) -> RawResponse:
    body = b""
    async for chunk in stream.chunks:
        body += chunk
        if len(body) > _ERROR_BODY:
            break
    return RawResponse(stream.status, stream.headers, body[:_ERROR_BODY])
