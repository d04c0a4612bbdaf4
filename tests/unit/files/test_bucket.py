"""A bucket: one upload for each content, signed URLs, and errors that show no secrets."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aifaceswap import AsyncClient, ConfigurationError, FileStoreError, InvalidRequestError
from aifaceswap.files import BucketStore, _bucket
from aifaceswap.files._local import check_file
from support.buckets import GIF, JPEG, SmallBucket, store_of
from support.forks import in_child
from support.scripted import Received, ScriptedServer, answer, stall

pytest.importorskip("obstore")

FACE = check_file("source", JPEG)
OTHER = check_file("source", GIF)
DAY = 86_400.0
PATH = f"/faces/a/b/{FACE.sha256}.jpg"


async def test_200_calls_make_one_upload() -> None:
    """One HEAD and one PUT; all get the same URL, under the prefix."""
    bucket = SmallBucket()
    async with bucket.serve() as server:
        store = BucketStore(store_of(server))
        files = await asyncio.gather(*(store.publish(FACE) for _ in range(200)))
        await store.publish(FACE)
        await store.publish(OTHER)

    assert len(set(files)) == 1
    assert f":{server.port}{PATH}?" in files[0].url
    assert [request.method for request in server.requests] == ["HEAD", "PUT", "HEAD", "PUT"]
    assert server.requests[1].headers["content-type"] == "image/jpeg"
    assert bucket.objects[PATH] == FACE.size


async def test_what_is_there_is_not_uploaded() -> None:
    """Another process has published the file."""
    bucket = SmallBucket()
    async with bucket.serve() as server:
        await BucketStore(store_of(server)).publish(FACE)
        await BucketStore(store_of(server)).publish(FACE)

    assert bucket.uploads == 1


@pytest.mark.parametrize("fault", ["old", "cut"])
async def test_what_is_old_or_incomplete_is_uploaded(fault: str) -> None:
    """Then its age begins again, so that no lifecycle rule removes it before its URL ends."""
    bucket = SmallBucket()
    bucket.objects[PATH] = FACE.size - (fault == "cut")
    bucket.modified = time.time() - 2 * DAY if fault == "old" else None
    async with bucket.serve() as server:
        await BucketStore(store_of(server)).publish(FACE)

    assert bucket.uploads == 1


async def test_a_url_is_used_for_half_of_its_validity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated request has the same body, and a new one a URL that outlives the queue."""
    bucket = SmallBucket()
    async with bucket.serve() as server:
        store = BucketStore(store_of(server))
        first = await store.publish(FACE)
        assert first.expires_at is not None
        for hours, requests in ((11.9, 2), (12.1, 3)):
            later = datetime.now(UTC) + timedelta(hours=hours)
            monkeypatch.setattr(_bucket, "_now", lambda now=later: now)
            again = await store.publish(FACE)
            assert len(server.requests) == requests

    assert again.expires_at is not None
    assert again.expires_at - first.expires_at > timedelta(hours=12)
    assert "X-Amz-Expires=86400" in first.url
    assert "Signature" not in repr(first)


@pytest.mark.parametrize("seconds", [0, 59, 604_801, -1, "1d", None, True, float("nan")], ids=repr)
def test_the_validity_is_checked(seconds: Any) -> None:
    """Obstore itself signs for longer than S3 accepts."""
    with pytest.raises(ConfigurationError, match=r"from 60 to 604800 .7 days.; got"):
        BucketStore("s3://faces", expires_in=seconds)


async def test_seven_days_are_accepted() -> None:
    """It is the longest that S3 and Google accept."""
    async with SmallBucket().serve() as server:
        published = await BucketStore(store_of(server), expires_in=7 * DAY).publish(FACE)

    assert "X-Amz-Expires=604800" in published.url


async def test_other_clouds() -> None:
    """A URL of Azure is signed with the account's key, under the prefix."""
    from obstore.store import AzureStore

    async with SmallBucket().serve() as server:
        azure = AzureStore(
            "faces",
            prefix="a/b",
            account_name="acme",
            account_key="c2VjcmV0",
            endpoint=f"http://127.0.0.1:{server.port}",
            client_options={"allow_http": True},
        )
        published = await BucketStore(azure).publish(FACE)

    assert f"/faces/a/b/{FACE.key}?" in published.url
    assert "&sig=" in published.url


async def test_temporary_credentials_are_warned_about_once() -> None:
    """Their URLs end with them, so none is kept for long."""
    async with SmallBucket().serve() as server:
        store = BucketStore(store_of(server, session_token="tok"))
        with pytest.warns(UserWarning, match="credentials are temporary"):
            published = await store.publish(FACE)
        await store.publish(OTHER)  # a second warning would be an error

    assert published.expires_at is not None
    assert published.expires_at < datetime.now(UTC) + timedelta(minutes=6)


