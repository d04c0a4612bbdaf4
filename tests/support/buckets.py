"""S3 for tests: a small bucket that records requests, and a complete server (moto)."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest

from support.scripted import Received, ScriptedServer, answer

JPEG = b"\xff\xd8\xff\xe0" + b"jpeg" * 200
GIF = b"GIF89a" + b"gif" * 200

#: What obstore needs to sign requests, in its own names.
CREDENTIALS = {"access_key_id": "AKIATEST", "secret_access_key": "very-secret", "region": "eu-1"}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
    "AWS_REGION": "us-east-1",
}


class SmallBucket:
    """Takes objects and finds them, as S3 does, and counts.

    Attributes:
        objects: The size of each object, by its path.
        modified: When the objects were stored, in seconds since 1970; None: now.
        uploads: How many PUT requests there were.
    """

    def __init__(self) -> None:
        self.objects: dict[str, int] = {}
        self.modified: float | None = None
        self.uploads = 0

    def serve(self) -> ScriptedServer:
        return ScriptedServer(self._respond)

    async def _respond(self, request: Received, writer: asyncio.StreamWriter) -> None:
        path = request.path.partition("?")[0]
        if request.method == "PUT":
            self.uploads += 1
            self.objects[path] = len(request.body)
        if path not in self.objects:
            await answer(404, b"")(request, writer)
            return
        stored = {"Last-Modified": formatdate(self.modified, usegmt=True), "ETag": '"1"'}
        size = self.objects[path] if request.method == "HEAD" else 0
        await answer(200, b"", stored, length=size)(request, writer)


def store_of(server: ScriptedServer, **options: Any) -> Any:
    """An obstore store of a server's bucket that does not retry."""
    store = pytest.importorskip("obstore.store")
    return store.S3Store(
        "faces",
        prefix="a/b",
        endpoint=f"http://127.0.0.1:{server.port}",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
        **{**CREDENTIALS, **options},
    )


@contextmanager
def s3_server() -> Iterator[str]:
    """A complete S3 in memory; its URL."""
    pytest.importorskip("obstore")
    moto = pytest.importorskip("moto.moto_server.threaded_moto_server")
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def create_bucket(endpoint: str, name: str) -> None:
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    scope = "AKIATEST/20260101/us-east-1/s3/aws4_request"
    request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={scope}")
    with urllib.request.urlopen(request, timeout=30):
        pass
