"""What an AI agent gets from `aifaceswap mcp`, by the SDK's own client in this process."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from aifaceswap import AsyncClient
from aifaceswap.bulk._journal import State
from aifaceswap.bulk._record import record_end
from aifaceswap.emulator import Emulator
from aifaceswap.emulator.faults import Body, CloudflarePage, Fault, Stall, Status
from aifaceswap.errors import JournalError
from support.bulk_runs import posts, states
from support.samples import FACE, TARGET
from support.virtual_time import VirtualTimeLoop

pytest.importorskip("mcp.server.mcpserver")

from mcp import Client
from mcp.types import ImageContent, TextContent

from aifaceswap.cli.mcp import messages
from aifaceswap.cli.mcp.folders import Folders
from aifaceswap.cli.mcp.ledger import Ledger
from aifaceswap.cli.mcp.tools import Server, Tools

if TYPE_CHECKING:
    from mcp.types import CallToolResult

AGAIN = "Call again with the same arguments: nothing is charged twice."
IMAGE = bytes.fromhex("ffd8ffe000104a46494600") + bytes(200) + b"\xff\xd9"
GIF = b"GIF89a" + bytes(40) + b";"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Virtual time: client, server and emulator share one loop."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@attrs.frozen
class Reply:
    """What the model reads."""

    result: CallToolResult

    @property
    def is_error(self) -> bool:
        return self.result.is_error

    @property
    def text(self) -> str:
        last = self.result.content[-1]
        assert isinstance(last, TextContent)
        return last.text

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.text)
        return data

    @property
    def images(self) -> list[ImageContent]:
        return [part for part in self.result.content if isinstance(part, ImageContent)]


@attrs.frozen
class Agent:
    """A model's host, connected to a server."""

    client: Client

    async def __call__(self, tool: str, **arguments: Any) -> Reply:
        return Reply(await self.client.call_tool(tool, arguments))

    async def run(self, **more: Any) -> Reply:
        return await self("run", **{"source": FACE, "target": TARGET, **more})

    async def create(self, **more: Any) -> Reply:
        return await self("create", **{"source": FACE, "target": TARGET, **more})


Start = Callable[..., AbstractAsyncContextManager[Agent]]


@pytest.fixture
def start(client: AsyncClient, tmp_path: Path) -> Start:
    """Start a server; each has the same ledger and folder."""

    @asynccontextmanager
    async def start(max_credits: float = 10, allowed: Sequence[Path] = ()) -> AsyncIterator[Agent]:
        ledger = Ledger(client, tmp_path / "ledger.sqlite", max_credits)
        tools = Tools(client, ledger, Folders(allowed), tmp_path / "out")
        async with Client(Server(tools)) as connected:
            yield Agent(connected)

    return start


# --- one swap, one price -------------------------------------------------------------------------


async def test_equal_arguments_are_one_swap(start: Start, emulator: Emulator) -> None:
    """Also in another tool, at the same time, and after a restart."""
    async with start() as agent:
        first, second, third = await asyncio.gather(agent.run(), agent.create(), agent.run())
    async with start() as agent:
        again = await agent.run()
    (swap,) = emulator.swaps
    replies = (first, second, third, again)
    assert {reply.data["id"] for reply in replies} == {swap.id}
    assert posts(emulator) == 1


async def test_a_variation_is_another_swap(start: Start, emulator: Emulator) -> None:
    """A number and its text are the same; options count as arguments, too."""
    async with start() as agent:
        replies = [
            await agent.create(**more)
            for more in ({}, {"variation": 2}, {"variation": "2"}, {"enable_face_enhancer": True})
        ]
    assert len({reply.data["id"] for reply in replies}) == len(emulator.swaps) == 3


async def test_a_lost_response_costs_nothing_twice(start: Start, emulator: Emulator) -> None:
    """The server says to call again; the same call returns the swap that was created."""
    emulator.add_fault(Fault("POST /swaps", Status(500, commit=True), times=3))
    async with start() as agent:
        failed = await agent.create()
    assert failed.is_error
    assert failed.text.endswith(AGAIN)
    async with start() as agent:
        reply = await agent.create()
    assert [swap.id for swap in emulator.swaps] == [reply.data["id"]]


async def test_a_call_that_is_cut_off_is_resumed(start: Start, emulator: Emulator) -> None:
    """A POST that hangs ends within the limit of hosts, and is sent again with its key."""
    emulator.add_fault(Fault("POST /swaps", Stall(commit=True)))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with start() as agent:
        reply = await agent.run()
        assert loop.time() - began < 45
        assert not reply.is_error
        assert reply.text == f"No response yet. Call run {AGAIN[5:]}"
        assert (await agent.run()).data["status"] == "done"
    assert len(emulator.swaps) == 1
    assert len({request.idempotency_key for request in emulator.requests} - {None}) == 1


