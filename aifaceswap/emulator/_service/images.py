"""Small result pictures: a mosaic that differs for each swap, as a JPEG or an animated GIF."""

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


def draw_palette(name: str) -> list[Colour]:
    """16 colours that depend on `name`: 8 shades for the ground, 8 for the figure."""
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
    """Rows of colour numbers: a figure with mirrored halves on a round gradient."""
    bits = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")
    return [[_cell(bits, x, y, frame) for x in range(CELLS)] for y in range(CELLS)]


def _cell(bits: int, x: int, y: int, frame: int) -> int:
    half = min(x, CELLS - 1 - x)
    distance = ((x - 7.5) ** 2 + (y - 7.5) ** 2) ** 0.5
    shade = min(_SHADES - 1, int(_SHADES - 1 - distance * (_SHADES - 1) / 11) + frame)
    inside = distance < _RADIUS and bits >> ((y // 2) * 8 + half) & 1
    return _SHADES + shade if inside else shade


# --- JPEG: one flat 8x8 block for each cell, so only the DC coefficients are there.

_DC_LENGTHS = bytes((0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0))
_DC_CODES = (
    (2, 0b00), (3, 0b010), (3, 0b011), (3, 0b100), (3, 0b101), (3, 0b110),
    (4, 0b1110), (5, 0b11110), (6, 0b111110), (7, 0b1111110), (8, 0b11111110), (9, 0b111111110),
)  # fmt: skip
# An AC table with one code: the single bit 0 says that the rest of the block is zero.
_AC_LENGTHS = bytes((1, *(0,) * 15))


def encode_jpeg(cells: Sequence[Sequence[int]], palette: Sequence[Colour]) -> bytes:
    """A baseline JPEG with one 8x8 block for each cell."""
    height, width = len(cells) * CELL_PIXELS, len(cells[0]) * CELL_PIXELS
    colours = [_to_ycc(colour) for colour in palette]
    scan = _encode_blocks(colours[cell] for row in cells for cell in row)
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    return b"".join((
        b"\xff\xd8",
        _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        _segment(0xDB, b"\0" + b"\x08" * 64),
        _segment(0xC0, frame),
        _segment(0xC4, b"\x00" + _DC_LENGTHS + bytes(range(12))),
        _segment(0xC4, b"\x10" + _AC_LENGTHS + b"\0"),
        _segment(0xDA, b"\3\1\0\2\0\3\0\0\x3f\0"),
        scan,
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


def _encode_blocks(blocks: Iterable[Colour]) -> bytes:
    bits = "".join(_block_bits(blocks))
    padded = bits + "1" * (-len(bits) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")


def _block_bits(blocks: Iterable[Colour]) -> Iterator[str]:
    last: Colour = (0, 0, 0)
    for block in blocks:
        for level, before in zip(block, last, strict=True):
            yield _difference_bits(level - before)
            yield "0"
        last = block


def _difference_bits(difference: int) -> str:
    category = abs(difference).bit_length()
    length, code = _DC_CODES[category]
    if not category:
        return f"{code:0{length}b}"
    offset = difference if difference > 0 else difference + (1 << category) - 1
    return f"{code:0{length}b}{offset:0{category}b}"


# --- GIF

_WIDEST = 12
_LARGEST_TABLE = 1 << _WIDEST
_BYTE = 8


def encode_gif(frames: Sequence[Sequence[Sequence[int]]], palette: Sequence[Colour]) -> bytes:
    """A looping GIF89a; the palette has 16 colours, a cell is 8x8 pixels."""
    head = struct.pack("<6sHHBBB", b"GIF89a", SIZE, SIZE, 0xF3, 0, 0)
    colours = b"".join(map(bytes, palette))
    loop = b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    return head + colours + loop + b"".join(map(_encode_frame, frames)) + b";"


def _encode_frame(cells: Sequence[Sequence[int]]) -> bytes:
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 0, 20, 0, 0)
    place = struct.pack("<BHHHHB", 0x2C, 0, 0, SIZE, SIZE, 0)
    rows = (bytes(cell for cell in row for _ in range(CELL_PIXELS)) * CELL_PIXELS for row in cells)
    return control + place + b"\4" + _blocks(_compress(b"".join(rows), 4)) + b"\0"


def _blocks(data: bytes) -> bytes:
    parts = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"".join(bytes((len(part),)) + part for part in parts)


def _compress(pixels: bytes, depth: int) -> bytes:
    """GIF's LZW: codes of growing width, lowest bit first."""
    out, buffer, filled = bytearray(), 0, 0
    for code, width in _find_codes(pixels, depth):
        buffer |= code << filled
        filled += width
        while filled >= _BYTE:
            out.append(buffer & 0xFF)
            buffer >>= 8
            filled -= _BYTE
    out.append(buffer)
    return bytes(out)


def _find_codes(pixels: bytes, depth: int) -> Iterator[tuple[int, int]]:
    clear = 1 << depth
    fresh = {bytes((value,)): value for value in range(clear)}
    table, width, following, entry = dict(fresh), depth + 1, clear + 2, b""
    yield clear, width
    for pixel in pixels:
        longer = entry + bytes((pixel,))
        if longer in table:
            entry = longer
            continue
        yield table[entry], width
        if following == _LARGEST_TABLE:
            yield clear, width
            table, width, following = dict(fresh), depth + 1, clear + 2
        else:
            table[longer] = following
            width += following == 1 << width
            following += 1
        entry = longer[-1:]
    yield table[entry], width
    yield clear + 1, min(_WIDEST, width + (following == 1 << width))


def make_picture(name: str, kind: str) -> bytes:
    """The picture of one swap: a GIF for the type `gif`, a JPEG for any other."""
    palette = draw_palette(name)
    if kind == "gif":
        return encode_gif([draw_cells(name, frame) for frame in range(FRAMES)], palette)
    return encode_jpeg(draw_cells(name), palette)
