"""Downloads: whole or absent, resumed, checked, without the key."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
import stat
from pathlib import Path

import attrs
import pytest

from aifaceswap import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncClient,
    InvalidRequestError,
    NotFoundError,
    Swap,
    SwapFailedError,
)
from aifaceswap.emulator import Emulator
from support.samples import URLS, client_of
from support.scripted import SWAP, Received, ScriptedServer, Step, answer, reset, stall

PICTURE = b"\xff\xd8" + hashlib.sha512(b"seed").digest() * 4000
JPEG = {"Content-Type": "image/jpeg"}
VALID = {**JPEG, "ETag": '"v1"'}


def swap_of(server: ScriptedServer, path: str = "/r.jpg") -> Swap:
    return Swap(id="tsk_1", status="done", result_url=f"http://127.0.0.1:{server.port}{path}")


def cut(after: int, headers: dict[str, str] = VALID, begin: int = 0, status: int = 200) -> Step:
    """Send the picture from `begin`, and break off after so many bytes."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        piece = PICTURE[begin:]
        await answer(status, piece[:after], headers, length=len(piece))(request, writer)
        await writer.drain()
        await asyncio.sleep(0.1)  # virtual: what was sent is read before the end is seen
        writer.close()

    return step


def rest(begin: int, size: int = len(PICTURE)) -> Step:
    content_range = f"bytes {begin}-{size - 1}/{size}"
    return answer(206, PICTURE[begin:], {**VALID, "Content-Range": content_range})


async def test_a_result_is_downloaded_whole(
    client: AsyncClient, emulator: Emulator, tmp_path: Path
) -> None:
    """From the emulator, for a swap and for an id."""
    swap = await client.swaps.run(**URLS)
    path = await client.swaps.download(swap, tmp_path / "a.jpg")
    again = await client.swaps.download(swap.id, str(tmp_path / "b.jpg"))
    assert path == tmp_path / "a.jpg"
    assert path.read_bytes()[:2] == b"\xff\xd8"
    assert again.read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "b.jpg"]


async def test_the_key_is_not_sent_with_a_download(tmp_path: Path) -> None:
    """Results may lie with anyone."""
    async with ScriptedServer(answer(200, PICTURE, JPEG)) as server, client_of(server) as client:
        await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert "authorization" not in server.requests[0].headers
    assert "idempotency-key" not in server.requests[0].headers
    assert server.requests[0].path == "/r.jpg"


async def test_a_broken_download_goes_on_where_it_was(tmp_path: Path) -> None:
    """By Range and If-Range, so that two halves are halves of one picture."""
    async with (
        ScriptedServer(cut(1000), rest(1000)) as server,
        client_of(server) as client,
    ):
        path = await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert path.read_bytes() == PICTURE
    assert server.requests[1].headers["range"] == "bytes=1000-"
    assert server.requests[1].headers["if-range"] == '"v1"'


@pytest.mark.parametrize(
    ("script", "requests"),
    [
        pytest.param([cut(1000), answer(200, PICTURE, VALID)], 2, id="the server sends it all"),
        pytest.param([cut(1000, JPEG), answer(200, PICTURE, JPEG)], 2, id="nothing to ask with"),
        pytest.param([cut(1000), answer(416, b""), answer(200, PICTURE, JPEG)], 3, id="416"),
        pytest.param([cut(1000), rest(999), answer(200, PICTURE, JPEG)], 3, id="another part"),
        pytest.param(
            [
                cut(1000),
                cut(500, {**VALID, "Content-Range": "bytes 1000-9/*"}, 1000, 206),
                rest(1500),
            ],
            3,
            id="breaks twice",
        ),
        pytest.param([reset, answer(503, b""), answer(200, PICTURE, JPEG)], 3, id="reset and 503"),
        pytest.param([answer(200, b"<p>", {"Content-Type": "text/html"}), rest(0)], 2, id="HTML"),
        pytest.param([stall, answer(200, PICTURE, JPEG)], 2, id="stalls"),
    ],
)
async def test_a_download_that_fails_on_the_way_is_whole_at_the_end(
    script: list[Step], requests: int, tmp_path: Path
) -> None:
    """Whatever the server does with ranges, the file is the picture."""
    async with ScriptedServer(*script) as server, client_of(server, timeout=5) as client:
        path = await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert path.read_bytes() == PICTURE
    assert len(server.requests) == requests
    assert os.listdir(tmp_path) == ["r.jpg"]


