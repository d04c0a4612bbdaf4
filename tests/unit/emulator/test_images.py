"""Result images: taken apart by decoders of the tests' own."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aifaceswap.emulator._service import images


def split_jpeg(data: bytes) -> tuple[dict[int, list[bytes]], bytes]:
    assert data[:2] == b"\xff\xd8"
    assert data[-2:] == b"\xff\xd9"
    segments: dict[int, list[bytes]] = {}
    place = 2
    while True:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        segments.setdefault(marker, []).append(data[place + 4 : place + 2 + length])
        place += 2 + length
        if marker == 0xDA:
            return segments, data[place:-2]


def read_levels(scan: bytes) -> list[int]:
    """The DC levels of a scan whose only AC code is the bit 0."""
    bits = "".join(f"{byte:08b}" for byte in scan.replace(b"\xff\0", b"\xff"))
    levels: list[int] = []
    last, place = [0, 0, 0], 0
    while len(bits) - place >= 8 or "0" in bits[place:]:
        end = place + 4
        category = int(bits[place:end], 2)
        raw = bits[end : end + category]
        value = int(raw or "0", 2)
        difference = value if raw.startswith("1") or not raw else value - (1 << category) + 1
        place = end + category + 1
        assert bits[place - 1] == "0"
        last[len(levels) % 3] += difference
        levels.append(last[len(levels) % 3])
    return levels


def to_rgb(luma: int, blue: int, red: int) -> tuple[float, float, float]:
    luma += 128
    return luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue


def unpack_gif_frame(data: bytes, depth: int) -> bytes:
    """GIF's LZW, as its specification says it."""
    clear, stop = 1 << depth, (1 << depth) + 1
    bits, place, width = int.from_bytes(data, "little"), 0, depth + 1
    table: list[bytes] = []
    out, last = bytearray(), b""
    while True:
        code = bits >> place & ((1 << width) - 1)
        place += width
        if code == clear:
            table = [bytes((value,)) for value in range(clear)] + [b"", b""]
            width, last = depth + 1, b""
            continue
        if code == stop:
            return bytes(out)
        entry = table[code] if code < len(table) else last + last[:1]
        out += entry
        if last:
            table.append(last + entry[:1])
        if len(table) == 1 << width and width < 12:
            width += 1
        last = entry


def split_gif(data: bytes) -> tuple[bytes, list[bytes]]:
    """The palette, and the packed data of each frame."""
    assert data[:6] == b"GIF89a"
    assert data[-1:] == b";"
    place, frames = 13 + 48 + 19, []
    while data[place : place + 1] != b";":
        place += 8 + 10
        assert data[place] == 4
        place, packed = place + 1, b""
        while size := data[place]:
            packed += data[place + 1 : place + 1 + size]
            place += 1 + size
        frames.append(packed)
        place += 1
    return data[13 : 13 + 48], frames


def check_jpeg(data: bytes, palette: list[images.Colour], cells: list[list[int]]) -> None:
    """Decoded, each 8x8 block has its cell's colour to within 2 of 255."""
    segments, scan = split_jpeg(data)
    levels = read_levels(scan)
    wanted = [palette[cell] for row in cells for cell in row]
    blocks = zip(levels[::3], levels[1::3], levels[2::3], strict=True)

    size = (len(cells) * 8, len(cells[0]) * 8)
    assert segments[0xC0][0][:5] == struct.pack(">BHH", 8, *size)
    assert b"\xff" not in scan.replace(b"\xff\0", b"")
    for colour, block in zip(wanted, blocks, strict=True):
        assert all(abs(a - b) < 2 for a, b in zip(colour, to_rgb(*block), strict=True))


def test_a_jpeg_holds_the_cells_that_were_drawn() -> None:
    """Decoded, the image is the mosaic."""
    data = images.make_image("tsk_1", "image")

    check_jpeg(data, images.draw_palette("tsk_1"), images.draw_cells("tsk_1"))


LEVELS = st.integers(0, 255) | st.sampled_from([0, 255])


@given(
    palette=st.lists(st.tuples(LEVELS, LEVELS, LEVELS), min_size=16, max_size=16),
    cells=st.lists(st.lists(st.integers(0, 15), min_size=5, max_size=5), min_size=1, max_size=9),
)
@example([(0, 0, 0), (255, 255, 255)], [[0, 1] * 20])
def test_any_colours_can_be_encoded(palette: list[images.Colour], cells: list[list[int]]) -> None:
    """The encoder is right for jumps of any height, with its bytes of 0xff stuffed."""
    check_jpeg(images.encode_jpeg(cells, palette), palette, cells)


def test_a_gif_holds_the_frames_that_were_drawn() -> None:
    """Unpacked, each of the frames has the pixels of its cells."""
    palette, frames = split_gif(images.make_image("tsk_1", "gif"))

    assert b"".join(map(bytes, images.draw_palette("tsk_1"))) == palette
    assert len(frames) == 3
    for number, packed in enumerate(frames):
        pixels = unpack_gif_frame(packed, 4)
        cells = images.draw_cells("tsk_1", number)
        wanted = b"".join(bytes(c for c in row for _ in range(8)) * 8 for row in cells)
        assert wanted == pixels


@given(st.integers(1, 40_000), st.integers(1, 16))
@example(40_000, 16)
@settings(max_examples=15, deadline=None)
def test_packing_and_unpacking_gives_the_same_pixels(size: int, colours: int) -> None:
    """The packer is right for noise of any size."""
    pixels = bytes(value % colours for value in random.Random(size).randbytes(size))

    assert pixels == unpack_gif_frame(images._encode_pixels(pixels), 4)


@pytest.mark.parametrize("kind", ["image", "gif"])
def test_each_swap_has_an_image_of_its_own(kind: str) -> None:
    """Images are the same for the same id, and differ between ids."""
    made = [images.make_image(f"tsk_{number}", kind) for number in range(20)]

    assert len(set(made)) == 20
    assert made[7] == images.make_image("tsk_7", kind)
