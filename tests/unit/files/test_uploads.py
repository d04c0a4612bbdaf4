"""Many who publish one file wait for one upload."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aifaceswap import FileStoreError
from aifaceswap.files._store import PublishedFile, Uploads

FILE = PublishedFile("https://example.com/a.jpg?signature=1")


class Upload:
    """One that takes until it is let go."""

    def __init__(self, outcome: PublishedFile | BaseException = FILE) -> None:
        self.count = 0
        self.go_on = asyncio.Event()
        self._outcome = outcome

    async def __call__(self) -> PublishedFile:
        self.count += 1
        await self.go_on.wait()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_upload_serves_all() -> None:
    """200 calls, one upload; another file has one of its own."""
    uploads, upload, other = Uploads(), Upload(), Upload()
    calls = [asyncio.create_task(uploads.share("a", upload)) for _ in range(200)]
    calls.append(asyncio.create_task(uploads.share("b", other)))
    await _settle()
    upload.go_on.set()
    other.go_on.set()

    assert set(await asyncio.gather(*calls)) == {FILE}
    assert (upload.count, other.count) == (1, 1)
    await uploads.share("a", upload)
    assert upload.count == 2


async def test_an_error_is_each_ones_own() -> None:
    """All fail with it; a key that is put on one is not on the others."""
    uploads, upload = Uploads(), Upload(FileStoreError("no bucket"))
    calls = [asyncio.create_task(uploads.share("a", upload)) for _ in range(3)]
    await _settle()
    upload.go_on.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)

    assert [str(error) for error in errors] == ["no bucket"] * 3
    assert len({id(error) for error in errors}) == 3
    assert upload.count == 1


@pytest.mark.parametrize("outcome", [FILE, ValueError("a fault of ours")], ids=["cancel", "fault"])
async def test_another_takes_over(outcome: PublishedFile | BaseException) -> None:
    """If the one who uploads is cancelled, or fails unexpectedly, the next one uploads."""
    uploads, upload = Uploads(), Upload(outcome)
    first, second = (asyncio.create_task(uploads.share("a", upload)) for _ in range(2))
    await _settle()
    if outcome is FILE:
        first.cancel()
        await _settle()
    upload.go_on.set()
    ends = await asyncio.gather(first, second, return_exceptions=True)

    assert upload.count == 2
    assert ends[1] is outcome


async def test_who_only_waits_can_be_cancelled() -> None:
    """The upload goes on for the others."""
    uploads, upload = Uploads(), Upload()
    first, second, third = (asyncio.create_task(uploads.share("a", upload)) for _ in range(3))
    await _settle()
    second.cancel()
    await _settle()
    upload.go_on.set()

    assert second.cancelled()
    assert (await first, await third, upload.count) == (FILE, FILE, 1)


def test_event_loops_share_an_upload() -> None:
    """The loops of two threads make one upload of a file."""
    uploads, count = Uploads(), 0
    has_begun, go_on = threading.Event(), threading.Event()

    async def publish() -> PublishedFile:
        nonlocal count
        count += 1
        has_begun.set()
        await asyncio.to_thread(go_on.wait, 30)
        return FILE

    async def join() -> PublishedFile:
        task = asyncio.create_task(uploads.share("a", publish))
        await _settle()
        go_on.set()
        return await task

    ends: list[PublishedFile] = []
    leader = threading.Thread(
        target=lambda: ends.append(asyncio.run(uploads.share("a", publish))), daemon=True
    )
    leader.start()
    assert has_begun.wait(30)
    ends.append(asyncio.run(join()))
    leader.join(30)

    assert (ends, count) == ([FILE, FILE], 1)