async def test_a_signing_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server behind a proxy: uploads go to one address, URLs have another."""
    async with SmallBucket().serve() as server:
        store = BucketStore(store_of(server), signing_endpoint="https://files.example.com")
        published = await store.publish(FACE)
        monkeypatch.setenv("AIFACESWAP_FILES_SIGNING_ENDPOINT", "https://other.example.com")
        other = await BucketStore(store_of(server)).publish(FACE)

    assert published.url.startswith(f"https://files.example.com{PATH}?X-Amz-")
    assert other.url.startswith(f"https://other.example.com{PATH}?X-Amz-")


async def test_other_clouds_have_no_signing_endpoint() -> None:
    """The error names the argument."""
    from obstore.store import AzureStore

    azure = AzureStore("faces", account_name="acme", account_key="c2VjcmV0")
    store = BucketStore(azure, signing_endpoint="https://files.example.com")
    with pytest.raises(ConfigurationError, match="signing_endpoint must be used with an S3 bucket"):
        await store.publish(FACE)


@pytest.mark.parametrize(
    ("head", "put", "words"),
    [
        (answer(404, b""), answer(404, b"<Code>NoSuchBucket</Code>"), "does not exist (NoSuchB"),
        (answer(403, b""), answer(403, b"<Code>AccessDenied</Code>"), "permission denied (Access"),
        (answer(404, b""), answer(401, b"no"), "permission denied; check the credentials"),
        (answer(404, b""), answer(400, b"<Code>EntityTooLarge</Code>"), "400 Bad Request (Entit"),
        (answer(301, b""), answer(301, b""), "in another region; set AWS_REGION"),
        (answer(503, b"busy"), answer(503, b"busy"), "responded with 503 Service Unavailable"),
        (stall, stall, "no response in time"),
    ],
    ids=["no bucket", "forbidden", "unauthorized", "rejected", "region", "overloaded", "silent"],
)
async def test_a_store_that_fails(
    head: Any, put: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error of ours that names the bucket and the reason, within a bounded time."""
    monkeypatch.setattr(_bucket, "_STEP_TIMEOUT", 0.1 if head is stall else 30.0)

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        await (head if request.method == "HEAD" else put)(request, writer)

    async with ScriptedServer(step) as server:
        with pytest.raises(FileStoreError) as caught:
            await BucketStore(store_of(server)).publish(FACE)

    assert words in str(caught.value)
    assert "S3Store faces/a/b" in str(caught.value)
    assert caught.value.__cause__ is None


async def test_no_listing_is_needed() -> None:
    """Without that permission S3 responds 403 to a missing object: it is uploaded."""
    stored = answer(200, b"", {"ETag": '"1"'})

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        await (answer(403, b"") if request.method == "HEAD" else stored)(request, writer)

    async with ScriptedServer(step) as server:
        assert (await BucketStore(store_of(server)).publish(FACE)).url


async def test_errors_show_no_secrets() -> None:
    """S3 returns the key's id and what was signed; signed URLs are secrets, too."""
    body = b"<Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIATEST</AWSAccessKeyId>very-secret"

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        await answer(404 if request.method == "HEAD" else 403, body)(request, writer)

    async with ScriptedServer(step) as server:
        store = BucketStore(store_of(server))
        with pytest.raises(FileStoreError, match="SignatureDoesNotMatch") as caught:
            await store.publish(FACE)
    error = caught.value

    for text in (str(error), repr(error), repr(vars(error)), repr(store)):
        assert "AKIATEST" not in text
        assert "very-secret" not in text


async def test_an_unreachable_store() -> None:
    """Nothing listens there."""
    async with SmallBucket().serve() as server:
        store = BucketStore(store_of(server))
    with pytest.raises(FileStoreError, match="cannot be reached; check the endpoint"):
        await store.publish(FACE)


async def test_a_file_that_changes_is_not_stored(tmp_path: Path) -> None:
    """The error is that of the file."""
    path = tmp_path / "face.jpg"
    path.write_bytes(FACE.read())
    file = check_file("source", path)
    path.write_bytes(OTHER.read())
    bucket = SmallBucket()
    async with bucket.serve() as server:
        with pytest.raises(InvalidRequestError, match=r"face\.jpg must not change"):
            await BucketStore(store_of(server)).publish(file)

    assert bucket.uploads == 0


@pytest.mark.parametrize(
    "bucket",
    [
        "",
        "faces",
        "s3://",
        "s3:///faces",
        "https://s3.example.com/faces",
        "file:///tmp",
        "s3:faces",
    ],
)
def test_buckets_are_checked_at_once(bucket: str) -> None:
    """Before anything is loaded or sent."""
    with pytest.raises(ConfigurationError, match="files must be a bucket like 's3://") as caught:
        BucketStore(bucket)

    assert caught.value.field == "files"


def test_a_password_in_a_buckets_url_is_not_shown() -> None:
    """Credentials do not belong there."""
    with pytest.raises(ConfigurationError) as caught:
        BucketStore("s3://key:very-secret@faces/a?token=very-secret")

    assert "very-secret" not in str(caught.value)


