"""A complete S3 server: what is published can be fetched, and is removed again."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from anyio import to_thread

from aifaceswap import AsyncClient, InvalidRequestError
from aifaceswap.emulator import Emulator
from aifaceswap.files import BucketStore, _bucket
from aifaceswap.files._local import check_file
from support.buckets import GIF, JPEG, create_bucket, s3_server

FACE = check_file("source", JPEG)
DAY = 86_400.0


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own."""
    name = request.node.name.replace("_", "-")[:60]
    create_bucket(s3, name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    return f"s3://{name}/faces"


async def fetch(url: str) -> tuple[int, str, bytes]:
    """What the service gets from a URL."""

    def read() -> tuple[int, str, bytes]:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return response.status, response.headers["Content-Type"], response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "", b""

    return await to_thread.run_sync(read)


async def test_a_swap_of_local_files(bucket: str, face: Path, party: Path) -> None:
    """The service fetches the bytes of both, with their types."""
    async with (
        Emulator(duration=0) as emulator,
        AsyncClient(emulator.api_key, base_url=emulator.base_url, files=bucket) as client,
    ):
        swap = await client.swaps.run(source=face, target=party)
        (created,) = emulator.swaps
        pictures = [await fetch(created.source_url), await fetch(created.target_url)]

    assert swap.type == "gif"
    assert pictures == [
        (200, "image/jpeg", JPEG),
        (200, "image/gif", GIF),
    ]


async def test_a_large_file_is_sent_in_parts(bucket: str) -> None:
    """It is complete, and has its type."""
    content = JPEG + bytes(9 * 1024 * 1024)
    published = await BucketStore(bucket).publish(check_file("source", content))

    assert await fetch(published.url) == (200, "image/jpeg", content)


async def test_a_large_file_that_changes_is_not_stored(
    bucket: str, face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts are given up, and the error is that of the file."""
    monkeypatch.setattr(_bucket, "_PART", 100)
    file = check_file("source", face)
    await to_thread.run_sync(face.write_bytes, GIF)
    store = BucketStore(bucket)
    with pytest.raises(InvalidRequestError, match=r"face\.jpg must not change"):
        await store.publish(file)

    assert await store.sweep() == 0
    published = await store.publish(check_file("source", GIF))
    gone = published.url.replace(check_file("source", GIF).key, file.key)
    assert (await fetch(gone))[0] == 404


async def test_withdraw(bucket: str) -> None:
    """The file is gone, twice is not an error, and publishing it again uploads it."""
    store = BucketStore(bucket)
    published = await store.publish(FACE)
    await store.withdraw(published.url)
    await store.withdraw(published.url)
    gone = await fetch(published.url)
    again = await store.publish(FACE)

    assert (gone[0], (await fetch(again.url))[0]) == (404, 200)


async def test_sweep(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes old files of this prefix that have the names of published ones."""
    import obstore
    from obstore.store import from_url

    others = from_url(bucket.removesuffix("/faces"), client_options={"allow_http": True})
    for name in ("faces/holiday.jpg", f"faces/deeper/{FACE.key}", FACE.key):
        await obstore.put_async(others, name, b"mine")
    store = BucketStore(bucket)
    published = await store.publish(FACE)
    none = await store.sweep()
    later = datetime.now(UTC) + timedelta(days=2, minutes=1)
    monkeypatch.setattr(_bucket, "_now", lambda: later)
    swept = await store.sweep()
    left = [item["path"] for item in await obstore.list(others).collect_async()]

    assert (none, swept, (await fetch(published.url))[0]) == (0, 1, 404)
    assert sorted(left) == sorted(["faces/holiday.jpg", f"faces/deeper/{FACE.key}", FACE.key])
