"""The emulator's own store: uploads, what it accepts, and what is not an emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from aifaceswap import (
    AsyncClient,
    FileStoreError,
    InvalidRequestError,
    SourceUnreachableError,
    UnsupportedMediaTypeError,
    errors,
)
from aifaceswap.emulator import Emulator
from aifaceswap.emulator._service import files as emulated
from aifaceswap.files import EmulatorStore
from aifaceswap.files._local import check_file
from support.buckets import GIF, JPEG
from support.samples import FACE, TARGET
from support.scripted import ScriptedServer, answer

FILE = check_file("source", JPEG)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(duration=0) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=None) as client:
        yield client


async def send(method: str, url: str, content: bytes = b"", media_type: str = "image/jpeg") -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, url, data=content, headers={"Content-Type": media_type}
        ) as response,
    ):
        return response.status


async def test_files_are_served(emulator: Emulator, client: AsyncClient) -> None:
    """With their type, to everybody on this machine, until they are withdrawn."""
    urls = await asyncio.gather(*(client.swaps.publish(JPEG) for _ in range(50)))
    async with aiohttp.ClientSession() as session, session.get(urls[0]) as response:
        fetched = (response.status, response.content_type, await response.read())
    await client.swaps.withdraw(urls[0])
    await client.swaps.withdraw(urls[0])

    assert len(set(urls)) == 1
    assert fetched == (200, "image/jpeg", JPEG)
    assert await send("GET", urls[0]) == 404
    assert emulator.requests == ()


async def test_only_what_was_uploaded_is_a_source(emulator: Emulator, client: AsyncClient) -> None:
    """A file that is gone is unreachable, also after a reset; then it is uploaded again."""
    url = await client.swaps.publish(JPEG)
    await client.swaps.create(source_url=url, target_url=TARGET)
    emulator.reset()
    with pytest.raises(SourceUnreachableError, match="source_url: there is no such file"):
        await client.swaps.create(source_url=url, target_url=TARGET)

    assert (await client.swaps.create(source=JPEG, target_url=TARGET)).status == "queued"


async def test_the_target_must_be_of_the_type(client: AsyncClient) -> None:
    """It is, unless a caller says otherwise."""
    for target, kind in ((GIF, "image"), (JPEG, "gif")):
        with pytest.raises(UnsupportedMediaTypeError):
            await client.swaps.create(source=JPEG, target=target, type=kind)


async def test_file_names_ask_for_errors(client: AsyncClient, tmp_path: Path) -> None:
    """As they do in URLs."""
    (tmp_path / "nsfw.jpg").write_bytes(JPEG)
    with pytest.raises(errors.ContentRejectedError):
        await client.swaps.create(source=tmp_path / "nsfw.jpg", target_url=TARGET)


async def test_names_are_encoded(client: AsyncClient, tmp_path: Path) -> None:
    """Whatever a file is called, its URL is one."""
    path = tmp_path / "Bild #1 50%?/ä.jpg".replace("/", "_")
    path.write_bytes(JPEG)

    swap = await client.swaps.run(source=path, target=JPEG)
    assert swap.status == "done"


async def test_uploads_are_checked(emulator: Emulator) -> None:
    """The path must have the hash of the body, which must be called an image."""
    url = f"{emulator.origin}/_emulator/files/{FILE.sha256}/face.jpg"

    assert await send("PUT", url, b"other") == 400
    assert await send("PUT", url, JPEG, "text/html") == 400
    assert await send("PUT", url, JPEG, "image/svg+xml") == 400
    assert await send("HEAD", url) == 404
    assert await send("PUT", url, JPEG) == 201
    assert await send("HEAD", url) == 200
    assert await send("POST", url) == 405


async def test_large_files(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the 1 MiB of other requests; what is too large is an error of the file."""
    large = JPEG + bytes(2 * 1024 * 1024)
    store = EmulatorStore(emulator.base_url)
    await store.publish(check_file("source", large))
    monkeypatch.setattr("aifaceswap.emulator._server.server.LARGEST_FILE", 1000)
    with pytest.raises(InvalidRequestError, match="the file is too large for the emulator: 20979"):
        await store.publish(check_file("source", large + b"!"))


def test_the_oldest_files_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator that runs for days does not grow."""
    monkeypatch.setattr(emulated, "_LARGEST_STORE", 2 * len(JPEG))
    store, files = emulated.FileStore(), [JPEG[:-1] + bytes([number]) for number in range(3)]
    for content in files:
        store.add(check_file("source", content).sha256, "image/jpeg", content)

    with pytest.raises(KeyError):
        store.find(check_file("source", files[0]).sha256)
    assert store.find(check_file("source", files[2]).sha256) == ("image/jpeg", files[2])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/faces/a.jpg?X-Amz-Date=1&X-Amz-Signature=12",
        "http://localhost:9000/faces/a.jpg?X-Amz-Signature=12",
        "http://[::1]/faces/a.jpg?X-Amz-Signature=12",
    ],
)
async def test_a_bucket_on_this_machine(client: AsyncClient, url: str) -> None:
    """What MinIO signs is accepted, so that a development setup needs no public address."""
    assert (await client.swaps.create(source_url=url, target_url=url)).status == "queued"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/faces/a.jpg",
        "http://127.0.0.1:9000/a?x=X-Amz-Signature=1",
        "http://example.com/a.jpg?X-Amz-Signature=1",
        "http://127.0.0.1.example.com/a.jpg?X-Amz-Signature=1",
        "http://127.0.0.1/_emulator/files/12/a.jpg",
    ],
)
async def test_other_local_urls_stay_rejected(client: AsyncClient, url: str) -> None:
    """By the client and by the emulator."""
    with pytest.raises(InvalidRequestError):
        await client.swaps.create(source_url=url, target_url=FACE)
    with pytest.raises(errors.BadRequestError):
        await client.request(
            "POST", "/swaps", json={"type": "image", "source_url": url, "target_url": FACE}
        )


async def test_what_is_not_an_emulator() -> None:
    """Another server on this machine: the error says what to set."""
    async with ScriptedServer(answer(404, b""), answer(405, b"")) as server:
        store = EmulatorStore(server.base_url)
        with pytest.raises(FileStoreError, match=r"responded with status 405; .*AIFACESWAP_FILES"):
            await store.publish(FILE)
    with pytest.raises(FileStoreError, match="cannot be reached"):
        await store.publish(FILE)


async def test_withdraw_needs_a_url_of_the_emulator(emulator: Emulator) -> None:
    """Others are not sent anywhere."""
    store = EmulatorStore(emulator.origin)
    for url in ("https://example.com/a.jpg", f"{emulator.origin}/_emulator/keys/key_emulator"):
        with pytest.raises(InvalidRequestError, match="url must be a URL that publish"):
            await store.withdraw(url)

    assert repr(store) == f"EmulatorStore({emulator.origin!r})"
