"""The command with local files: paths in place of URLs, alone and in rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aifaceswap.emulator import Emulator
from aifaceswap.emulator.faults import Reset
from support.bulk_runs import fault
from support.command_fixtures import Command
from support.local_files import write_gif, write_jpeg
from support.samples import TARGET

LOCAL_URL = "http://127.0.0.1"


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two pictures in the present folder, and no settings of the test run's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIFACESWAP_FILES", raising=False)
    write_jpeg(Path("face.jpg"))
    write_gif(Path("party.gif"))


@pytest.fixture
def no_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key for the real service, which nothing here may reach."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", "key_test_1")
    monkeypatch.setenv("AIFACESWAP_BASE_URL", "https://service.invalid/api/v1")


def write_rows(*rows: str, header: str = "source,target") -> None:
    Path("rows.csv").write_text("\n".join([header, *rows, ""]))


# --- one swap --------------------------------------------------------------------------------


def test_two_local_files_make_a_swap_of_the_target_s_type(command: Command) -> None:
    """Against a private emulator, which needs no bucket; the next command does."""
    outcome = command("--emulator", "run", "face.jpg", "party.gif", "-o", "out.gif")
    assert outcome.code == 0
    assert outcome.data["type"] == "gif"
    assert Path("out.gif").read_bytes()[:6] == b"GIF89a"
    assert outcome.next.splitlines()[-2:] == [
        "  export AIFACESWAP_FILES=s3://<your bucket>",
        "  aifaceswap run face.jpg party.gif -o out.gif",
    ]


def test_create_takes_a_file_and_a_url(command: Command, service: Emulator) -> None:
    """A type that is typed stays."""
    outcome = command("create", "face.jpg", TARGET)
    assert (outcome.code, outcome.data["type"]) == (0, "image")
    assert command("create", "face.jpg", "party.gif", "--type", "gif").data["type"] == "gif"
    assert service.swaps[0].target_url == TARGET
    assert service.swaps[0].source_url.endswith("/face.jpg")


def test_what_repeats_a_lost_swap_has_the_urls_that_were_sent(
    command: Command, service: Emulator
) -> None:
    """Another upload would sign other URLs, and an idempotency key belongs to one body."""
    service.add_fault(fault("POST /swaps", Reset(commit=True)))
    outcome = command("create", "face.jpg", "party.gif")
    assert outcome.code == 1
    again = outcome.next.split("\n")[-1].split()
    assert again[:2] == ["aifaceswap", "create"]
    assert [word.rpartition("/")[2] for word in again[-2:]] == ["face.jpg", "party.gif"]
    assert all(word.startswith(LOCAL_URL) for word in again[-2:])
    service.clear_faults()
    assert command(*again[1:]).code == 0
    assert len(service.swaps) == 1


@pytest.mark.usefixtures("no_bucket")
def test_without_a_bucket_it_says_what_to_set(command: Command) -> None:
    """Nothing is sent; a file that is missing is named first."""
    outcome = command("run", TARGET, "party.gif", "-o", "out.gif")
    assert outcome.code == 1
    first, *advice = outcome.err.splitlines()
    assert first == "Error: TARGET is a local file, which the service cannot read: party.gif"
    assert "  export AIFACESWAP_FILES=s3://bucket/prefix" in advice
    assert advice[-1] == f"  aifaceswap --emulator run {TARGET} party.gif -o out.gif"
    missing = command("run", "nowhere.jpg", "party.gif")
    assert missing.err.startswith(
        "Error: SOURCE must be a file that can be read; 'nowhere.jpg': No such file or directory"
    )
    assert missing.code == 2
    odd = command("run", "face.jpg", "party.gif", "--files", "bucket")
    assert odd.err.startswith("Error: --files must be a bucket like 's3://bucket/prefix'")
    assert odd.err.splitlines()[-1] == "  aifaceswap --emulator run face.jpg party.gif"


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "is empty"), (b"<html>", "begins with b'<html>'")],
    ids=["empty", "page"],
)
def test_a_bad_file_is_named(command: Command, content: bytes, text: str) -> None:
    """Before anything is uploaded."""
    Path("party.gif").write_bytes(content)
    outcome = command("--emulator", "run", "face.jpg", "party.gif")
    assert outcome.code == 2
    assert outcome.err.startswith("Error: TARGET must be an image; 'party.gif'")
    assert text in outcome.err


# --- rows ------------------------------------------------------------------------------------


def test_forty_rows_of_paths_are_forty_swaps(command: Command, service: Emulator) -> None:
    """Relative to the file of rows, wherever the command runs; done once, they are done."""
    folder = Path("job")
    write_jpeg(folder / "faces" / "a.jpg")
    lines = []
    for number in range(40):
        write_gif(folder / f"{number}.gif", str(number))
        lines.append(f"faces/a.jpg,{number}.gif")
    (folder / "rows.csv").write_text("\n".join(["source,target", *lines]))
    for _ in range(2):
        outcome = command("bulk", "job/rows.csv")
        assert outcome.code == 0
        assert len(outcome.out.splitlines()) == 40
        assert len(service.swaps) == 40
    assert {swap.type for swap in service.swaps} == {"gif"}
    assert len({swap.source_url for swap in service.swaps}) == 1
    folder.rename("moved")
    assert command("bulk", "moved/rows.csv").code == 0
    assert len(service.swaps) == 40


def test_paths_and_urls_stand_in_one_column(command: Command, service: Emulator) -> None:
    """In CSV and in JSON lines, on stdin too; the old columns take URLs alone."""
    write_rows(f"face.jpg,{TARGET}", f"{TARGET},party.gif")
    assert command("bulk", "rows.csv").code == 0
    assert [swap.type for swap in service.swaps] == ["image", "gif"]
    row = {"source": "face.jpg", "target_url": TARGET, "row_id": "a", "type": "image"}
    Path("rows.jsonl").write_text(json.dumps(row))
    assert command("bulk", "rows.jsonl").code == 0
    write_rows(f"face.jpg,{TARGET}", header="source_url,target_url")
    outcome = command("bulk", "rows.csv", "--journal", "other.sqlite")
    assert "source_url must be a public https:// URL" in outcome.out
    assert len(service.swaps) == 3


def test_bad_files_are_the_outcomes_of_their_rows(command: Command, service: Emulator) -> None:
    """The others are done; corrected, these are done by the same command."""
    Path("empty.gif").touch()
    write_rows("face.jpg,party.gif", "face.jpg,empty.gif", "nowhere.jpg,party.gif")
    outcome = command("bulk", "rows.csv")
    assert outcome.code == 3
    assert "1 done, 2 failed" in outcome.err
    assert "Invalid rows that were not sent: 2. Correct them first." in outcome.err
    write_gif(Path("empty.gif"), "no longer")
    write_jpeg(Path("nowhere.jpg"))
    assert command("bulk", "rows.csv").code == 0
    assert len(service.swaps) == 3


def test_a_dry_run_checks_the_files(command: Command, service: Emulator) -> None:
    """It names each bad one, knows the types, and uploads nothing."""
    write_rows("face.jpg,party.gif", "face.jpg,gone.gif", "face.jpg,")
    outcome = command("bulk", "rows.csv", "--dry-run")
    assert outcome.code == 2
    first, second, third = outcome.err.splitlines()[:3]
    assert first.startswith("row 1 (line 3): target must be a file that can be read; 'gone.gif'")
    assert second == "row 2 (line 4): target is missing"
    assert third == "Error: 2 of 3 rows are invalid"
    write_rows("face.jpg,party.gif", f"face.jpg,{TARGET}")
    command("run", "face.jpg", "party.gif")
    plan = command("bulk", "rows.csv", "--dry-run").data
    assert plan["credits_needed"] == 3
    assert command("bulk", "rows.csv").code == 0
    again = command("bulk", "rows.csv", "--dry-run").data
    assert (again["rows_new"], again["rows_done"]) == (0, 2)
    write_gif(Path("party.gif"), "changed")
    changed = command("bulk", "rows.csv", "--dry-run").data
    assert (changed["rows_new"], changed["rows_done"], changed["rows_gone"]) == (1, 1, 1)


@pytest.mark.usefixtures("no_bucket")
def test_rows_without_a_bucket_say_what_to_set(command: Command) -> None:
    """Before a run, too."""
    write_rows("face.jpg,party.gif")
    outcome = command("bulk", "rows.csv", "--dry-run")
    assert outcome.code == 1
    assert "is a local file, and there is no store to publish it" in outcome.err
    assert "export AIFACESWAP_FILES=s3://bucket/prefix" in outcome.err


def test_a_store_that_is_set_up_wrongly_stops_the_run(
    command: Command, service: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the error of the store; nothing is sent."""
    pytest.importorskip("obstore")
    write_rows("face.jpg,party.gif")
    for name, value in {"AWS_ACCESS_KEY_ID": "", "HOME": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    outcome = command("bulk", "rows.csv", "--files", "s3://bucket")
    assert outcome.code == 1
    assert "the run has stopped: " in outcome.err
    # Whether boto3 is installed or not.
    assert "no credentials for the bucket" in outcome.err
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in outcome.err
    assert service.swaps == ()
