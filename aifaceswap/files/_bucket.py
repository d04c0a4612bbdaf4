"""Files in a bucket of the user's own, published by presigned URLs. The one user of obstore."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import re
import warnings
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

from anyio import to_thread

from aifaceswap import _validation
from aifaceswap._limits import SIGNING_ENDPOINT_VARIABLE
from aifaceswap.errors import (
    AIFaceSwapError,
    ConfigurationError,
    FileStoreError,
    InvalidRequestError,
)
from aifaceswap.files._local import LocalFile
from aifaceswap.files._store import PublishedFile, Uploads

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureStore, GCSStore, S3Store

DAY: Final = 86_400.0
_LONGEST: Final = 7 * DAY
_SHORTEST: Final = 60.0
#: Seconds for one step, e.g. when a metadata server is silent.
_STEP_TIMEOUT: Final = 30.0
#: Seconds for an upload; large files are sent in parts.
_UPLOAD_TIMEOUT: Final = 600.0
#: From this size on a file is sent in parts, and never in memory as one piece.
_PART: Final = 8 * 1024 * 1024
#: Seconds that a URL of temporary credentials is valid at least: obstore renews them so early.
_TEMPORARY: Final = 300.0
_KEPT: Final = 10_000  # URLs that are remembered
_SCHEMES: Final = ("s3", "gs", "az")
#: The names of objects: see `LocalFile.key`.
KEY: Final = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")
_STATUS = re.compile(r"status code: ([0-9]{3} [A-Za-z -]*[A-Za-z])")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")


class BucketStore:
    """Publishes files by presigned URLs of a bucket in S3, Google Cloud Storage or Azure.

    Each file is stored once, under the hash of its content. Objects are kept until a lifecycle
    rule of the bucket, `sweep` or `withdraw` removes them.

    Args:
        bucket: ``s3://bucket/prefix``, ``gs://…`` or ``az://…``, with credentials from the
            environment; or an obstore store with settings of your own.
        expires_in: Seconds that a URL is valid: 60 to 604,800 (7 days).
        signing_endpoint: The public URL of an S3-compatible server, if this machine reaches it
            by another one. Default: ``AIFACESWAP_FILES_SIGNING_ENDPOINT`` from the environment.

    Raises:
        ConfigurationError: An argument is not valid.
    """

    # The process in which obstore has started its threads, which a fork does not have.
    _process: ClassVar[int | None] = None

    def __init__(
        self,
        bucket: str | S3Store | GCSStore | AzureStore,
        *,
        expires_in: float = DAY,
        signing_endpoint: str | None = None,
    ) -> None:
        self._bucket = _check_bucket(bucket)
        self._expires_in = _check_expiry(expires_in)
        given = signing_endpoint or os.environ.get(SIGNING_ENDPOINT_VARIABLE)
        self._signing_endpoint = given or None
        self._stores: tuple[Any, Any] | None = None
        self._uploads = Uploads()
        self._has_warned = False
        self._published: dict[str, tuple[PublishedFile, datetime]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @property
    def _name(self) -> str:
        if isinstance(self._bucket, str):
            return self._bucket
        # Not its repr(), which can panic: an Azure account may be in the environment.
        config = self._bucket.config
        bucket = config.get("bucket") or config.get("container_name")
        return f"{type(self._bucket).__name__} {bucket}/{self._bucket.prefix or ''}"

    async def publish(self, file: LocalFile) -> PublishedFile:
        """Upload a file unless the bucket has it, and sign a URL for it.

        Args:
            file: The file.

        Returns:
            The URL. It is the same for half of its validity.

        Raises:
            ConfigurationError: obstore or credentials are missing.
            FileStoreError: The bucket cannot be reached, does not exist, or denies access.
            InvalidRequestError: The file cannot be read, or has changed.
        """
        key = file.key
        if (published := self._recall(key)) is not None:
            return published
        return await self._uploads.share(key, lambda: self._publish(key, file))

    async def withdraw(self, url: str) -> None:
        """Delete the object of a URL. Swaps that have not been processed yet fail without it.

        Args:
            url: The URL that `publish` returned.

        Raises:
            FileStoreError: The object cannot be deleted.
            InvalidRequestError: `url` is not a URL of this store.
        """
        key = urlsplit(url).path.rpartition("/")[2]
        if not KEY.fullmatch(key):
            reason = "must be a URL that publish() returned"
            raise InvalidRequestError.for_field("url", url.partition("?")[0], reason)
        self._published.pop(key, None)
        await self._delete([key])

    async def sweep(self, *, older_than: float = 2 * DAY) -> int:
        """Delete the files that were uploaded a long time ago. Other objects are left alone.

        Args:
            older_than: Seconds since the upload; at least twice `expires_in`, so that no URL
                ends early: a file is uploaded again when it is older than `expires_in`.

        Returns:
            How many were deleted.

        Raises:
            FileStoreError: The bucket cannot be listed, or does not allow it.
            InvalidRequestError: `older_than` is too short.
        """
        least = 2 * self._expires_in
        if not _number(older_than) >= least:
            reason = f"must be a number of seconds, {least:.0f} (twice expires_in) or more"
            raise InvalidRequestError.for_field("older_than", older_than, reason)
        import obstore  # noqa: PLC0415

        store, _ = await self._open()
        end = _now() - timedelta(seconds=older_than)
        old: list[str] = []
        with self._errors("list"):
            listed: AsyncIterator[Sequence[ObjectMeta]] = obstore.list(store)  # pyright: ignore[reportUnknownMemberType] - arro3's, which is not needed
            async for objects in listed:
                keys = (item["path"] for item in objects if item["last_modified"] < end)
                old += filter(KEY.fullmatch, keys)
        for key in old:
            self._published.pop(key, None)
        if old:
            await self._delete(old)
        return len(old)

    def _recall(self, key: str) -> PublishedFile | None:
        published, until = self._published.get(key, (None, None))
        return published if until is not None and _now() < until else None

    async def _publish(self, key: str, file: LocalFile) -> PublishedFile:
        store, signer = await self._open()
        if not await self._has(store, key, file.size):
            await self._upload(store, key, file)
        published, until = await self._sign(signer, key)
        if len(self._published) >= _KEPT:
            self._published.pop(next(iter(self._published)), None)
        self._published[key] = published, until
        return published

    async def _has(self, store: Any, key: str, size: int) -> bool:
        """Whether the object is there, complete, and will be for as long as its URL."""
        import obstore  # noqa: PLC0415
        from obstore.exceptions import PermissionDeniedError  # noqa: PLC0415

        # S3 responds with 403 if an object is missing and the bucket may not be listed.
        missing = (FileNotFoundError, PermissionDeniedError)
        with self._errors("read"):
            async with asyncio.timeout(_STEP_TIMEOUT):
                try:
                    found = await obstore.head_async(store, key)
                except missing:
                    return False
        age = (_now() - found["last_modified"]).total_seconds()
        return found["size"] == size and age < self._expires_in

    async def _upload(self, store: Any, key: str, file: LocalFile) -> None:
        import obstore  # noqa: PLC0415

        in_parts = file.size > _PART
        content = file.chunks() if in_parts else await to_thread.run_sync(file.read)
        with self._errors("write to"):
            async with asyncio.timeout(_UPLOAD_TIMEOUT):
                await obstore.put_async(
                    store,
                    key,
                    content,
                    attributes={"Content-Type": file.media_type},
                    use_multipart=in_parts,
                )

    async def _sign(self, signer: Any, key: str) -> tuple[PublishedFile, datetime]:
        """A URL, and until when it is used again."""
        import obstore  # noqa: PLC0415

        now = _now()
        with self._errors("sign URLs of"):
            async with asyncio.timeout(_STEP_TIMEOUT):
                url = await obstore.sign_async(
                    signer, "GET", key, timedelta(seconds=self._expires_in)
                )
        is_temporary = "X-Amz-Security-Token=" in url
        if is_temporary and not self._has_warned:
            self._has_warned = True
            warnings.warn(_ROTATION, UserWarning, stacklevel=2)
        seconds = min(self._expires_in, _TEMPORARY) if is_temporary else self._expires_in
        published = PublishedFile(url, now + timedelta(seconds=seconds))
        return published, now + timedelta(seconds=seconds / 2)

    async def _delete(self, keys: list[str]) -> None:
        import obstore  # noqa: PLC0415

        store, _ = await self._open()
        # S3 does not say whether an object was there; the others do.
        with self._errors("delete from"), suppress(FileNotFoundError):
            async with asyncio.timeout(_UPLOAD_TIMEOUT):
                await obstore.delete_async(store, keys)

    async def _open(self) -> tuple[Any, Any]:
        """The store, and the one that signs; made in a thread, for credentials may block."""
        if BucketStore._process not in (None, os.getpid()):
            text = f"cannot use {self._name} in a fork of a process that used obstore; {_NO_FORK}"
            raise FileStoreError(text)
        BucketStore._process = os.getpid()
        if self._stores is None:
            self._stores = await to_thread.run_sync(self._build, abandon_on_cancel=True)
        return self._stores

    def _build(self) -> tuple[Any, Any]:
        store = _build_store(self._bucket)
        return store, _build_signer(store, self._signing_endpoint)

    @contextmanager
    def _errors(self, action: str) -> Generator[None]:
        """Turn what obstore raises into an error of ours, without its text: URLs and headers."""
        try:
            yield
        except AIFaceSwapError:
            raise
        except Exception as error:
            text = f"cannot {action} {self._name}: {_reason(error)}"
            raise FileStoreError(text) from None


_ROTATION: Final = (
    "the bucket's credentials are temporary: when they are rotated, URLs that they signed stop "
    "working, whatever expires_in is; use an access key for long queues"
)
_NO_FORK: Final = "start workers with 'spawn', or publish in the workers only"


def _now() -> datetime:
    return datetime.now(UTC)


def _check_bucket(bucket: Any) -> Any:
    if isinstance(bucket, str):
        parts = urlsplit(bucket)
        if parts.scheme in _SCHEMES and parts.netloc and not parts.query and "@" not in bucket:
            return bucket
        reason = "must be a bucket like 's3://bucket/prefix', 'gs://…' or 'az://…'"
        shown = bucket.rpartition("@")[2].partition("?")[0]
        raise ConfigurationError.for_field("files", shown, reason)
    if is_signing_store(bucket):
        return bucket
    reason = "must be a bucket's URL, or an obstore S3Store, GCSStore or AzureStore"
    raise ConfigurationError.for_field("files", bucket, reason)


def is_signing_store(value: object) -> bool:
    """Whether this is a store of obstore that can sign URLs, without loading obstore."""
    kinds = ("S3Store", "GCSStore", "AzureStore")
    return any(
        kind.__module__.partition(".")[0] == "obstore" and kind.__name__ in kinds
        for kind in type(value).__mro__
    )


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return math.nan


def _check_expiry(value: object) -> float:
    if _SHORTEST <= _number(value) <= _LONGEST:
        return _number(value)
    reason = f"must be a number of seconds from {_SHORTEST:g} to {_LONGEST:.0f} (7 days)"
    raise ConfigurationError.for_field("expires_in", value, reason)


def _build_store(bucket: Any) -> Any:
    if not isinstance(bucket, str):
        return bucket
    try:
        from obstore.store import from_url  # noqa: PLC0415
    except ImportError:
        text = f"files={bucket!r} needs obstore: pip install obstore"
        raise ConfigurationError(text, field="files") from None
    options: dict[str, Any] = {
        "client_options": {"connect_timeout": "5s", "timeout": "60s"},
        "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=_STEP_TIMEOUT)},
    }
    if bucket.startswith("s3:"):
        _set_up_s3(options)
    try:
        return from_url(bucket, **options)
    except Exception as error:  # a missing Azure account, a broken key file
        text = f"files={bucket!r} cannot be used: {_reason(error)}"
        raise ConfigurationError(text, field="files") from None


def _set_up_s3(options: dict[str, Any]) -> None:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = urlsplit(next(filter(None, map(os.environ.get, names)), ""))
    if endpoint.scheme == "http":
        options["client_options"]["allow_http"] = True
    if _validation.is_loopback(endpoint.hostname):
        # obstore obeys HTTP_PROXY even for loopback: a proxy of our own that excludes it.
        host = f"{endpoint.hostname}"
        options["client_options"] |= {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": host}
    if not any(map(os.environ.get, _CREDENTIALS)):
        options |= _find_credentials()


_CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def _find_credentials() -> dict[str, Any]:
    """Credentials of profiles, which obstore does not read: boto3 does where it is installed."""
    if _has_boto3():
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

        try:
            return {"credential_provider": Boto3CredentialProvider()}
        except Exception as error:  # none found, or a profile that does not exist
            text = f"no credentials for the bucket: {_NO_CREDENTIALS} ({type(error).__name__})"
            raise ConfigurationError(text, field="files") from None
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials"
    if Path(file).exists():
        text = f"obstore does not read {str(file)!r}: install boto3, or {_NO_CREDENTIALS}"
        raise ConfigurationError(text, field="files")
    return {}


def _has_boto3() -> bool:
    return importlib.util.find_spec("boto3") is not None


_NO_CREDENTIALS: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def _build_signer(store: Any, endpoint: str | None) -> Any:
    """The store whose URLs are signed for the address that the service can reach."""
    if endpoint is None:
        return store
    from obstore.store import S3Store  # noqa: PLC0415

    if not isinstance(store, S3Store):
        reason = "must be used with an S3 bucket only"
        raise ConfigurationError.for_field("signing_endpoint", endpoint, reason)
    config = {**store.config, "endpoint": endpoint}
    return S3Store(
        prefix=store.prefix,
        config=config,  # type: ignore[arg-type]
        credential_provider=store.credential_provider,
    )


def _reason(error: Exception) -> str:  # noqa: PLR0911 - a table of failures
    """Why an operation failed, in our own words."""
    from obstore import exceptions  # noqa: PLC0415

    text = str(error)
    code = _CODE.search(text)
    detail = f" ({code[1]})" if code else ""
    match error:
        case TimeoutError():
            return "no response in time; check the endpoint, the network and the credentials"
        case FileNotFoundError():
            return f"the bucket does not exist{detail}"
        case exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError():
            return f"permission denied{detail}; check the credentials and what they may do"
        case _ if "Missing AccessKeyId" in text or "Missing SecretAccessKey" in text:
            return f"no credentials for the bucket; {_NO_CREDENTIALS}"
        case _ if status := _STATUS.search(text):
            return f"the store responded with {status[1]}{detail}"
        case _ if "incorrectly configured region" in text:
            return "the bucket is in another region; set AWS_REGION"
        case _ if "error sending request" in text:
            return "it cannot be reached; check the endpoint and the network"
        case _:
            return f"{type(error).__name__}; check its settings and credentials"
