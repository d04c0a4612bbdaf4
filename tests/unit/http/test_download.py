"""Downloads: whole or absent, resumed, checked, without the key."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from aifaceswap._http.download import read_link
from aifaceswap._validation import is_loopback
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


# --- links ---------------------------------------------------------------------------------


class Store:
    """A server of swaps and results: each link has its own response, the swap the newest link."""

    def __init__(self, links: list[str | None], **results: Step) -> None:
        self.links = links
        self.results = results
        self.fetched: list[str] = []
        self.polls = 0

    async def serve(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if not request.path.startswith("/api/"):
            self.fetched.append(request.path)
            name = re.sub(r"\W.*", "", request.path.lstrip("/"))
            await self.results.get(name, answer(200, PICTURE, JPEG))(request, writer)
            return
        link = self.links[min(self.polls, len(self.links) - 1)]
        self.polls += 1
        url = link and f"http://{request.headers['host']}{link}"
        await answer(200, {**SWAP, "status": "done", "result_url": url})(request, writer)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 410, 416, 429, 451])
async def test_a_link_that_is_rejected_is_replaced_once(status: int, tmp_path: Path) -> None:
    """Stores say in many ways that a link has expired."""
    store = Store(["/new?s=2"], old=answer(status, b"<Error><Code>Expired</Code></Error>"))
    async with ScriptedServer(store.serve) as server, client_of(server, max_retries=0) as client:
        path = await client.swaps.download(swap_of(server, "/old?s=1"), tmp_path / "r.jpg")

    assert path.read_bytes() == PICTURE
    assert (store.fetched, store.polls) == (["/old?s=1", "/new?s=2"], 1)


@pytest.mark.parametrize(
    "link", ["", "http://[", "/relative.jpg", "data:image/png;base64,AA", "//x"]
)
async def test_a_link_that_leads_nowhere_is_replaced(link: str, tmp_path: Path) -> None:
    """What was stored earlier may be nonsense; what the API returns now counts."""
    store = Store(["/new"])
    async with ScriptedServer(store.serve) as server, client_of(server) as client:
        swap = Swap(id="tsk_1", status="done", result_url=link)
        path = await client.swaps.download(swap, tmp_path / "r.jpg")

    assert path.read_bytes() == PICTURE


async def test_a_link_that_is_rejected_again_is_an_error(tmp_path: Path) -> None:
    """One new link, not a loop."""
    store = Store(["/old"], old=answer(403, b"<Error/>"))
    async with ScriptedServer(store.serve) as server, client_of(server) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.swaps.download("tsk_1", tmp_path / "r.jpg")
        with pytest.raises(APIStatusError):
            await client.swaps.fetch(swap_of(server, "/old"))

    assert caught.value.status == 403
    assert (store.fetched, store.polls) == (["/old"] * 3, 2)


async def test_a_done_swap_without_a_link_is_polled_for_it(tmp_path: Path) -> None:
    """The link may come a moment after the status."""
    store = Store([None, "", None, "/late"])
    async with ScriptedServer(store.serve) as server, client_of(server) as client:
        swap = Swap(id="tsk_1", status="done")
        path = await client.swaps.download(swap, tmp_path / "r.jpg")

    assert path.read_bytes() == PICTURE
    assert store.polls == 4


async def test_a_link_that_never_comes_ends_in_an_error(tmp_path: Path) -> None:
    """After a bounded time; the swap stays paid and can be downloaded later."""
    store = Store([None])
    async with ScriptedServer(store.serve) as server, client_of(server) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(APIResponseError, match="charged: download it again"):
            await client.swaps.download("tsk_1", tmp_path / "r.jpg")
        assert 15 <= asyncio.get_running_loop().time() - began <= 20

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("link", "sent"),
    [
        ("/a b.jpg", "/a%20b.jpg"),
        ("/é 顔.jpg?n=é", "/%C3%A9%20%E9%A1%94.jpg?n=%C3%A9"),
        ('/a"<>\\^`{|}.jpg', "/a%22%3C%3E%5C%5E%60%7B%7C%7D.jpg"),
        ("/a%2Fb%20c.jpg?X-Amz-Signature=a%2Fb%3D&x=+/=", None),
        ("/a%2fb.jpg?s=%e9", None),
        ("/100%.jpg?p=5%", "/100%25.jpg?p=5%25"),
        ("/a.jpg?s=1#part", "/a.jpg?s=1"),
        ("/a\r\nX-Evil: 1/../b", "/aX-Evil:%201/../b"),
        ("/~u/(1)'*!$,;=:@&.jpg", None),
        ("?s=1", "/?s=1"),
    ],
)
async def test_raw_characters_are_encoded_and_signatures_kept(link: str, sent: str | None) -> None:
    """As a browser does; what is encoded already stays byte for byte."""
    async with ScriptedServer(answer(200, PICTURE, JPEG)) as server, client_of(server) as client:
        await client.swaps.fetch(swap_of(server, link))

    assert server.requests[0].path == (sent or link)


@given(st.text(max_size=40))
def test_any_link_is_read_or_is_our_error(text: str) -> None:
    """Whatever the parsers raise."""
    for link in (text, f"https://{text}", f"https://example.com/{text}", f"http://127.0.0.1{text}"):
        try:
            url = read_link(link, "http://127.0.0.1:1/api/v1")
        except APIResponseError:
            continue
        assert url.scheme == "https" or is_loopback(url.host)
        assert re.fullmatch(r"[\x21-\x7e]+", str(url))


@pytest.mark.parametrize(
    "link",
    [
        *("http://127.1:{}/x", "http://2130706433:{}/x", "http://0.0.0.0:{}/x"),
        *(
            "http://127.0.0.1:{}\\@example.com/",
            "http://127.0.0.1@example.com:{}/",
            "ftp://localhost",
        ),
    ],
)
async def test_plain_http_goes_to_loopback_alone(link: str) -> None:
    """However the address is written."""
    async with ScriptedServer(answer(200, PICTURE, JPEG)) as server, client_of(server) as client:
        swap = Swap(id="tsk_1", status="done", result_url=link.format(server.port))
        with pytest.raises(APIResponseError):
            await client.swaps.fetch(swap)

    assert [request.path for request in server.requests if "/api/" not in request.path] == []


async def test_a_user_name_in_a_link_is_neither_sent_nor_shown() -> None:
    """It is nobody's business; the result is fetched without."""
    store = Store(["/x"], secret=answer(404, b"no"))
    async with ScriptedServer(store.serve) as server, client_of(server) as client:
        url = f"http://user:hunter2@127.0.0.1:{server.port}/secret"
        await client.swaps.fetch(Swap(id="tsk_1", status="done", result_url=url))
        with pytest.raises(APIResponseError) as caught:
            read_link("ftp://user:hunter2@example.com/x", server.base_url)

    assert "authorization" not in server.requests[0].headers
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Authorization": "Bearer own", "X-Api-Key": "own", "Cookie": "a=own"}},
        {"headers": {"authorization": "own"}},
        {"trust_env": True},
        {"raise_for_status": True},
        {"cookies": {"session": "own"}},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_an_injected_session_gives_nothing_to_a_result_host(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its headers and cookies nor what a netrc file says of the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password own\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    store = Store(["/new"], old=answer(403, b"no"))
    async with (
        aiohttp.ClientSession(**options) as session,
        ScriptedServer(store.serve) as server,
    ):
        client = AsyncClient("key", base_url=server.base_url, budget=None, session=session)
        image = await client.swaps.fetch(swap_of(server, "/old"))

    assert image.data == PICTURE
    results = [request for request in server.requests if "/api/" not in request.path]
    assert len(results) == 2
    for request in results:
        assert set(request.headers) <= {"host", "user-agent", "accept", "accept-encoding"}


# --- bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(answer(200, {"error": "expired"}, JPEG), id="JSON as JPEG"),
        pytest.param(answer(200, b"<Error/>", {"Content-Type": "Text/XML"}), id="XML"),
        pytest.param(
            answer(200, b"<html>", {"Content-Type": "application/octet-stream"}), id="HTML"
        ),
        pytest.param(answer(200, b"\xff\xd8\xff\xe0" + b"x" * 20, JPEG), id="truncated"),
    ],
)
async def test_a_body_that_is_not_an_image_is_replaced(step: Step, tmp_path: Path) -> None:
    """Whatever status and Content-Type say; a new link brings the result."""
    store = Store(["/new"], old=step)
    async with ScriptedServer(store.serve) as server, client_of(server) as client:
        path = await client.swaps.download(swap_of(server, "/old"), tmp_path / "r.jpg")

    assert path.read_bytes() == PICTURE
    assert store.fetched == ["/old"] * 2 + ["/new"]
    assert os.listdir(tmp_path) == ["r.jpg"]


