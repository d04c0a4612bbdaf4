"""The emulator's own store: local files without a bucket."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from anyio import to_thread

from aifaceswap._http.uploads import request_file
from aifaceswap._limits import FILES_VARIABLE
from aifaceswap.errors import FileStoreError, InvalidRequestError
from aifaceswap.files._local import LocalFile
from aifaceswap.files._store import PublishedFile, Uploads

_PATH = "/_emulator/files/"
_NOT_FOUND, _TOO_LARGE = 404, 413


class EmulatorStore:
    """Publishes files in a local emulator, which keeps them in memory.

    A client whose base URL is a loopback address uses it by itself.

    Args:
        origin: Where the emulator is: its `origin` or `base_url`.
    """

    def __init__(self, origin: str) -> None:
        parts = urlsplit(origin)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._uploads = Uploads()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._origin!r})"

    async def publish(self, file: LocalFile) -> PublishedFile:
        """Upload a file unless the emulator has it.

        Args:
            file: The file. Its name stays, and can ask for an error or a failure as in a URL.

        Returns:
            Its URL, which does not expire.

        Raises:
            FileStoreError: This is not an emulator, or it cannot be reached.
            InvalidRequestError: The file cannot be read, or has changed.
        """
        name = quote(file.name, safe="") or f"file{file.suffix}"
        url = f"{self._origin}{_PATH}{file.sha256}/{name}"
        return await self._uploads.share(url, lambda: self._publish(url, file))

    async def withdraw(self, url: str) -> None:
        """Remove a file.

        Args:
            url: The URL that `publish` returned.

        Raises:
            FileStoreError: The emulator cannot be reached.
            InvalidRequestError: `url` is not a URL of this emulator.
        """
        if not url.startswith(self._origin + _PATH):
            reason = "must be a URL that publish() returned"
            raise InvalidRequestError.for_field("url", url, reason)
        await self._request("DELETE", url, allowed=(_NOT_FOUND,))

    async def _publish(self, url: str, file: LocalFile) -> PublishedFile:
        if await self._request("HEAD", url, allowed=(_NOT_FOUND,)) == _NOT_FOUND:
            content = await to_thread.run_sync(file.read)
            status = await self._request("PUT", url, content, file.media_type, (_TOO_LARGE,))
            if status == _TOO_LARGE:
                text = f"{file.name or 'the file'} is too large for the emulator: {file.size} bytes"
                raise InvalidRequestError(text, value=file.name)
        return PublishedFile(url)

    async def _request(
        self,
        method: str,
        url: str,
        content: bytes | None = None,
        media_type: str = "",
        allowed: tuple[int, ...] = (),
    ) -> int:
        status = await request_file(method, url, content, media_type)
        if status in allowed or 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers
            return status
        reason = "cannot be reached" if status == 0 else f"responded with status {status}"
        raise FileStoreError(
            f"local files need an emulator, but {self._origin} {reason}; "
            f"for another server set {FILES_VARIABLE}, e.g. to 's3://bucket/prefix'"
        )
