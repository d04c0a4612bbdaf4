"""Each command against a service over HTTP: what it does and what it writes."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aifaceswap import Client
from aifaceswap.emulator import Emulator, VirtualClock
from support.command_fixtures import Command
from support.commands import FOREVER, INSTANT
from support.samples import FACE, TARGET

pytestmark = pytest.mark.usefixtures("service")


def create(command: Command, target: str = TARGET) -> str:
    outcome = command("create", FACE, target)
    assert outcome.code == 0, outcome.err
    return str(outcome.data["id"])


def test_the_private_emulator_knows_no_environment(command: Command, service: Emulator) -> None:
    """With --emulator the service in the environment is not asked."""
    assert command("--emulator", "run", FACE, INSTANT).code == 0
    assert service.requests == ()


def test_run_saves_the_result(command: Command, tmp_path: Path) -> None:
    """`run --output` replaces an older file and says where the result is."""
    output = tmp_path / "result.jpg"
    output.write_text("older")
    outcome = command("run", FACE, TARGET, "--output", str(output))
    assert outcome.data["output"] == str(output)
    assert output.read_bytes().startswith(b"\xff\xd8\xff")
    assert f"Saved {output}" in outcome.err
    assert [output] == list(tmp_path.iterdir())


def test_run_without_output(command: Command, service: Emulator) -> None:
    """`run` alone shows the swap as the API has it and fetches nothing."""
    outcome = command("run", FACE, TARGET)
    assert outcome.data.keys() >= {"id", "status", "result_url", "credit_cost"}
    assert "output" not in outcome.data
    assert "signature=" in outcome.data["result_url"]
    assert not any(request.path.startswith("/results/") for request in service.requests)


def test_every_option_reaches_the_service(command: Command, service: Emulator) -> None:
    """The options of a swap are the fields of the request."""
    command(
        *("create", FACE, "https://example.com/target.gif", "--type", "gif", "--face-index", "2"),
        *("--no-enhance", "--webhook-url", "https://example.com/hook"),
        *("--metadata", '{"order": 7}', "--idempotency-key", "order-7"),
    )
    (request,) = service.requests
    assert request.idempotency_key == "order-7"
    assert json.loads(request.body) == {
        "source_url": FACE,
        "target_url": "https://example.com/target.gif",
        "type": "gif",
        "target_face_index": 2,
        "enable_face_enhancer": False,
        "webhook_url": "https://example.com/hook",
        "metadata": {"order": 7},
    }


def test_options_left_out_are_not_sent(command: Command, service: Emulator) -> None:
    """What is not said is left to the service; each swap has a fresh key."""
    create(command)
    create(command)
    first, second = service.requests
    assert json.loads(first.body) == {"type": "image", "source_url": FACE, "target_url": TARGET}
    assert first.idempotency_key != second.idempotency_key


def test_unknown_fields_are_kept(command: Command) -> None:
    """JSON holds fields that this package does not know."""
    swap_id = create(command, "https://example.com/new-fields.jpg")
    assert command("get", swap_id).data["eta_seconds"] == 2.5


def test_wait_returns_the_finished_swap(command: Command) -> None:
    """`wait` ends with the swap as it ended."""
    swap_id = create(command)
    outcome = command("wait", swap_id)
    assert (outcome.code, outcome.data["id"], outcome.data["status"]) == (0, swap_id, "done")


def test_wait_gives_up(command: Command) -> None:
    """A swap that takes too long ends in 5 and the command that waits longer."""
    swap_id = create(command, FOREVER)
    outcome = command("wait", swap_id, "--timeout", "0.05")
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.err.endswith(f"  aifaceswap wait {swap_id} --timeout 300\n")


def test_run_gives_up(command: Command, tmp_path: Path) -> None:
    """A `run` that takes too long says how to come by the paid picture."""
    output = tmp_path / "my result.jpg"
    outcome = command("run", FACE, FOREVER, "--timeout", "0.05", "--output", str(output))
    assert (outcome.code, outcome.out) == (5, "")
    swap_id = outcome.err.split()[1].rstrip(".")
    wanted = f"aifaceswap wait {swap_id} --timeout 300 && aifaceswap download {swap_id} --output"
    assert outcome.err.endswith(f"  {wanted} {shlex.quote(str(output))}\n")


@pytest.mark.parametrize(("kind", "suffix"), [("image", ".jpg"), ("gif", ".gif")])
def test_download_names_the_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str
) -> None:
    """Without --output the file is called by the id, with the extension of the result."""
    monkeypatch.chdir(tmp_path)
    swap_id = command("create", FACE, TARGET, "--type", kind).data["id"]
    outcome = command("download", swap_id)
    assert outcome.data["output"] == f"{swap_id}{suffix}"
    assert [f"{swap_id}{suffix}"] == os.listdir(tmp_path)


def test_download_of_an_unfinished_swap(command: Command) -> None:
    """There is nothing to save yet: wait, then download."""
    swap_id = create(command, FOREVER)
    outcome = command("download", swap_id, "-o", "x.jpg")
    assert outcome.code == 1
    wanted = f"aifaceswap wait {swap_id} && aifaceswap download {swap_id} -o x.jpg"
    assert wanted == outcome.next


def test_list_is_lines_of_json(command: Command) -> None:
    """`list` writes one swap a line, newest first, and where the next page begins."""
    ids = [create(command) for _ in range(5)]
    page = command("list", "--limit", "2")
    assert [json.loads(line)["id"] for line in page.out.splitlines()] == ids[:2:-1]
    more = command(*shlex.split(page.next)[1:])
    assert [json.loads(line)["id"] for line in more.out.splitlines()] == ids[2:0:-1]


def test_list_all_pages(command: Command, service: Emulator) -> None:
    """`list --all` goes through every page and promises no more."""
    ids = [create(command) for _ in range(5)]
    outcome = command("list", "--all", "--limit", "2")
    assert [json.loads(line)["id"] for line in outcome.out.splitlines()] == ids[::-1]
    assert outcome.err == ""
    assert len(service.requests) == 8


def test_an_empty_list(command: Command) -> None:
    """No swaps are no data, and no error."""
    outcome = command("list")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.next == "aifaceswap run SOURCE TARGET --output FILE"


def test_the_list_of_a_private_emulator(command: Command) -> None:
    """It starts empty; one that is served keeps its swaps."""
    outcome = command("--emulator", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "starts empty" in outcome.err
    assert outcome.err.endswith("aifaceswap emulator\n")


def test_me(command: Command) -> None:
    """`me` writes the account."""
    data = command("me").data
    assert data["credits"]["total"] == 1000
    assert data["rate_limit"]["limit"] > 0


def test_json_may_stand_anywhere(command: Command) -> None:
    """--json is understood before the command and after it."""
    assert command("--json", "me").code == command("me", "--json").code == 0


@pytest.fixture
def three_days(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Ids of swaps that were created on the first three days of March, newest first."""
    clock = VirtualClock(start=datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp())
    with Emulator(duration=0.0, clock=clock) as emulator:
        monkeypatch.setenv("AIFACESWAP_BASE_URL", emulator.base_url)
        monkeypatch.setenv("AIFACESWAP_API_KEY", emulator.api_key)
        with Client(emulator.api_key, base_url=emulator.base_url, budget=None) as client:
            for target in (TARGET, "https://example.com/fails.jpg", TARGET):
                client.swaps.create(source_url=FACE, target_url=target)
                emulator.advance(86_400)
            yield [swap.id for swap in client.swaps.list()]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--status", "failed"), [1]),
        (("--status", "queued"), []),
        (("--since", "2026-03-02"), [0, 1]),
        (("--until", "2026-03-02"), [1, 2]),
        (("--since", "2026-03-02", "--until", "2026-03-02"), [1]),
        (("--status", "done", "--limit", "1"), [0]),
        (("--status", "done", "--limit", "1", "--all"), [0, 2]),
    ],
)
def test_list_filters(
    command: Command, three_days: list[str], options: tuple[str, ...], wanted: list[int]
) -> None:
    """Status and days select; --limit counts what is selected."""
    outcome = command("list", *options)
    found = [json.loads(line)["id"] for line in outcome.out.splitlines()]
    assert found == [three_days[index] for index in wanted]
    assert ("No swaps match." in outcome.err) == (not wanted)