async def test_a_rejected_swap_can_be_tried_again(start: Start, emulator: Emulator) -> None:
    """Nothing was charged: the same call is sent again, under another key."""
    rejected = Status(400, code="source_unreachable")
    emulator.add_fault(Fault("POST /swaps", rejected))
    async with start() as agent:
        reply = await agent.run()
        assert reply.is_error
        assert "Nothing was charged" in reply.text
        assert (await agent.run()).data["status"] == "done"
    assert len(emulator.swaps) == 1


async def test_a_failed_swap_stays(start: Start, emulator: Emulator, tmp_path: Path) -> None:
    """It was charged: the same call reports it again, and only a variation pays again."""
    async with start() as agent:
        failing = {"source": "https://example.com/fails.jpg"}
        replies = [await agent.run(**failing), await agent.run(**failing)]
        assert [reply.is_error for reply in replies] == [True, True]
        assert "another variation" in replies[1].text
        assert len(emulator.swaps) == 1
        await agent.create(**failing, variation=2)
    assert states(tmp_path / "ledger.sqlite") == [State.FAILED, State.CREATED]
    assert len(emulator.swaps) == 2


# --- the limit -----------------------------------------------------------------------------------


async def test_the_limit_holds(start: Start, emulator: Emulator) -> None:
    """Over calls at the same time and over restarts; a swap that is known costs nothing."""
    async with start(max_credits=3) as agent:
        replies = await asyncio.gather(*(agent.create(variation=n) for n in range(6)))
    created = [number for number, reply in enumerate(replies) if not reply.is_error]
    assert len(created) == 3
    async with start(max_credits=3) as agent:
        refused = await agent.create(variation=7)
        known = await agent.create(variation=created[0])
        account = await agent("account")
    assert len(emulator.swaps) == 3
    assert refused.is_error
    assert refused.text.startswith("3 of 3 credits are spent.")
    assert not known.is_error
    assert (account.data["spent_by_this_server"], account.data["left_for_this_server"]) == (3, 0)


async def test_the_next_price_counts(start: Start, emulator: Emulator) -> None:
    """A GIF that could exceed the limit is refused, an image that fits is not."""
    async with start(max_credits=4) as agent:
        await agent.create(type="gif")
        await agent.create(variation=1)
        refused = await agent.create(type="gif", variation=2)
        assert refused.is_error
        assert "3 of 4 credits are spent, and this swap could cost more" in refused.text
        assert not (await agent.create(variation=2)).is_error
    assert sum(swap.credit_cost for swap in emulator.swaps) == 4


async def test_what_has_no_response_counts(start: Start, emulator: Emulator) -> None:
    """A swap that may have been created takes its share of the limit until it is known."""
    async with start(max_credits=2) as agent:
        emulator.add_fault(Fault("POST /swaps", Status(500, commit=True), times=3))
        await agent.create(variation=1)
        refused = await agent.create(variation=2)
        assert "0 of 2 credits are spent" in refused.text
        assert "repeat those first" in refused.text
        await agent.create(variation=1)
        assert not (await agent.create(variation=2)).is_error
        emulator.add_fault(Fault("POST /swaps", Status(500, commit=False), times=3))
    async with start(max_credits=3) as agent:
        await agent.create(variation=3)
        assert (await agent("account")).data["left_for_this_server"] == 0
        assert (await agent.create(variation=4)).is_error
    assert len(emulator.swaps) == 2


