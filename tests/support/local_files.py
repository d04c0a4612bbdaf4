"""Small pictures on the disk, and a store that signs another URL each time."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from aifaceswap.files import LocalFile, PublishedFile

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + b"\0" * 100 + b"\xff\xd9"
GIF = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\4\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


def write_jpeg(path: Path, text: str = "") -> Path:
    """A picture that differs from others by a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(JPEG[:-2] + text.encode() + JPEG[-2:])
    return path


def write_gif(path: Path, text: str = "") -> Path:
    """A GIF that differs from others by a text."""
    path.write_bytes(GIF + text.encode())
    return path


def touch(path: Path) -> None:
    """Give a file another time of modification, and leave its content."""
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


class SigningStore:
    """A store whose URLs differ at each call, as presigned URLs do.

    Attributes:
        expires_in: Seconds that a URL is valid; None: for ever.
        errors: What the next calls raise.
        delay: Seconds that a call takes.
        gate: Set while calls may go on.
        published: The files of the calls that ended well.
    """

    def __init__(self, expires_in: float | None = 86_400.0) -> None:
        self.expires_in = expires_in
        self.errors: list[Exception] = []
        self.delay = 0.01
        self.gate: asyncio.Event | None = None
        self.published: list[LocalFile] = []
        self.running = self.most_running = 0
        self._numbers = itertools.count()

    async def publish(self, file: LocalFile) -> PublishedFile:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        if self.errors:
            raise self.errors.pop(0)
        self.published.append(file)
        url = f"https://files.example.com/{file.sha256}{file.suffix}?sig={next(self._numbers)}"
        if self.expires_in is None:
            return PublishedFile(url)
        return PublishedFile(url, datetime.fromtimestamp(time.time() + self.expires_in, UTC))

    async def withdraw(self, url: str) -> None:
        raise NotImplementedError
