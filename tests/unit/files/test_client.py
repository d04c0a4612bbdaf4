"""`source=` and `target=` of the clients: published, then sent as URLs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aifaceswap import AsyncClient, Client, FileStoreError, InvalidRequestError, SwapType
from aifaceswap.emulator import Emulator, Fault, faults
from aifaceswap.files import BucketStore, EmulatorStore, FileStore, LocalFile, PublishedFile
from support.buckets import GIF, JPEG, SmallBucket, store_of
from support.samples import FACE, TARGET, client_of
from support.scripted import SWAP, ScriptedServer, answer

ENDS = datetime(2030, 1, 1, tzinfo=UTC)


class Shelf:
    """A store of a user's own."""

    def __init__(self, outcome: Any = None) -> None:
        self.files: list[LocalFile] = []
        self.withdrawn: list[str] = []
        self._outcome = outcome

    async def publish(self, file: LocalFile) -> PublishedFile:
        self.files.append(file)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome or PublishedFile(f"https://cdn.example.com/{file.key}", ENDS)

    async def withdraw(self, url: str) -> None:
        self.withdrawn.append(url)
        if isinstance(self._outcome, BaseException):
            raise self._outcome


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(duration=0) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(emulator.api_key, base_url=emulator.base_url, budget=None) as client:
        yield client


def bodies(emulator: Emulator) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in emulator.requests if request.body]


async def test_a_swap_of_two_local_files(
    emulator: Emulator, client: AsyncClient, face: Path, party: Path
) -> None:
    """With an emulator nothing need be set; a GIF is a GIF."""
    swap = await client.swaps.run(source=face, target=str(party))
    (body,) = bodies(emulator)

    assert (swap.status, swap.type) == ("done", SwapType.GIF)
    assert body["type"] == "gif"
    assert body["source_url"].startswith(f"{emulator.origin}/_emulator/files/")
    assert body["source_url"].endswith("/face.jpg")


async def test_files_and_urls_mix(emulator: Emulator, client: AsyncClient) -> None:
    """A URL as `source` is that URL; the default type of a URL is an image."""
    await client.swaps.create(source=FACE, target_url=TARGET)
    await client.swaps.create(source=JPEG, target=TARGET)
    await client.swaps.create(source_url=FACE, target=GIF)
    await client.swaps.create(source=GIF, target=JPEG)
    first, second, third, fourth = bodies(emulator)

    assert first == {"source_url": FACE, "target_url": TARGET, "type": "image"}
    assert (second["target_url"], second["type"]) == (TARGET, "image")
    assert (third["source_url"], third["type"]) == (FACE, "gif")
    assert fourth["type"] == "image"


async def test_a_type_that_is_given_is_kept() -> None:
    """The service decides whether it fits."""
    async with ScriptedServer(answer(201, SWAP)) as server:
        client = client_of(server, files=Shelf())
        await client.swaps.create(source=JPEG, target=GIF, type="image")
        await client.aclose()

    assert json.loads(server.requests[0].body)["type"] == "image"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": JPEG}, "target is missing; pass target= (a file or a URL) or target_url="),
        ({"target_url": TARGET}, "source is missing"),
        ({"source": JPEG, "source_url": FACE, "target": GIF}, "source must not be combined with"),
        ({"source": "", "target": GIF}, "source must be a regular file"),
        ({"source": b"", "target": GIF}, "source must be an image; 'bytes' is empty"),
        ({"source": JPEG, "target": "http://example.com/a"}, "target must be a public https://"),
        ({"source": "https://localhost/a.jpg", "target": GIF}, "source must be reachable"),
        ({"source_url": "face.jpg", "target": GIF}, "pass a local file as source="),
        ({"source": JPEG, "target": b"text"}, "target must be an image"),
        ({"source": JPEG, "target": GIF, "target_face_index": -1}, "target_face_index must be"),
        ({"source": JPEG, "target": GIF, "metadata": {"a": object()}}, "metadata"),
        ({"source": JPEG, "target": GIF, "idempotency_key": "a b"}, "idempotency_key must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_nothing_is_published_if_an_argument_is_wrong(
    emulator: Emulator, arguments: dict[str, Any], words: str
) -> None:
    """All is checked before: files first, then the rest."""
    shelf = Shelf()
    async with AsyncClient("key", base_url=emulator.base_url, files=shelf) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.swaps.create(**arguments)

    assert words in str(caught.value)
    assert (shelf.files, emulator.requests) == ([], ())