async def test_a_result_in_memory(client: AsyncClient, tmp_path: Path) -> None:
    """Its bytes and what they are; it saves itself."""
    swap = await client.swaps.run(**URLS)
    image = await client.swaps.fetch(swap)
    path = await client.swaps.download(swap, tmp_path / "a.jpg")

    assert (image.media_type, image.suffix) == ("image/jpeg", ".jpg")
    assert image.save(str(tmp_path / "b.jpg")).read_bytes() == image.data == path.read_bytes()
    assert image == await client.swaps.fetch(swap.id)


async def test_an_error_of_the_disk_says_that_nothing_is_lost(tmp_path: Path) -> None:
    """The kind of the error stays; its message says how to download the result again."""

    async def remove_folder(request: Received, writer: asyncio.StreamWriter) -> None:
        shutil.rmtree(tmp_path / "out")
        await answer(200, PICTURE, JPEG)(request, writer)

    (tmp_path / "out").mkdir()
    async with ScriptedServer(remove_folder) as server, client_of(server) as client:
        with pytest.raises(FileNotFoundError, match=r"charged.*download\('tsk_1', path\)"):
            await client.swaps.download(swap_of(server), tmp_path / "out" / "r.jpg")


async def test_two_downloads_to_one_file(tmp_path: Path) -> None:
    """Both succeed; the file is complete."""
    async with ScriptedServer(answer(200, PICTURE, JPEG)) as server, client_of(server) as client:
        target = tmp_path / "r.jpg"
        await asyncio.gather(*(client.swaps.download(swap_of(server), target) for _ in range(5)))

    assert target.read_bytes() == PICTURE
    assert os.listdir(tmp_path) == ["r.jpg"]
