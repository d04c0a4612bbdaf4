"""Requests about local files to an emulator: without the key, the budget and a proxy."""

from __future__ import annotations

import io

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=60)


async def request_file(method: str, url: str, content: bytes | None, media_type: str) -> int:
    """Send one request; return the status of the response, or 0 without one."""
    headers = {"Content-Type": media_type} if media_type else {}
    data = None if content is None else io.BytesIO(content)  # sent in pieces
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as response,
        ):
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0
