"""Proxies, private certificate authorities, and names that are resolved again."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from aifaceswap import APIConnectionError, AsyncClient, ConfigurationError
from aifaceswap._http.proxies import Proxies
from aifaceswap._validation import Secret
from support.certificates import CERTIFICATE, server_context
from support.scripted import ScriptedServer, answer

KEY = "key_test_123"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Tunnel:
    """An HTTP proxy that carries CONNECT on to loopback, and keeps what it was asked."""

    def __init__(self) -> None:
        self.heads: list[str] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        port = int(head.split(" ")[1].rpartition(":")[2])
        server, to_server = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(carry(reader, to_server), carry(server, writer))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def tunnel() -> AsyncIterator[tuple[Tunnel, str]]:
    proxy = Tunnel()
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    async with server:
        yield proxy, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def trusting() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that trusts the tests' own authority."""
    tls = ssl.create_default_context(cadata=CERTIFICATE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        yield session


@pytest.mark.parametrize("variable", [None, *VARIABLES[::2]])
async def test_a_call_through_a_proxy(
    variable: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given by hand or in the environment; it sees neither the key nor the request."""
    async with (
        ScriptedServer(answer(), tls=server_context(tmp_path)) as server,
        tunnel() as (proxy, address),
        trusting() as session,
    ):
        url = f"http://user:p%40ss@{address}"
        if variable is not None:
            monkeypatch.setenv(variable, url)
        client = AsyncClient(
            KEY,
            base_url=server.base_url,
            session=session,
            proxy="environment" if variable else url,
        )
        assert (await client.swaps.get("tsk_1")).id == "tsk_1"

    credentials = b64encode(b"user:p@ss").decode()
    assert [head.split("\r\n")[0] for head in proxy.heads] == [
        f"CONNECT localhost:{server.port} HTTP/1.1"
    ]
    assert f"Proxy-Authorization: Basic {credentials}\r\n" in proxy.heads[0]
    assert KEY not in proxy.heads[0]
    assert "proxy-authorization" not in server.requests[0].headers


@pytest.mark.parametrize("entry", ["localhost", "example.com, LOCALHOST ", "*", "localhost:{port}"])
async def test_no_proxy(entry: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hosts that NO_PROXY names are reached directly."""
    async with (
        ScriptedServer(answer(), tls=server_context(tmp_path)) as server,
        trusting() as session,
    ):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", entry.format(port=server.port))
        client = AsyncClient(KEY, base_url=server.base_url, session=session, proxy="environment")
        assert (await client.swaps.get("tsk_1")).id == "tsk_1"


@pytest.mark.parametrize(
    ("entry", "url", "direct"),
    [
        ("example.com", "https://example.com/", True),
        ("example.com", "https://api.example.com/", True),
        (".example.com", "https://api.example.com/", True),
        ("*.example.com", "https://api.example.com/", True),
        ("example.com", "https://notexample.com/", False),
        ("example.com:444", "https://example.com/", False),
        ("example.com:443", "https://example.com/", True),
        ("10.0.0.0/8", "https://10.1.2.3/", True),
        ("10.0.0.0/8", "https://11.1.2.3/", False),
        ("::1", "https://[::1]/", True),
        ("[::1]", "https://[::1]/", True),
        ("", "https://example.com/", False),
        (",,", "https://example.com/", False),
    ],
)
def test_entries_of_no_proxy(
    entry: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names with their subdomains, ports, addresses and networks."""
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", entry)
    proxies = Proxies.of(Secret("environment"))

    assert (None if direct else "http://proxy.example:3128") == proxies.proxy_for(URL(url))


def test_an_environment_without_a_proxy() -> None:
    """Nothing is sent another way."""
    assert Proxies.of(Secret("environment")).proxy_for(URL("https://example.com/")) is None


def test_a_proxy_of_the_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and not passed over."""
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:1080")
    with pytest.raises(ConfigurationError, match=r"^proxy must be a URL") as caught:
        AsyncClient(KEY, proxy="environment")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("source", ["argument", "session", "trust_env"])
async def test_plain_http_never_goes_through_a_proxy(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy would see the key: ours is passed by, one of a session is an error."""
    async with ScriptedServer(answer()) as proxy, ScriptedServer(answer()) as server:
        url = f"http://127.0.0.1:{proxy.port}"
        monkeypatch.setenv("HTTP_PROXY", url)
        if source == "argument":
            client = AsyncClient(KEY, base_url=server.base_url, proxy=url)
            assert (await client.swaps.get("tsk_1")).id == "tsk_1"
            await client.aclose()
        else:
            theirs = url if source == "session" else None
            async with aiohttp.ClientSession(proxy=theirs, trust_env=True) as session:
                client = AsyncClient(KEY, base_url=server.base_url, session=session)
                with pytest.raises(ConfigurationError, match=r"^session must not send"):
                    await client.swaps.get("tsk_1")
    assert proxy.requests == []


PRIVATE = """
import asyncio, sys, aifaceswap
client = aifaceswap.Client("key", base_url=sys.argv[1], max_retries=0)
try:
    print(client.swaps.get("tsk_1").id)
except aifaceswap.APIConnectionError as error:
    print(error)
"""


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_private_certificate_authority(trusted: bool, tmp_path: Path) -> None:
    """SSL_CERT_FILE names it; without it the error says what is wrong, and nothing is sent."""
    authority = tmp_path / "authority.pem"
    authority.write_text(CERTIFICATE)
    env = {**os.environ, "SSL_CERT_FILE": str(authority) if trusted else os.devnull}
    async with ScriptedServer(answer(), tls=server_context(tmp_path)) as server:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", PRIVATE, server.base_url],
            capture_output=True,
            text=True,
            timeout=30,
            env=env,
        )

    assert done.stderr == ""
    if trusted:
        assert done.stdout == "tsk_1\n"
    else:
        assert "certificate of 'localhost' is not valid" in done.stdout
        assert server.requests == []


class Resolver(AbstractResolver):
    """A name whose first address is an old one."""

    def __init__(self, ports: Iterator[int]) -> None:
        self._ports = ports

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: int = 0,
    ) -> list[ResolveResult]:
        port = next(self._ports)
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=6, flags=0)
        ]

    async def close(self) -> None:
        pass


async def test_a_failed_connect_resolves_the_name_again(tmp_path: Path) -> None:
    """The retry goes to the new address, and not to what was remembered."""
    async with ScriptedServer(answer(), tls=server_context(tmp_path)) as server:
        tls = ssl.create_default_context(cadata=CERTIFICATE)
        connector = aiohttp.TCPConnector(
            resolver=Resolver(iter([9, server.port])), ssl=tls, ttl_dns_cache=600
        )
        async with aiohttp.ClientSession(connector=connector) as session:
            client = AsyncClient(KEY, base_url=server.base_url, session=session, max_retries=1)
            assert (await client.swaps.get("tsk_1")).id == "tsk_1"


async def test_a_session_of_another_type() -> None:
    """It is named, before anything is sent."""
    with pytest.raises(ConfigurationError, match=r"^session must be an aiohttp\.ClientSession"):
        AsyncClient(KEY, session=object())  # type: ignore[arg-type]


async def test_a_proxy_that_nobody_serves() -> None:
    """The error names the proxy's address, and neither its password nor the key."""
    client = AsyncClient(KEY, proxy="http://user:secret@127.0.0.1:9", max_retries=0)
    with pytest.raises(APIConnectionError, match=r"cannot connect to 127\.0\.0\.1:9") as caught:
        await client.me()
    await client.aclose()
    assert not caught.value.sent
    assert "secret" not in str(caught.value)
