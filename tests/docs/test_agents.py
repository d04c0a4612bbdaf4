"""The configurations of hosts on the page about AI agents: valid, and their commands start."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.commands import environment
from support.doc_pages import DOCS, Block, blocks

PAGE = DOCS / "guides" / "ai-agents.md"
READ = {"json": json.loads, "toml": tomllib.loads}
BLOCKS = [block for block in blocks(PAGE) if block.language in READ]
# What hosts call the table of their servers.
TABLES = ("mcpServers", "servers", "context_servers", "mcp_servers")


def server_of(block: Block) -> dict[str, Any]:
    """The server that a host's configuration names."""
    read = READ[block.language](block.text)
    (table,) = (read[name] for name in TABLES if name in read)
    server: dict[str, Any] = table["aifaceswap"]
    return server


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line {block.line}")
def test_a_configuration_names_the_server(block: Block) -> None:
    """Command, arguments and the key's variable, and nothing that a host does not know."""
    server = server_of(block)
    assert server.keys() - {"type"} == {"command", "args", "env"}
    assert server["command"] == "aifaceswap"
    assert server["env"].keys() == {"AIFACESWAP_API_KEY"}


def test_claude_code_gets_the_same_command() -> None:
    """What `claude mcp add` is given after its dashes is what its file has."""
    (line,) = (block.text for block in blocks(PAGE) if block.text.startswith("claude mcp add"))
    words = shlex.split(line)
    command = words[words.index("--") + 1 :]
    servers = [server_of(block) for block in BLOCKS]
    assert command in [[server["command"], *server["args"]] for server in servers]


@pytest.mark.timeout(180)
def test_the_command_starts(tmp_path: Path) -> None:
    """It serves until stdin ends, writes nothing but the protocol, and ends with exit code 0."""
    pytest.importorskip("mcp.server.mcpserver")
    commands = sorted((server_of(block)["args"] for block in BLOCKS), key=len)
    arguments = commands[-1]
    assert all(shorter == arguments[: len(shorter)] for shorter in commands)
    (tmp_path / "Pictures").mkdir()
    here = [word.replace("/home/you", str(tmp_path)) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "aifaceswap", *here],
        env=environment(HOME=str(tmp_path), AIFACESWAP_API_KEY="key_emulator"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "aifaceswap").is_dir()