async def test_without_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to set; nothing is sent anywhere."""
    monkeypatch.setenv("AIFACESWAP_FILES", "")
    client = AsyncClient("key")
    with pytest.raises(InvalidRequestError, match="set AIFACESWAP_FILES or pass files=") as caught:
        await client.swaps.run(source=JPEG, target=GIF)
    assert caught.value.field == "source"
    with pytest.raises(InvalidRequestError, match="there is no store"):
        await client.swaps.withdraw("https://example.com/a.jpg")
    assert await client.swaps.publish(FACE) == FACE


async def test_the_environment_names_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument wins over it, and it over the emulator."""
    monkeypatch.setenv("AIFACESWAP_FILES", "s3://faces/a")
    shelf = Shelf()
    local = "http://127.0.0.1:9/api/v1"

    def store_of_client(**options: Any) -> FileStore | None:
        return AsyncClient("key", **options)._resources.publishing.publisher().store

    assert repr(store_of_client()) == "BucketStore('s3://faces/a')"
    assert repr(store_of_client(base_url=local)) == "BucketStore('s3://faces/a')"
    assert store_of_client(files=shelf) is shelf
    monkeypatch.delenv("AIFACESWAP_FILES")
    assert isinstance(store_of_client(base_url=local), EmulatorStore)
    assert isinstance(store_of_client(files="gs://faces"), BucketStore)


async def test_the_primitive(emulator: Emulator) -> None:
    """`publish()` and `withdraw()` go to the store; a URL of it is an argument like any other."""
    shelf = Shelf()
    async with AsyncClient(emulator.api_key, base_url=emulator.base_url, files=shelf) as client:
        url = await client.swaps.publish(JPEG)
        swap = await client.swaps.create(source_url=url, target=url)
        await client.swaps.withdraw(url)

    assert swap.status == "queued"
    assert (len(shelf.files), shelf.withdrawn) == (1, [url])


async def test_a_repeated_call_has_the_same_body() -> None:
    """A signed URL differs each time; the same key needs the same one."""
    bucket = SmallBucket()
    async with (
        bucket.serve() as store,
        Emulator(faults=[Fault("POST /swaps", faults.Reset())]) as emulator,
        AsyncClient(
            emulator.api_key,
            base_url=emulator.base_url,
            max_retries=0,
            files=store_of(store),
        ) as client,
    ):
        call: dict[str, Any] = {"source": JPEG, "target": GIF, "idempotency_key": "k"}
        with pytest.raises(Exception, match="connection") as caught:
            await client.swaps.create(**call)
        swap = await client.swaps.create(**call)
        first, second = emulator.requests

    assert caught.value.idempotency_key == "k"  # type: ignore[attr-defined]
    assert first.body == second.body
    assert swap.id == emulator.swaps[0].id
    assert len(emulator.swaps) == 1


@pytest.mark.parametrize("failure", [FileStoreError("no bucket"), OSError("disk")], ids=repr)
async def test_a_store_that_fails(failure: Exception) -> None:
    """It is an error of ours with the key of the call; the store's own is its cause."""
    client = AsyncClient("key", files=Shelf(failure))
    with pytest.raises(FileStoreError) as caught:
        await client.swaps.create(source=JPEG, target=GIF, idempotency_key="k")

    assert caught.value.idempotency_key == "k"
    assert failure in (caught.value, caught.value.__cause__)
    with pytest.raises(FileStoreError):
        await client.swaps.withdraw("https://cdn.example.com/a.jpg")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("https://example.com/a.jpg", "must return a PublishedFile"),
        (PublishedFile("http://127.0.0.1:9/a.jpg?X-Amz-Signature=1"), "not public: set AIFACESWAP"),
        (PublishedFile("http://minio:9000/a.jpg"), "a URL that is not public"),
    ],
    ids=["text", "loopback", "inside"],
)
async def test_what_the_service_cannot_fetch_is_not_sent(outcome: Any, words: str) -> None:
    """A bucket's server that is not public needs another address in its URLs."""
    client = AsyncClient("key", files=Shelf(outcome))
    with pytest.raises(FileStoreError) as caught:
        await client.swaps.create(source=JPEG, target=GIF)

    assert words in str(caught.value)


async def test_options_share_the_store(emulator: Emulator, client: AsyncClient) -> None:
    """`with_options()` publishes where its parent does."""
    other = client.with_options(timeout=5)

    assert (await other.swaps.publish(JPEG)) == (await client.swaps.publish(JPEG))
    assert other._resources.publishing is client._resources.publishing


def test_the_blocking_client(face: Path, party: Path) -> None:
    """It takes the same arguments."""
    shelf = Shelf()
    with (
        Emulator(duration=0) as emulator,
        Client(emulator.api_key, base_url=emulator.base_url, files=shelf) as client,
        face.open("rb") as file,
    ):
        swap = client.swaps.run(source=file, target=party)
        created = client.swaps.create(source=face, target=file)
        client.swaps.withdraw(client.swaps.publish(JPEG))

    assert (swap.status, swap.type, created.type) == ("done", "gif", "image")
    assert {file.name for file in shelf.files} == {"face.jpg", "party.gif", ""}
    assert len(shelf.withdrawn) == 1
