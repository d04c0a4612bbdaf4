"""What can be a file: a path, bytes, an open file; and what cannot."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap import InvalidRequestError
from aifaceswap._validation import is_url, public_url
from aifaceswap.files import LocalFile
from aifaceswap.files._bucket import KEY
from aifaceswap.files._local import check_file
from support.buckets import JPEG

KINDS = {
    "image/jpeg": JPEG,
    "image/png": b"\x89PNG\r\n\x1a\n" + b"png" * 20,
    "image/gif": b"GIF87a" + b"gif" * 20,
    "image/webp": b"RIFF\x40\0\0\0WEBPVP8 " + b"webp" * 20,
}
UNUSUAL = {
    "image/heic": b"\0\0\0\x18ftypheic" + b"\0" * 40,
    "image/avif": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif" + b"\0" * 40,
    "image/bmp": b"BM\x40\0\0\0\0\0\0\0" + b"\0" * 40,
}


def sources(path: Path) -> list[object]:
    return [
        path,
        str(path),
        os.fsencode(path).decode(),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        memoryview(path.read_bytes()),
        io.BytesIO(path.read_bytes()),
    ]


def test_every_way_to_pass_a_file(face: Path) -> None:
    """A path, bytes and an open file are the same content."""
    for source in sources(face):
        file = check_file("source", source)

        assert file.read() == b"".join(file.chunks()) == JPEG
        assert file.sha256 == hashlib.sha256(JPEG).hexdigest()
        assert (file.size, file.media_type, file.suffix) == (len(JPEG), "image/jpeg", ".jpg")


def test_a_path_has_a_name_and_a_time(face: Path) -> None:
    """They are its fingerprint; bytes have neither."""
    file = check_file("source", face)

    assert (file.name, file.mtime_ns) == ("face.jpg", face.stat().st_mtime_ns)
    assert check_file("source", JPEG) == LocalFile(
        name="",
        sha256=file.sha256,
        size=file.size,
        mtime_ns=None,
        media_type="image/jpeg",
        content=b"",
    )
    assert "jpegjpeg" not in repr(check_file("source", JPEG))


@pytest.mark.parametrize(("media_type", "content"), KINDS.items(), ids=KINDS)
def test_the_bytes_say_what_it_is(media_type: str, content: bytes, tmp_path: Path) -> None:
    """Whatever the file is called."""
    path = tmp_path / "picture.txt"
    path.write_bytes(content)

    assert check_file("source", path).media_type == media_type


@pytest.mark.parametrize(("media_type", "content"), UNUSUAL.items(), ids=UNUSUAL)
def test_unusual_images_are_warned_about(media_type: str, content: bytes) -> None:
    """They are published: whether the service reads them is not documented."""
    with pytest.warns(UserWarning, match=media_type):
        assert check_file("source", content).media_type == media_type


async def _read() -> bytes:
    return JPEG


class AsyncFile:
    """Like an upload of a web framework."""

    def read(self) -> Any:
        return _read()


class Broken(io.RawIOBase):
    """A file on a disk that fails."""

    name = "/mnt/face.jpg"

    def read(self, size: int = -1) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "'bytes' is empty"),
        (b"<html>", "must be an image; 'bytes' begins with b'<html>'"),
        (io.BytesIO(), "is empty"),
        (io.StringIO("text"), "must be open in binary mode"),
        (AsyncFile(), "must be open in binary mode"),
        (Broken(), "'face.jpg': Input/output error"),
        (3, "must be a path, bytes, an open binary file or a public https:// URL; got 3"),
        (None, "must be a path"),
        ({}, "must be a path"),
        ("", "must be a regular file"),
        ("no\0file", "null"),
        ("gone.jpg", "'gone.jpg': No such file or directory; a URL must start with https://"),
        ("example.com/face.jpg", "a URL must start with https://"),
        (Path(os.devnull), "must be a regular file"),
        (Path(tempfile.gettempdir()), "must be a regular file"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_not_an_image_file_is_rejected(value: object, words: str) -> None:
    """The error names the argument, the value and what is expected."""
    with pytest.raises(InvalidRequestError, match="source ") as caught:
        check_file("source", value)

    assert words in str(caught.value)
    assert caught.value.field == "source"


def test_files_of_no_use_are_rejected(tmp_path: Path) -> None:
    """Empty, text, or closed."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<!doctype html>")
    closed = io.BytesIO(JPEG)
    closed.close()

    for value, words in (
        (tmp_path / "empty.jpg", "empty.jpg' is empty"),
        (tmp_path / "page.jpg", "page.jpg' begins with b'<!doctype ht'"),
        (closed, "closed file"),
    ):
        with pytest.raises(InvalidRequestError, match="source") as caught:
            check_file("source", value)
        assert words in str(caught.value)


def test_an_open_file_can_be_used_again(face: Path) -> None:
    """It is read from its position, and is there again: a retry sends the same."""
    with face.open("rb") as file:
        assert check_file("source", file).read() == JPEG
        again = check_file("target", file)
        assert (again.read(), again.name) == (JPEG, "face.jpg")
        file.read()
        with pytest.raises(InvalidRequestError, match=r"use seek\(0\)"):
            check_file("source", file)


def test_a_pipe_is_read_once() -> None:
    """An open file that cannot seek is read as it is."""
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        os.write(writing, JPEG)
        os.close(writing)
        assert check_file("source", pipe).read() == JPEG


def test_a_file_that_changes_is_not_published(face: Path) -> None:
    """Its hash names its content, so another content must not go under it."""
    file = check_file("source", face)
    face.write_bytes(JPEG.replace(b"jpeg", b"JPEG"))
    with pytest.raises(InvalidRequestError, match="must not change while it is published"):
        file.read()
    face.unlink()
    with pytest.raises(InvalidRequestError, match="No such file"):
        file.read()


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/a.jpg",
        "HTTP://example.com",
        "  https://example.com/a.jpg",
        "s3://bucket/face.jpg",
        "file:///tmp/face.jpg",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_urls(text: str) -> None:
    """A scheme and `://` make a URL, of whatever kind."""
    assert is_url(text)


@pytest.mark.parametrize(
    "text", ["face.jpg", "./https:/a", "C:\\face.jpg", "C:/a.jpg", "//host/share/a.jpg", "~/a", ""]
)
def test_paths(text: str) -> None:
    """Any other string is a path."""
    assert not is_url(text)


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=30))
def test_no_file_name_is_a_url(name: str) -> None:
    """Below a folder no name of a file looks like a URL."""
    assert not is_url(os.path.join("folder", name))
    assert not is_url(str(Path("/", name)))


@given(st.text(max_size=40))
def test_what_can_be_sent_is_a_url(text: str) -> None:
    """No string that `source_url` takes is read as a path by `source`."""
    url = f"https://example.com/{text}"
    try:
        public_url("source", url)
    except InvalidRequestError:
        return
    assert is_url(url)


@given(st.sampled_from([*KINDS.values()]), st.binary(max_size=64))
def test_keys_follow_from_the_content(head: bytes, rest: bytes) -> None:
    """The name in a bucket is the hash and the suffix; `sweep()` recognises it."""
    file = check_file("source", head + rest)

    assert KEY.fullmatch(file.key)
    assert file.key == check_file("target", io.BytesIO(head + rest)).key
    assert file.key != check_file("source", head + rest + b"!").key
