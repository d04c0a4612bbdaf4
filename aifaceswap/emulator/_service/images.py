"""Small result images: a mosaic that differs for each swap, as a JPEG or an animated GIF."""

from __future__ import annotations

import colorsys
import hashlib
import struct
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Final

#: Red, green and blue, 0 to 255.
Colour: TypeAlias = "tuple[int, int, int]"

CELLS: Final = 16
CELL_PIXELS: Final = 8
SIZE: Final = CELLS * CELL_PIXELS
FRAMES: Final = 3

_SHADES: Final = 8
_RADIUS: Final = 7


def make_image(name: str, kind: str) -> bytes:
    """Draw the image of one swap: a GIF for the type `gif`, a JPEG for any other."""
    palette = draw_palette(name)
    if kind == "gif":
        return encode_gif([draw_cells(name, frame) for frame in range(FRAMES)], palette)
    return encode_jpeg(draw_cells(name), palette)


def draw_palette(name: str) -> list[Colour]:
    """Choose 16 colours by `name`: 8 shades for the ground, 8 for the figure."""
    seed = hashlib.blake2b(name.encode(), digest_size=2).digest()
    ground, figure = seed[0] / 256, (seed[0] / 256 + 0.3 + seed[1] / 640) % 1
    return [
        _colour(hue, saturation, 0.3 + 0.6 * shade / (_SHADES - 1))
        for hue, saturation in ((ground, 0.45), (figure, 0.75))
        for shade in range(_SHADES)
    ]


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_cells(name: str, frame: int = 0) -> list[list[int]]:
    """Draw rows of colour numbers: a figure with mirrored halves on a round gradient."""
    bits = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")
    return [[_cell(bits, x, y, frame) for x in range(CELLS)] for y in range(CELLS)]


def _cell(bits: int, x: int, y: int, frame: int) -> int:
    half = min(x, CELLS - 1 - x)
    distance = ((x - 7.5) ** 2 + (y - 7.5) ** 2) ** 0.5
    shade = min(_SHADES - 1, int(_SHADES - 1 - distance * (_SHADES - 1) / 11) + frame)
    inside = distance < _RADIUS and bits >> ((y // 2) * 8 + half) & 1
    return _SHADES + shade if inside else shade


# --- JPEG: each cell is one flat 8x8 block, so only the DC coefficients are needed.

# All 12 categories have a code of 4 bits: the category itself.
_DC_TABLE = b"\x00" + bytes((0, 0, 0, 12, *(0,) * 12)) + bytes(range(12))
# An AC table with one code: the single bit 0 means that the rest of the block is zero.
_AC_TABLE = b"\x10" + bytes((1, *(0,) * 15)) + b"\0"


def encode_jpeg(cells: Sequence[Sequence[int]], palette: Sequence[Colour]) -> bytes:
    """Encode a baseline JPEG with one 8x8 block for each cell."""
    height, width = len(cells) * CELL_PIXELS, len(cells[0]) * CELL_PIXELS
    colours = [_to_ycc(colour) for colour in palette]
    bits = "".join(_block_bits(colours[cell] for row in cells for cell in row))
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    return b"".join((
        b"\xff\xd8",
        _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        _segment(0xDB, b"\0" + b"\x08" * 64),
        _segment(0xC0, frame),
        _segment(0xC4, _DC_TABLE),
        _segment(0xC4, _AC_TABLE),
        _segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0"),
        _pack(bits + "1" * (-len(bits) % 8)).replace(b"\xff", b"\xff\0"),
        b"\xff\xd9",
    ))  # fmt: skip


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _to_ycc(colour: Colour) -> Colour:
    # With a quantiser of 8, a flat block's DC coefficient is its level itself.
    red, green, blue = colour
    return (
        round(0.299 * red + 0.587 * green + 0.114 * blue) - 128,
        round(-0.168736 * red - 0.331264 * green + 0.5 * blue),
        round(0.5 * red - 0.418688 * green - 0.081312 * blue),
    )


def _block_bits(blocks: Iterable[Colour]) -> Iterator[str]:
    last: Colour = (0, 0, 0)
    for block in blocks:
        for level, before in zip(block, last, strict=True):
            yield _difference_bits(level - before) + "0"
        last = block


def _difference_bits(difference: int) -> str:
    category = abs(difference).bit_length()
    offset = difference if difference > 0 else difference + (1 << category) - 1
    return f"{category:04b}" + (f"{offset:0{category}b}" if category else "")


def _pack(bits: str) -> bytes:
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


# --- GIF: codes of a fixed width of 5 bits, without compression.

_CLEAR, _END, _CODE_BITS = 16, 17, 5
# A decoder makes its codes wider after so many pixels, unless it gets a code to start again.
_RUN = 14


def encode_gif(frames: Sequence[Sequence[Sequence[int]]], palette: Sequence[Colour]) -> bytes:
    """Encode a looping GIF89a; the palette has 16 colours, a cell is 8x8 pixels."""
    head = struct.pack("<6sHHBBB", b"GIF89a", SIZE, SIZE, 0xF3, 0, 0)
    colours = b"".join(map(bytes, palette))
    loop = b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    return head + colours + loop + b"".join(map(_encode_frame, frames)) + b";"


def _encode_frame(cells: Sequence[Sequence[int]]) -> bytes:
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 0, 20, 0, 0)
    place = struct.pack("<BHHHHB", 0x2C, 0, 0, SIZE, SIZE, 0)
    rows = (bytes(cell for cell in row for _ in range(CELL_PIXELS)) * CELL_PIXELS for row in cells)
    data = _encode_pixels(b"".join(rows))
    parts = (data[start : start + 255] for start in range(0, len(data), 255))
    return control + place + b"\4" + b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


def _encode_pixels(pixels: bytes) -> bytes:
    codes: list[int] = []
    for start in range(0, len(pixels), _RUN):
        codes += [_CLEAR, *pixels[start : start + _RUN]]
    bits = "".join(f"{code:0{_CODE_BITS}b}" for code in (_END, *reversed(codes)))
    return _pack(bits.zfill(len(bits) + -len(bits) % 8))[::-1]