async def test_an_encoded_download_is_begun_again(tmp_path: Path) -> None:
    """Ranges would count the bytes of the encoding, and the file has those of the picture."""
    encoded, headers = gzip.compress(PICTURE), {**VALID, "Content-Encoding": "gzip"}
    broken = answer(200, encoded[: len(encoded) // 2], headers, length=len(encoded))
    async with (
        ScriptedServer(broken, answer(200, encoded, headers)) as server,
        client_of(server, timeout=5) as client,
    ):
        path = await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert path.read_bytes() == PICTURE
    assert len(server.requests) == 2
    assert "range" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("step", "error"),
    [
        pytest.param(cut(1000, JPEG), APIConnectionError, id="always cut"),
        pytest.param(reset, APIConnectionError, id="always reset"),
        pytest.param(stall, APITimeoutError, id="always stalls"),
        pytest.param(answer(200, b"", JPEG), APIConnectionError, id="empty"),
        pytest.param(answer(403, b"<Expired/>"), APIStatusError, id="403"),
        pytest.param(
            answer(200, b"<p>", {"Content-Type": "text/html"}), APIResponseError, id="a page"
        ),
    ],
)
async def test_a_download_that_fails_leaves_everything_as_it_was(
    step: Step, error: type[Exception], tmp_path: Path
) -> None:
    """The old file is untouched and no piece of the new one stays."""
    target = tmp_path / "r.jpg"
    target.write_bytes(b"old")

    async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.path.startswith("/api/"):
            fresh = {**SWAP, "status": "done", "result_url": swap_of(server).result_url}
            await answer(200, fresh)(request, writer)
        else:
            await step(request, writer)

    async with ScriptedServer(serve) as server, client_of(server, timeout=5) as client:
        with pytest.raises(error):
            await client.swaps.download(swap_of(server), target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["r.jpg"]


async def test_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    """Neither a file nor a piece of one."""
    async with (
        ScriptedServer(answer(200, PICTURE[:9], JPEG, length=999)) as server,
        client_of(server) as client,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("length", [len(PICTURE), None], ids=["announced", "not announced"])
async def test_a_result_beyond_the_cap_is_refused(length: int | None, tmp_path: Path) -> None:
    """By what is announced, else by what comes; it is not tried again."""
    chunked = f"{len(PICTURE):x}\r\n".encode() + PICTURE + b"\r\n0\r\n\r\n"

    async def unannounced(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)

    step = unannounced if length is None else answer(200, PICTURE, JPEG)
    async with ScriptedServer(step) as server, client_of(server) as client:
        with pytest.raises(APIResponseError, match="larger than 1000 bytes"):
            await client.swaps.download(swap_of(server), tmp_path / "r.jpg", max_bytes=1000)
    assert len(server.requests) == 1
    assert os.listdir(tmp_path) == []


async def test_redirects_are_followed_without_the_key(tmp_path: Path) -> None:
    """To wherever results lie, as long as it is safe to go there."""
    async with ScriptedServer(answer(200, PICTURE, JPEG)) as store:
        location = f"http://127.0.0.1:{store.port}/store/r.jpg?signature=x%2By"
        redirect = answer(302, b"", {"Location": location})
        async with ScriptedServer(redirect) as server, client_of(server) as client:
            path = await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert path.read_bytes() == PICTURE
    assert store.requests[0].path == "/store/r.jpg?signature=x%2By"
    assert "authorization" not in store.requests[0].headers


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://example.com/r.jpg?signature=secret", "https:// URL"),
        ("ftp://example.com/r.jpg", "https:// URL"),
        ("file:///etc/passwd", "https:// URL"),
        ("http://[broken/", "malformed"),
        ("/r.jpg", "redirects more than 5 times"),
    ],
)
async def test_redirects_to_unsafe_places_are_refused(
    location: str, words: str, tmp_path: Path
) -> None:
    """The error does not show the query: it may be a signature."""
    redirect = answer(302, b"", {"Location": location})
    async with ScriptedServer(redirect) as server, client_of(server) as client:
        with pytest.raises(APIResponseError, match=words) as caught:
            await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert "secret" not in str(caught.value)


async def test_plain_http_is_refused_where_the_api_is_not_on_this_machine(tmp_path: Path) -> None:
    """Also to this machine: the service has no business there."""
    async with (
        ScriptedServer(answer(200, PICTURE, JPEG)) as server,
        AsyncClient("key", budget=None) as client,
    ):
        with pytest.raises(APIResponseError, match="https:// URL"):
            await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert server.requests == []


async def test_an_expired_url_is_fetched_anew_through_the_swap(
    client: AsyncClient, emulator: Emulator, tmp_path: Path
) -> None:
    """Signed URLs live for a while; the swap gives a fresh one."""
    swap = await client.swaps.run(**URLS)
    assert swap.result_url is not None
    expired = attrs.evolve(swap, result_url=re.sub(r"expires=\d+", "expires=1", swap.result_url))
    path = await client.swaps.download(expired, tmp_path / "r.jpg")
    assert path.read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    "path",
    ["", ".", "missing/r.jpg", 5, b"r.jpg"],
    ids=["empty", "a folder", "no folder", "5", "bytes"],
)
async def test_a_path_that_cannot_be_written_to_is_refused_before_anything_is_sent(
    path: str,
    client: AsyncClient,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names the path."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequestError, match="path"):
        await client.swaps.download("tsk_1", path)
    assert emulator.requests == ()


async def test_a_swap_without_a_result_is_an_error_that_says_what_to_do(
    client: AsyncClient, tmp_path: Path
) -> None:
    """Unfinished: wait; failed: it says why; missing: not found."""
    queued = await client.swaps.create(**URLS)
    with pytest.raises(InvalidRequestError, match="must have a result"):
        await client.swaps.download(queued, tmp_path / "r.jpg")
    failed = await client.swaps.create(**{**URLS, "source_url": "https://example.com/fails.jpg"})
    await asyncio.sleep(40)
    with pytest.raises(SwapFailedError):
        await client.swaps.download(failed, tmp_path / "r.jpg")
    with pytest.raises(NotFoundError):
        await client.swaps.download("tsk_missing", tmp_path / "r.jpg")


async def test_the_file_has_the_users_own_permissions(tmp_path: Path) -> None:
    """A picture is an ordinary file, not one that only its owner can read."""
    (tmp_path / "ordinary").touch()
    async with ScriptedServer(answer(200, PICTURE, JPEG)) as server, client_of(server) as client:
        path = await client.swaps.download(swap_of(server), tmp_path / "r.jpg")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


async def test_a_very_long_file_name_is_no_trouble(tmp_path: Path) -> None:
    """The temporary file's name is shorter than the longest that a file system takes."""
    async with ScriptedServer(answer(200, PICTURE, JPEG)) as server, client_of(server) as client:
        path = await client.swaps.download(swap_of(server), tmp_path / ("r" * 250 + ".jpg"))
    assert path.read_bytes() == PICTURE
