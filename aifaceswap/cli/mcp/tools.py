"""The tools: their arguments, and what each does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import attrs
from anyio import to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import Field

from aifaceswap._http.images import SwapImage
from aifaceswap._limits import MAX_PAGE_SIZE
from aifaceswap._version import __version__
from aifaceswap.cli.mcp.folders import Folders
from aifaceswap.cli.mcp.ledger import Ledger
from aifaceswap.cli.mcp.messages import (
    call_again,
    failure,
    json_result,
    swap_facts,
    text_result,
)
from aifaceswap.client import AsyncClient
from aifaceswap.errors import SwapFailedError, WaitTimeoutError
from aifaceswap.files._local import LocalFile
from aifaceswap.files._publisher import is_gif
from aifaceswap.models import Swap, SwapRequest

_SHORTEST_WAIT = 0.1

_INSTRUCTIONS = (
    "Swap faces in images and GIFs. Every new swap costs credits: ask the user before run and "
    "create. Equal arguments are the same swap and are never charged twice, so repeat a call that "
    "failed or was cut off without changing them. If a result says to call again, do so."
)
_SPENDING = {
    "run": "Create a face swap, wait for it and save the result. Returns the image and the file's "
    "path. Costs credits once: equal arguments return the same swap.",
    "create": "Create a face swap without waiting for it. Costs credits once: equal arguments "
    "return the same swap.",
}
_SPENDS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True
)
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=True)

_WHERE = "a public https URL, or the path of a file in a folder that the user has allowed."
Source = Annotated[str, Field(description=f"Photo of the face to put in: {_WHERE}")]
Target = Annotated[str, Field(description=f"Image or GIF to put it into: {_WHERE}")]
Kind = Annotated[
    Literal["image", "gif"] | None,
    Field(description="What the target is. Default: gif for a local GIF, else image."),
]
FaceIndex = Annotated[
    int | None, Field(description="Which face of the target to replace; 0 is the first.", ge=0)
]
Enhancer = Annotated[bool | None, Field(description="Sharpen the face.")]
Variation = Annotated[
    str | int | None,
    Field(description="Another value creates another swap of the same images, which costs again."),
]
SwapId = Annotated[str, Field(description="Id of a swap, tsk_...")]
Limit = Annotated[int, Field(description="Number of swaps.", ge=1, le=MAX_PAGE_SIZE)]
Cursor = Annotated[str | None, Field(description="next_cursor of the page before.")]


@attrs.define
class Tools:
    """What the server does for a model.

    Attributes:
        client: Sends the requests.
        ledger: Creates swaps.
        folders: Finds local files.
        output: The folder for results.
        limit: Seconds within which a call returns; hosts give up after 60.
    """

    client: AsyncClient
    ledger: Ledger
    folders: Folders
    output: Path
    limit: float = 45.0

    def __attrs_post_init__(self) -> None:
        # A part of the limit, so that what is known by then can be returned.
        self.client = self.client.with_options(deadline=0.6 * self.limit, max_wait=0.4 * self.limit)

    async def swap(
        self,
        tool: str,
        /,
        *,
        source: Source,
        target: Target,
        type: Kind = None,  # noqa: A002 - the API's name
        target_face_index: FaceIndex = None,
        enable_face_enhancer: Enhancer = None,
        variation: Variation = None,
    ) -> CallToolResult:
        """Create a face swap; the tool `run` waits for its result, too."""
        ends = self._ends()
        inputs = {
            name: await to_thread.run_sync(self.folders.find, name, value)
            for name, value in (("source", source), ("target", target))
        }
        options: dict[str, Any] = {
            "type": type or ("gif" if is_gif(inputs["target"]) else "image"),
            "target_face_index": target_face_index,
            "enable_face_enhancer": enable_face_enhancer,
        }
        # Equal arguments are one row of the ledger; of local files the content counts.
        digests = {name: getattr(value, "sha256", value) for name, value in inputs.items()}
        given = {**digests, **options, "variation": variation}
        row = json.dumps({name: str(value) for name, value in given.items() if value is not None})
        swap: Swap | None = None
        with anyio.move_on_after(0.6 * self.limit):
            swap = await self.ledger.create(row, partial(self._request, inputs, options))
        if swap is None:
            return text_result(f"No response yet. {call_again(tool)}")
        if tool == "run":
            return await self._finish(swap, ends)
        return json_result(swap_facts(swap))

    async def wait(self, swap_id: SwapId) -> CallToolResult:
        """Wait until a swap has finished and save its result: an image and a path. Free."""
        return await self._finish(swap_id, self._ends())

    async def get(self, swap_id: SwapId) -> CallToolResult:
        """Show the state of a swap, without waiting. Free."""
        return json_result(swap_facts(await self.client.swaps.get(swap_id)))

    async def list(self, limit: Limit = 10, cursor: Cursor = None) -> CallToolResult:
        """List the swaps of the API key, newest first. Free."""
        page = await self.client.swaps.list(limit=limit, cursor=cursor)
        return json_result({"swaps": [*map(swap_facts, page)], "next_cursor": page.next_cursor})

    async def account(self) -> CallToolResult:
        """Show the credits of the account, and how many this server may still spend."""
        account = await self.client.me()
        balance = await self.ledger.balance()
        left = max(0.0, self.ledger.max_credits - balance.spent - balance.reserved)
        return json_result(
            {
                "plan": account.subscription_tier,
                "credits": account.credits.total,
                "spent_by_this_server": balance.spent,
                "left_for_this_server": min(left, account.credits.total),
                "requests_left": account.rate_limit.remaining,
            }
        )

    async def download(self, swap_id: SwapId) -> CallToolResult:
        """Save the result of a finished swap: returns the image and a path. Free."""
        ends = self._ends()
        swap = await self.client.swaps.get(swap_id)
        if not swap.is_finished:
            return json_result(swap_facts(swap))
        return await self._finish(swap, ends)

    def _ends(self) -> float:
        """When a call returns what is known by then."""
        return anyio.current_time() + 0.9 * self.limit

    async def _request(
        self, inputs: Mapping[str, LocalFile | str], options: Mapping[str, Any]
    ) -> SwapRequest:
        """The request of a new swap; its local files are published."""
        fields = dict(options)
        for name, value in inputs.items():
            file = value if isinstance(value, str) else await to_thread.run_sync(value.read)
            fields[f"{name}_url"] = await self.client.swaps.publish(file)
        return SwapRequest(**fields)

    async def _finish(self, swap: Swap | str, ends: float) -> CallToolResult:
        """Wait for a swap and save its result."""
        try:
            left = max(_SHORTEST_WAIT, ends - anyio.current_time())
            finished = await self.client.swaps.wait(swap, timeout=left)
            image = await self.client.swaps.fetch(finished)
        except WaitTimeoutError as error:
            known = {} if error.swap is None else swap_facts(error.swap)
            again = "It is still running. Call wait with this id."
            return json_result({"id": error.swap_id, **known, "next": again})
        except SwapFailedError as error:
            await self.ledger.record_end(error.swap)
            raise
        path = await to_thread.run_sync(self._save, finished, image)
        await self.ledger.record_end(finished, path)
        return json_result(swap_facts(finished, path), image)

    def _save(self, swap: Swap, image: SwapImage) -> Path:
        self.output.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9_-]", "_", swap.id)[:80]
        return image.save(self.output / f"{name}{image.suffix}")


class Server(MCPServer[None]):
    """Serves the tools; what they raise becomes sentences.

    Args:
        tools: The tools.
    """

    def __init__(self, tools: Tools) -> None:
        super().__init__(
            "aifaceswap",
            title="AI Face Swap",
            instructions=_INSTRUCTIONS,
            version=__version__,
            log_level="WARNING",
        )
        self._limit = tools.limit
        for name, description in _SPENDING.items():
            swap = partial(tools.swap, name)
            vars(swap)["__name__"] = name
            self.add_tool(swap, name, None, description, _SPENDS, structured_output=False)
        reading = (tools.wait, tools.get, tools.list, tools.account, tools.download)
        for tool in reading:
            self.add_tool(tool, annotations=_READS, structured_output=False)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; see `MCPServer.call_tool`. Returns within the limit."""
        for tool in await self.list_tools():
            known = tool.input_schema["properties"]
            if tool.name == name and (unknown := arguments.keys() - known.keys()):
                text = (
                    f"Unknown arguments: {', '.join(sorted(unknown))}. Known: {', '.join(known)}."
                )
                return text_result(text, is_error=True)
        with anyio.move_on_after(self._limit):
            try:
                return await super().call_tool(name, arguments, context)
            except ToolError as error:
                return failure(error)
        return text_result(f"Not finished yet. {call_again(name)}")
