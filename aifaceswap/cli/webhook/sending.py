"""One delivery posted to an app on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
import attrs
from yarl import URL

from aifaceswap._http.exceptions import connection_error

#: Seconds that the app has for its response.
TIMEOUT_SECONDS = 30.0

_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@attrs.frozen
class SendResult:
    """How an app responded to a delivery.

    Attributes:
        seconds: How long it took.
        status: The app's status; None: it did not respond.
        error: Why it did not.
    """

    seconds: float
    status: int | None = None
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the app has accepted the delivery."""
        return self.status is not None and HTTPStatus(200) <= self.status < HTTPStatus(300)


def new_session() -> aiohttp.ClientSession:
    """A session for deliveries; an app in development is often restarted, so nothing is kept."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def send_delivery(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> SendResult:
    """Post a delivery once."""
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        async with session.post(
            URL(url, encoded=True),
            data=body,
            headers=headers,
            skip_auto_headers=_NOT_ADDED,
            allow_redirects=False,
        ) as response:
            return SendResult(clock() - began, status=response.status)
    except (aiohttp.ClientError, OSError) as error:
        failure = connection_error(error, TIMEOUT_SECONDS)
    return SendResult(clock() - began, error=failure.message)