def test_other_values_are_not_stores() -> None:
    """A store that cannot sign is not one, either."""
    from obstore.store import MemoryStore

    values: list[Any] = [3, ["s3://faces"], MemoryStore()]
    for files in values:
        with pytest.raises(ConfigurationError, match=r"files must be a bucket"):
            AsyncClient("key", files=files)
        with pytest.raises(ConfigurationError, match=r"files must be a bucket"):
            BucketStore(files)


async def test_an_account_that_is_missing() -> None:
    """What obstore cannot be built with is an error of ours."""
    with pytest.raises(ConfigurationError, match="files='az://faces/a' cannot be used"):
        await BucketStore("az://faces/a").publish(FACE)


async def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigurationError, match=r"pip install obstore"):
        await BucketStore("s3://faces").publish(FACE)


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without credentials in the environment; the place of its credentials file."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return file


@pytest.fixture
def profile(no_keys: Path) -> None:
    no_keys.write_text("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = s\n")


@pytest.mark.usefixtures("profile")
async def test_profiles_are_read_by_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Obstore ignores `~/.aws/credentials`."""
    pytest.importorskip("boto3")
    async with SmallBucket().serve() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        published = await BucketStore("s3://faces/a/b").publish(FACE)

    assert "X-Amz-Credential=AKIAFILE" in published.url


@pytest.mark.usefixtures("no_keys")
async def test_without_credentials_and_with_boto3() -> None:
    """The metadata server is not waited for."""
    pytest.importorskip("boto3")
    with pytest.raises(ConfigurationError, match="no credentials for the bucket"):
        await BucketStore("s3://faces").publish(FACE)


@pytest.mark.usefixtures("profile")
async def test_profiles_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file that is not read."""
    monkeypatch.setattr(_bucket, "_has_boto3", lambda: False)
    with pytest.raises(ConfigurationError, match=r"obstore does not read .*credentials'"):
        await BucketStore("s3://faces").publish(FACE)


@pytest.mark.usefixtures("no_keys")
async def test_a_silent_metadata_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of a cloud it is asked, for a bounded time."""
    monkeypatch.setattr(_bucket, "_has_boto3", lambda: False)
    monkeypatch.setattr(_bucket, "_STEP_TIMEOUT", 0.2)
    async with ScriptedServer(stall) as server:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{server.port}")
        with pytest.raises(FileStoreError, match=r"no response in time; .*credentials"):
            await BucketStore("s3://faces").publish(FACE)


async def test_no_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Obstore obeys HTTP_PROXY even there."""
    async with SmallBucket().serve() as server, ScriptedServer(answer(502)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        await BucketStore("s3://faces/a/b").publish(FACE)

    assert (len(proxy.requests), len(server.requests)) == (0, 2)


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that publishes for months remembers the latest URLs."""
    monkeypatch.setattr(_bucket, "_KEPT", 1)
    async with SmallBucket().serve() as server:
        store = BucketStore(store_of(server))
        for file in (FACE, OTHER, FACE):
            await store.publish(file)

    assert [request.method for request in server.requests] == ["HEAD", "PUT"] * 2 + ["HEAD"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_says_so() -> None:
    """Obstore's threads do not survive it: an error, and not a call that hangs."""

    async def publish() -> str:
        async with SmallBucket().serve() as server:
            return (await BucketStore(store_of(server)).publish(FACE)).url

    def fail() -> None:
        with pytest.raises(FileStoreError, match="in a fork of a process that used obstore"):
            asyncio.run(publish())

    assert asyncio.run(publish()).startswith("http://")
    assert in_child(fail) == 0


@pytest.mark.parametrize("seconds", [0, 2 * DAY - 1, "7d", None], ids=repr)
async def test_what_urls_need_is_not_swept(seconds: Any) -> None:
    """A file is younger than `expires_in` when its URL is signed."""
    with pytest.raises(InvalidRequestError, match=r"older_than must be .* 172800 .twice"):
        await BucketStore("s3://faces").sweep(older_than=seconds)


@pytest.mark.parametrize("url", ["https://example.com/face.jpg", "", f"/{FACE.key}/x", "..."])
async def test_only_own_urls_are_withdrawn(url: str) -> None:
    """No other object of the bucket can be deleted by it."""
    with pytest.raises(InvalidRequestError, match=r"url must be a URL that publish\(\) returned"):
        await BucketStore("s3://faces").withdraw(url)


def test_repr_names_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else, also where obstore's own would panic."""
    from obstore.store import AzureStore

    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acme")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")

    assert repr(BucketStore("s3://faces/a")) == "BucketStore('s3://faces/a')"
    assert (
        repr(BucketStore(AzureStore.from_url("az://faces/a")))
        == "BucketStore('AzureStore faces/a')"
    )
