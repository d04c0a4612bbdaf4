"""The API key and the proxy's password on the wire: where they go, and where they never show."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from html import escape
from json import dumps
from typing import SupportsIndex
from urllib.parse import quote

import aiohttp
import attrs
from multidict import CIMultiDict

from aifaceswap._api.responses import RawResponse
from aifaceswap._validation import Proxy, Secret
from aifaceswap.errors import ConfigurationError

# A shorter key, as in a test, may be part of any word.
_SHORTEST_ECHO = 8
_ANONYMOUS_HEADERS = frozenset(
    {"Accept", "Accept-Encoding", "Connection", "Host", "If-Range", "Range", "User-Agent"}
)


class Credentials:
    """Adds secrets to requests as the last step, and takes their echoes out of responses."""

    def __init__(self, api_key: Secret, proxy: Proxy | None) -> None:
        self._authorization = Secret(f"Bearer {api_key.reveal()}")
        self._proxy = proxy
        self._echoes = [Secret(text) for text in _echoes(api_key, proxy)]

    def fingerprint(self, salt: bytes) -> bytes:
        """What recognises the API key, and does not reveal it."""
        return hmac.digest(salt, self._authorization.reveal().encode(), "sha256")

    async def authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Middleware: add the key where no frame of aiohttp has it in a local."""
        if request.proxy is not None and not request.is_ssl():
            text = "session must not send plain http through a proxy, which would see the key"
            raise ConfigurationError(text, field="session")
        request.headers["Authorization"] = _Hidden(self._authorization.reveal())
        self._authorize_proxy(request)
        return await handler(request)

    async def make_anonymous(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Middleware: remove what an injected session or a netrc file added to a download."""
        for name in {name for name in request.headers if name.title() not in _ANONYMOUS_HEADERS}:
            request.headers.popall(name)
        self._authorize_proxy(request)
        return await handler(request)

    def _authorize_proxy(self, request: aiohttp.ClientRequest) -> None:
        proxy = self._proxy
        if request.proxy is not None and proxy is not None and proxy.authorization is not None:
            header = _Hidden(proxy.authorization.reveal())
            proxy_headers: CIMultiDict[str] = CIMultiDict({"Proxy-Authorization": header})
            setattr(request, "proxy_headers", proxy_headers)  # noqa: B010 - typed as None only

    def redact(self, response: RawResponse) -> RawResponse:
        """The same without secrets that a proxy's page or a debug header may echo."""
        headers: Mapping[str, str] = response.headers
        body = response.body
        for echo in self._echoes:
            body = body.replace(echo.reveal().encode(), b"***")
            if any(echo.reveal() in value for value in headers.values()):
                headers = CIMultiDict(
                    (name, value.replace(echo.reveal(), "***")) for name, value in headers.items()
                )
        if body is response.body and headers is response.headers:
            return response
        return attrs.evolve(response, headers=headers, body=body)


class _Hidden(str):
    """A header's value that no traceback shows, nor a slice of it: aiohttp needs a string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, index: SupportsIndex | slice, /) -> str:
        return _Hidden(super().__getitem__(index))


def _echoes(api_key: Secret, proxy: Proxy | None) -> set[str]:
    """The secrets as a page can repeat them: as they are, and escaped for HTML, URLs and JSON."""
    texts = [api_key.reveal()]
    if proxy is not None and proxy.authorization is not None:
        texts.append(proxy.authorization.reveal().removeprefix("Basic "))
    ways: tuple[Callable[[str], str], ...] = (str, escape, quote, lambda text: dumps(text)[1:-1])
    return {way(text) for text in texts if len(text) >= _SHORTEST_ECHO for way in ways}
