"""Results in memory, and what the bytes of a result are: never judged by a URL."""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import suppress
from mimetypes import guess_extension
from pathlib import Path

import attrs

from aifaceswap._http.saving import PartialFile, check_target

#: How many bytes at the beginning and the end of a result are needed to judge it.
HEAD, TAIL = 64, 4096

_SUFFIXES = {
    "image/jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "image/png": (".png",),
    "image/gif": (".gif",),
    "image/webp": (".webp",),
    "image/avif": (".avif",),
    "image/heic": (".heic", ".heif"),
    "image/bmp": (".bmp", ".dib"),
    "image/tiff": (".tiff", ".tif"),
}
# No image of these types is smaller, in bytes.
_SMALLEST = {"image/jpeg": 100, "image/png": 57, "image/gif": 26, "image/webp": 26}
# Notebooks show these by themselves, and browsers show others, too.
_NOTEBOOK_TYPES = frozenset({"image/jpeg", "image/png", "image/gif"})
_BROWSER_TYPES = _NOTEBOOK_TYPES | {"image/webp", "image/avif", "image/bmp"}
# Both AVIF and HEIC files may begin with a brand of the format that they share.
_ISO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
_UNKNOWN = "application/octet-stream"


@attrs.frozen
class SwapImage:
    """The result of a swap, in memory.

    Attributes:
        data: The bytes of the image.
        media_type: What they are, e.g. ``"image/jpeg"``: judged by the bytes, not by the URL.
    """

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    media_type: str

    @property
    def suffix(self) -> str:
        """The file name suffix that fits the bytes, e.g. ``".jpg"``."""
        return suffix_of(self.media_type)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the image to a file, which appears when it is complete.

        Args:
            path: The file; its folder must exist.

        Returns:
            The path of the file.

        Raises:
            InvalidRequestError: `path` cannot be written to.
            OSError: The file cannot be written.
        """
        target = check_target(path)
        with PartialFile(target) as partial:
            partial.reserve(len(self.data))
            partial.file.write(self.data)
            partial.move_to(target)
        return target

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """The image as notebooks show it; they add the text of `repr()`."""
        if self.media_type in _NOTEBOOK_TYPES:
            return {self.media_type: b64encode(self.data).decode()}
        url = data_url(self.data)
        return {} if url is None else {"text/html": f'<img src="{url}" alt="">'}


def data_url(data: bytes) -> str | None:
    """An image as a URL for a page; None: its bytes are not of an image that browsers show."""
    kind = image_type(data[:HEAD])
    if kind not in _BROWSER_TYPES:
        return None
    return f"data:{kind};base64,{b64encode(data).decode()}"


def data_url_of(path: Path, largest: int) -> str | None:
    """A file as a URL for a page; None: it is missing, too large or not an image.

    Args:
        path: The file.
        largest: The size up to which it is read, in bytes.
    """
    with suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= largest:
            return data_url(path.read_bytes())
    return None


def suffix_of(media_type: str) -> str:
    """The file name suffix for a media type."""
    known = _SUFFIXES.get(media_type)
    return known[0] if known else guess_extension(media_type) or ".img"


def fits(path: Path, media_type: str) -> bool:
    """Whether a file's name says nothing else than its bytes; an unknown suffix says nothing."""
    suffix = path.suffix.lower()
    others = (kind for kind, suffixes in _SUFFIXES.items() if suffix in suffixes)
    return media_type not in _SUFFIXES or next(others, media_type) == media_type


def media_type_of(head: bytes, content_type: str) -> str | None:
    """What a result is, by its first bytes.

    Args:
        head: The first bytes.
        content_type: The Content-Type header, which counts only for unknown bytes.

    Returns:
        The media type; None: a page, a document or an error message, and not a result.
    """
    if known := image_type(head):
        return known
    said = content_type.partition(";")[0].strip().lower()
    text = said.startswith("text/") or said.endswith(("json", "xml", "html"))
    if text or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"", b"<", b"{", b"["):
        return None
    return said if said.startswith("image/") else _UNKNOWN


def image_type(head: bytes) -> str | None:  # noqa: PLR0911 - a table of formats
    """What kind of image begins with these bytes; None: none that is known."""
    match head:
        case _ if head.startswith(b"\xff\xd8\xff"):
            return "image/jpeg"
        case _ if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return "image/png"
        case _ if head.startswith((b"GIF87a", b"GIF89a")):
            return "image/gif"
        case _ if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return "image/webp"
        case _ if head[4:8] == b"ftyp" and head[8:12] in _ISO_BRANDS:
            return "image/avif" if b"avi" in head[8:] else "image/heic"
        case _ if head.startswith((b"II*\0", b"MM\0*")):
            return "image/tiff"
        case _ if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
            return "image/bmp"
        case _:
            return None


def is_truncated(  # noqa: PLR0911 - a table of formats
    media_type: str, head: bytes, tail: bytes, size: int
) -> bool:
    """Whether an image that says how it ends does not end so.

    Args:
        media_type: What it is.
        head: Its first bytes.
        tail: Its last bytes.
        size: All of its bytes.
    """
    if image_type(head) != media_type:
        return False
    if size < _SMALLEST.get(media_type, 0):
        return True
    match media_type:
        case "image/jpeg":
            return head[6:10] in (b"JFIF", b"Exif") and b"\xff\xd9" not in tail
        case "image/png":
            return head[12:16] == b"IHDR" and b"IEND\xaeB`\x82" not in tail
        case "image/gif":
            return any(head[6:10]) and b";" not in tail
        case "image/webp":
            return 0 < _number(head, 16) <= _number(head, 4) - 12 and size < _number(head, 4) + 8
        case "image/bmp":
            return _number(head, 10) < _number(head, 2) and size < _number(head, 2)
        case _:
            return False


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