async def test_a_ledger_in_use_is_waited_for(
    start: Start, emulator: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    """Another process can create swaps meanwhile; nothing is lost when it takes too long."""
    journal = tmp_path / "ledger.sqlite"
    row = {"source_url": FACE, "target_url": "https://example.com/forever.jpg"}
    async with start(max_credits=2) as agent:
        async with client.swaps.bulk([row], journal=journal):
            busy = await agent.create()
        assert busy.text.startswith("No response yet.")
        assert not (await agent.create()).is_error
    assert len(emulator.swaps) == 2


# --- waiting and results -------------------------------------------------------------------------


async def test_a_wait_returns_in_time(start: Start, emulator: Emulator) -> None:
    """Hosts give up after a minute: before that, run and wait say how to continue."""
    loop = asyncio.get_running_loop()
    forever = {"source": "https://example.com/forever.jpg"}
    async with start() as agent:
        for tool, arguments in (("run", {**forever, "target": TARGET}), ("wait", None)):
            swap_id = emulator.swaps[0].id if emulator.swaps else ""
            began = loop.time()
            reply = await agent(tool, **(arguments or {"swap_id": swap_id}))
            assert 30 < loop.time() - began < 45
            assert not reply.is_error
            assert reply.data["next"] == "It is still running. Call wait with this id."
        assert reply.data["id"] == swap_id
        assert (await agent("download", swap_id=swap_id)).data["next"] == "Call wait with this id."
    assert len(emulator.swaps) == 1


async def test_a_result_is_an_image_and_a_file(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is always there, the image if hosts take it; no link with a signature is."""
    async with start() as agent:
        reply = await agent.run()
        swap_id = reply.data["id"]
        file = Path(reply.data["file"])
        assert file == tmp_path / "out" / f"{swap_id}.jpg"
        (image,) = reply.images
        assert image.mime_type == "image/jpeg"
        assert base64.b64decode(image.data) == await anyio.Path(file).read_bytes()
        monkeypatch.setattr(messages, "MAX_ENCODED", 100)
        replies = [
            await agent("wait", swap_id=swap_id),
            await agent("download", swap_id=swap_id),
            await agent("get", swap_id=swap_id),
            await agent("list"),
            await agent("account"),
        ]
    assert replies[0].data["file"] == replies[1].data["file"] == str(file)
    assert not any(reply.images for reply in replies)
    seen = " ".join(each.result.model_dump_json() for each in (reply, *replies))
    assert "http" not in seen
    assert states(tmp_path / "ledger.sqlite") == [State.DONE]


async def test_the_list_has_pages(start: Start) -> None:
    """Its cursor leads to the next page."""
    async with start() as agent:
        ids = [(await agent.create(variation=n)).data["id"] for n in range(3)]
        first = (await agent("list", limit=2)).data
        second = (await agent("list", cursor=first["next_cursor"])).data
    assert [swap["id"] for swap in (*first["swaps"], *second["swaps"])] == ids[::-1]
    assert second["next_cursor"] is None


# --- arguments and errors ------------------------------------------------------------------------


BAD_CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("run", {"source": FACE}, "target: Field required. Nothing was sent."),
    ("run", {"source": FACE, "target": TARGET, "face": 1}, "Unknown arguments: face. Known: "),
    ("create", {"source": FACE, "target": TARGET, "type": "video"}, "type: Input should be"),
    ("create", {"source": FACE, "target": "http://x.example/a.jpg"}, "target must be a public"),
    ("create", {"source": "face.jpg", "target": TARGET}, "(--allow); got 'face.jpg'"),
    (
        "create",
        {"source": FACE, "target": TARGET, "target_face_index": -1},
        "target_face_index",
    ),
    ("get", {"swap_id": "../me"}, "swap_id must be the id of a swap"),
    ("get", {"swap_id": "tsk_1"}, "No swap with this id (not_found). Check the id"),
    ("list", {"limit": 0}, "limit: Input should be greater than or equal to 1."),
    ("swap", {}, "Unknown tool: swap"),
]


async def test_errors_are_sentences(start: Start, emulator: Emulator) -> None:
    """They name the argument and say what to do; nothing is created."""
    async with start() as agent:
        for tool, arguments, text in BAD_CALLS:
            reply = await agent(tool, **arguments)
            assert reply.is_error
            assert text in reply.text
            assert "Error executing tool" not in reply.text
    assert emulator.swaps == ()


async def test_pages_of_proxies_are_not_shown(start: Start, emulator: Emulator) -> None:
    """What another server has to say is nothing for a model."""
    emulator.add_fault(Fault("GET /swaps/*", CloudflarePage(403)))
    async with start() as agent:
        reply = await agent("get", swap_id="tsk_1")
    assert reply.is_error
    assert reply.text.startswith(f"HTTP 403 without an error of the API. {AGAIN}")


async def test_errors_that_the_user_can_fix(
    start: Start, emulator: Emulator, tmp_path: Path
) -> None:
    """Credits, a folder and a journal are named; afterwards the same call succeeds."""
    async with start() as agent:
        emulator.add_fault(Fault("POST /swaps", Status(402, code="insufficient_credits")))
        assert "Ask the user to add credits" in (await agent.run()).text
        (tmp_path / "out").write_text("a file")
        assert "Then call the tool download." in (await agent.run()).text
        (tmp_path / "out").unlink()
        assert (await agent.run()).data["status"] == "done"
        (tmp_path / "ledger.sqlite").write_text("not a journal")
        assert "--ledger" in (await agent.run()).text
    assert len(emulator.swaps) == 1


async def test_what_the_server_did_not_expect(
    start: Start,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A foreign exception stays in the server's log."""

    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    async with start() as agent:
        monkeypatch.setattr(Ledger, "balance", fail)
        reply = await agent("account")
    assert reply.is_error
    assert reply.text == f"The server failed. {AGAIN}"
    assert "a secret" in caplog.text


async def test_what_hangs_ends_in_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it hangs on, a host gets a result."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with start() as agent:
        monkeypatch.setattr(Ledger, "balance", lambda _: anyio.sleep_forever())
        reply = await agent("account")
    assert loop.time() - began < 46
    assert reply.text == f"Not finished yet. Call account {AGAIN[5:]}"


async def test_the_key_stays_out(start: Start, emulator: Emulator) -> None:
    """Nothing that a model reads has the API key in it."""
    emulator.add_fault(Fault("GET /swaps/*", Body(f"key {emulator.api_key}", status=403)))
    emulator.add_fault(Fault("GET /swaps/*", Status(400, message=emulator.api_key)))
    async with start() as agent:
        replies = [await agent("get", swap_id="tsk_1"), await agent("get", swap_id="tsk_1")]
        replies += [await agent.run(), await agent("account"), await agent("list")]
    assert not any(emulator.api_key in reply.result.model_dump_json() for reply in replies)


# --- local files ---------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder that is allowed, beside one that is not."""
    folder = tmp_path / "pictures"
    for name in ("pictures", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "face.jpg").write_bytes(IMAGE)
    (folder / "target.gif").write_bytes(GIF)
    (folder / "notes.txt").write_text("no image")
    (folder / "link.jpg").symlink_to(tmp_path / "private" / "face.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "elsewhere").symlink_to(tmp_path / "private")
    return folder


async def test_local_files(start: Start, emulator: Emulator, pictures: Path) -> None:
    """The same content is the same argument; the type follows from the target."""
    other = pictures / "other.jpg"
    other.write_bytes(IMAGE)
    async with start(allowed=[pictures]) as agent:
        names = ("face.jpg", str(other), f"{pictures}/elsewhere/../pictures/face.jpg")
        replies = [await agent.create(source=name, target="target.gif") for name in names]
        other.write_bytes(IMAGE[:-2] + b"x" + IMAGE[-2:])
        changed = await agent.create(source="other.jpg", target="target.gif")
    assert len({reply.data["id"] for reply in replies}) == 1
    assert replies[0].data["type"] == "gif"
    assert changed.data["id"] != replies[0].data["id"]
    assert len(emulator.swaps) == 2


OTHER_FILES = (
    *("../private/face.jpg", "link.jpg", "elsewhere/face.jpg", "/etc/passwd", "~/face.jpg"),
    *("loop.jpg", "nothing.jpg", "notes.txt", ".", "", "a\0b", "~nobody-here/x", "x" * 5000),
    *("file:///etc/passwd", "https://127.0.0.1/a.jpg"),
)


async def test_other_files_are_refused(start: Start, emulator: Emulator, pictures: Path) -> None:
    """Paths are resolved before they are checked; nothing of another folder is sent."""
    async with start(allowed=[pictures]) as agent:
        for source in OTHER_FILES:
            reply = await agent.create(source=source)
            assert reply.is_error
            assert reply.text.startswith("source ")
            assert len(reply.text) < 2000
    assert not any(request.method in {"POST", "PUT"} for request in emulator.requests)


# --- the ledger ----------------------------------------------------------------------------------


async def test_the_end_of_a_foreign_swap_changes_nothing(
    start: Start, client: AsyncClient, emulator: Emulator, tmp_path: Path
) -> None:
    """A model may wait for swaps of the key that the ledger does not know."""
    swap = await client.swaps.run(source_url=FACE, target_url=TARGET)
    async with start() as agent:
        assert (await agent("wait", swap_id=swap.id)).data["status"] == "done"
        assert not (tmp_path / "ledger.sqlite").exists()
        await agent.create(variation=1)
        assert (await agent("wait", swap_id=swap.id)).data["status"] == "done"
    assert states(tmp_path / "ledger.sqlite") == [State.CREATED]


async def test_an_end_is_not_written_into_a_journal_in_use(
    client: AsyncClient, emulator: Emulator, tmp_path: Path
) -> None:
    """It can be written later; the error says that it is in use."""
    journal = tmp_path / "ledger.sqlite"
    swap = await client.swaps.create(source_url=FACE, target_url=TARGET)
    async with client.swaps.bulk([], journal=journal):
        with pytest.raises(JournalError) as caught:
            record_end(journal, swap)
    assert caught.value.in_use
