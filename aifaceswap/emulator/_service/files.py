"""Files that clients have uploaded to the emulator, to use them as source or target."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

import attrs

from aifaceswap.emulator._service.errors import Problem, Rejected, invalid

if TYPE_CHECKING:
    from aifaceswap.emulator._service.schema import SwapParams

PREFIX: Final = "/_emulator/files/"
#: The largest file, and all of them, in bytes: the oldest make room for new ones.
LARGEST_FILE: Final = 64 * 1024 * 1024
_LARGEST_STORE: Final = 4 * LARGEST_FILE

_NAMED = re.compile(r"http://[^/?#]+" + PREFIX + r"([0-9a-f]{64})/[^/?#]+")
#: What MinIO and other servers on this machine sign.
_SIGNED_LOCALLY = re.compile(
    r"http://(?:localhost|127(?:\.[0-9]+){3}|\[::1\])(?::[0-9]+)?/[^?#]*\?(?:[^#]*&)?X-Amz-Signature=.*"
)
_GIF = (b"GIF87a", b"GIF89a")
_WRONG_TYPE = Problem(415, "unsupported_media_type", "target_url: the file is not of this type.")


@attrs.define(eq=False)
class FileStore:
    """Keeps files in memory, each under the hash of its bytes."""

    _files: dict[str, tuple[str, bytes]] = attrs.field(factory=dict[str, tuple[str, bytes]])

    def add(self, sha256: str, media_type: str, content: bytes) -> None:
        """Keep a file; may raise `Rejected`."""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise invalid("The path must have the SHA-256 of the body.")
        self._files[sha256] = media_type, content
        while sum(len(kept) for _, kept in self._files.values()) > _LARGEST_STORE:
            del self._files[next(iter(self._files))]

    def find(self, sha256: str) -> tuple[str, bytes]:
        """The media type and the bytes of a file; may raise `KeyError`."""
        return self._files[sha256]

    def remove(self, sha256: str) -> None:
        """Forget a file; may raise `KeyError`."""
        del self._files[sha256]

    def check(self, params: SwapParams) -> None:
        """Raise `Rejected` if a file of a swap is not here, or the target is of another type."""
        for field, url in (("source_url", params.source_url), ("target_url", params.target_url)):
            named = _NAMED.fullmatch(url)
            if named is None:
                continue
            _, content = self._files.get(named[1], ("", b""))
            if not content:
                text = f"{field}: there is no such file."
                raise Rejected(Problem(400, "source_unreachable", text))
            if field == "target_url" and (params.type == "gif") != content.startswith(_GIF):
                raise Rejected(_WRONG_TYPE)


def is_local_file(url: str) -> bool:
    """Whether a URL is one that a store on this machine has published, and not a public one."""
    return bool(_NAMED.fullmatch(url) or _SIGNED_LOCALLY.fullmatch(url))
