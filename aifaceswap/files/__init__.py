"""Local files: stores that publish them as URLs which the service can fetch."""

from __future__ import annotations

from aifaceswap.files._bucket import BucketStore
from aifaceswap.files._emulator import EmulatorStore
from aifaceswap.files._local import LocalFile
from aifaceswap.files._store import FileStore, PublishedFile
from aifaceswap.models import FileSource

__all__ = [
    "BucketStore",
    "EmulatorStore",
    "FileSource",
    "FileStore",
    "LocalFile",
    "PublishedFile",
]
