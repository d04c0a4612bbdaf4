"""What a result is, by its bytes: its type, its suffix, and whether it is complete."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap import SwapImage
from aifaceswap._http.images import HEAD, TAIL, fits, is_truncated, media_type_of, suffix_of

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(200) + b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(60) + b"\x00\x00\x00\x00IEND\xaeB`\x82"
GIF = b"GIF89a\x01\x00\x01\x00" + bytes(30) + b";"
WEBP = b"RIFF\x70\x00\x00\x00WEBPVP8 \x64\x00\x00\x00" + bytes(100)
BMP = b"BM\x3a\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00" + bytes(44)
AVIF = b"\x00\x00\x00\x1cftypavif" + bytes(40)
TIFF = b"II*\x00" + bytes(100)
IMAGES = {
    "image/jpeg": (JPEG, ".jpg"),
    "image/png": (PNG, ".png"),
    "image/gif": (GIF, ".gif"),
    "image/webp": (WEBP, ".webp"),
    "image/bmp": (BMP, ".bmp"),
    "image/avif": (AVIF, ".avif"),
    "image/tiff": (TIFF, ".tiff"),
}


def truncated(kind: str, data: bytes) -> bool:
    return is_truncated(kind, data[:HEAD], data[-TAIL:], len(data))


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("said", ["", "text/plain", "application/octet-stream", "image/png"])
def test_bytes_say_what_an_image_is(kind: str, said: str) -> None:
    """Whatever the server says; and its suffix follows."""
    data, suffix = IMAGES[kind]

    assert media_type_of(data[:HEAD], said) == kind
    assert suffix_of(kind) == suffix
    assert SwapImage(data, kind).suffix == suffix
    assert not truncated(kind, data)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":"expired"}', "image/jpeg"),
        (b" \r\n[1]", "image/jpeg"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error/>', "application/octet-stream"),
        (b"<html>", "Text/HTML"),
        (b"Access denied", "TEXT/PLAIN; charset=utf-8"),
        (b"Access denied", "application/problem+json"),
        (b"", "image/jpeg"),
        (b"   ", "image/jpeg"),
    ],
)
def test_text_is_not_a_result(body: bytes, said: str) -> None:
    """Pages and error messages with status 200."""
    assert media_type_of(body, said) is None


@pytest.mark.parametrize(
    ("said", "kind", "suffix"),
    [
        ("image/heic", "image/heic", ".heic"),
        ("image/x-new; q=1", "image/x-new", ".img"),
        ("", "application/octet-stream", ".bin"),
    ],
)
def test_bytes_that_nobody_knows_are_kept(said: str, kind: str, suffix: str) -> None:
    """A new format is paid as well."""
    assert media_type_of(b"\x01\x02\x03new", said) == kind
    assert suffix_of(kind) == suffix


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp"]
)
@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_truncated_image_is_noticed(kind: str, left: float) -> None:
    """By how the format ends, also if the length fits what the server announced."""
    data, _ = IMAGES[kind]

    assert truncated(kind, data[: max(16, int(len(data) * left))])


@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_bytes_are_judged(data: bytes, said: str) -> None:
    """No bytes and no header raise anything."""
    kind = media_type_of(data[:HEAD], said)
    if kind is not None:
        truncated(kind, data)
        suffix_of(kind)


@pytest.mark.parametrize(
    ("name", "kind", "is_right"),
    [
        ("a.jpg", "image/jpeg", True),
        ("a.JPEG", "image/jpeg", True),
        ("a.png", "image/jpeg", False),
        ("a", "image/jpeg", True),
        ("a.v2", "image/png", True),
        ("a.tif", "image/tiff", True),
        ("a.png", "image/heic", False),
        ("a.png", "image/jxl", True),
    ],
)
def test_a_name_fits_its_bytes(name: str, kind: str, is_right: bool) -> None:
    """Only the suffix of another image format is wrong."""
    assert fits(Path(name), kind) is is_right


def test_an_image_shows_its_size_and_not_its_bytes() -> None:
    """A repr is for logs."""
    assert repr(SwapImage(b"x" * 9, "image/png")) == (
        "SwapImage(data=<9 bytes>, media_type='image/png')"
    )


def bundle_of(data: bytes, kind: str) -> dict[str, str]:
    return SwapImage(data, kind)._repr_mimebundle_()


@pytest.mark.parametrize("kind", IMAGES)
def test_a_notebook_shows_the_image(kind: str) -> None:
    """As the image itself, or as a page's image where notebooks need that; TIFF by its repr."""
    data = IMAGES[kind][0]
    text = base64.b64encode(data).decode()
    if kind in {"image/jpeg", "image/png", "image/gif"}:
        assert bundle_of(data, kind) == {kind: text}
    elif kind == "image/tiff":
        assert bundle_of(data, kind) == {}
    else:
        html = f'<img src="data:{kind};base64,{text}" alt="">'
        assert bundle_of(data, kind) == {"text/html": html}


@pytest.mark.parametrize("kind", ["image/svg+xml", 'image/x"><script>', "text/html"])
def test_a_notebook_shows_bytes_that_are_an_image(kind: str) -> None:
    """What a server says of unknown bytes makes no page."""
    assert bundle_of(b"<svg onload=alert(1)>", kind) == {}
