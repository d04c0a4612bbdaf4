"""`aifaceswap bulk`: rows in, outcomes out, and an orderly end whatever happens."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from aifaceswap.bulk import BulkProgress
from aifaceswap.cli.bulk.commands import bulk
from aifaceswap.cli.bulk.display import BulkDisplay, CountingBudget
from aifaceswap.cli.bulk.plan import Plan
from aifaceswap.cli.bulk.rows import in_threads
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import Fault, Status
from support.command_fixtures import Command
from support.commands import Outcome, environment, on_terminal, running
from support.samples import FACE, TARGET

FAILS = "https://example.com/fails.jpg"
# Refused at once: such a row needs no waiting.
REFUSED = "https://example.com/nsfw.jpg"
RUN = ("bulk", "rows.csv", "--output", "out", "--concurrency", "3")
PAGE = Path(__file__).parents[3] / "docs" / "command-line.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a folder of its own to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(*targets: str, name: str = "rows.csv") -> None:
    lines = [f"{FACE},{target}" for target in targets]
    Path(name).write_text("\n".join(["source_url,target_url", *lines, ""]), encoding="utf-8")


def lines_of(outcome: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [json.loads(line) for line in outcome.out.splitlines()]
    return sorted(found, key=lambda fields: fields["row"])


def settings(emulator: Emulator) -> dict[str, str]:
    return {"AIFACESWAP_BASE_URL": emulator.base_url, "AIFACESWAP_API_KEY": emulator.api_key}


def test_a_run(command: Command, service: Emulator, folder: Path) -> None:
    """Each row is one swap, one line of JSON and one picture; failed ones end it in 3."""
    write_rows(TARGET, FAILS, TARGET)
    outcome = command("bulk", "rows.csv", "--journal", "run.sqlite", "--output", "out/")
    assert outcome.code == 3
    first, second, third = lines_of(outcome)
    assert (first["line"], first["error"], first["attempts"]) == (2, None, 1)
    assert first["swap"]["status"] == "done"
    assert {first["path"], third["path"]} == {str(path) for path in Path("out").iterdir()}
    assert (second["path"], second["error"]["type"]) == (None, "SwapFailedError")
    keys = {fields["idempotency_key"] for fields in (first, second, third)}
    assert keys == {swap.idempotency_key for swap in service.swaps}
    assert outcome.err.startswith("2 done, 1 failed in ")
    again = "aifaceswap bulk rows.csv --journal run.sqlite --output out/ --retry-failed"
    assert outcome.next == f"retry the failed rows (creates new swaps):\n  {again}"


def test_a_run_again(command: Command, service: Emulator) -> None:
    """Run again it creates nothing and says the same; with --retry-failed, failed rows alone."""
    write_rows(TARGET, FAILS)
    first = command("bulk", "rows.csv")
    assert Path("rows.sqlite").exists()
    assert lines_of(first) == lines_of(command("bulk", "run", "rows.csv"))
    assert len(service.swaps) == 2
    assert command(*shlex.split(first.next.splitlines()[-1])[1:]).code == 3
    assert [swap.target_url for swap in service.swaps] == [TARGET, FAILS, FAILS]


EVERY = {
    "source_url": REFUSED,
    "target_url": "https://example.com/target.gif",
    "type": "gif",
    "webhook_url": "https://example.com/hook",
    "target_face_index": 2,
    "enable_face_enhancer": False,
    "metadata": {"order": 7, "name": "Zoë"},
}


def as_csv(encoding: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, EVERY)
    writer.writeheader()
    cells = {"metadata": json.dumps(EVERY["metadata"], ensure_ascii=False)}
    writer.writerow({**EVERY, **cells})
    text.write("\r\n")
    writer.writerow({"source_url": REFUSED, "target_url": TARGET})
    return text.getvalue().encode(encoding)


def as_jsonl(encoding: str) -> bytes:
    second = {"source_url": REFUSED, "target_url": TARGET, "type": None}
    lines = [json.dumps(EVERY, ensure_ascii=False), "", json.dumps(second)]
    return "\n".join(lines).encode(encoding)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", as_csv("utf-8")),
        ("rows.txt", as_csv("utf-8-sig")),
        ("rows.jsonl", as_jsonl("utf-8-sig")),
        ("rows", as_jsonl("utf-8")),
    ],
)
def test_rows_say_all_there_is(
    command: Command, service: Emulator, name: str, content: bytes
) -> None:
    """CSV and JSON lines reach the service with every field; what is empty is not sent."""
    Path(name).write_bytes(content)
    outcome = command("bulk", name)
    assert outcome.code == 3, outcome.err
    bodies = [json.loads(request.body) for request in service.requests if request.method == "POST"]
    first, second = sorted(bodies, key=len, reverse=True)
    assert first == EVERY
    assert second == {"type": "image", "source_url": REFUSED, "target_url": TARGET}


def test_rows_from_stdin(service: Emulator) -> None:
    """With - the rows come from a pipe, and their first line says what they are."""
    arguments = [sys.executable, "-m", "aifaceswap", "bulk", "-", "--journal", "run.sqlite"]
    done = subprocess.run(
        arguments,
        input=as_jsonl("utf-8"),
        env=environment(**settings(service)),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    posted = [request for request in service.requests if request.method == "POST"]
    assert len(posted) == len(done.stdout.splitlines()) == 2


WRONG = [
    (
        f"http://example.com/x,{FACE},,",
        "source_url must be a public https:// URL; got 'http://example.com/x'",
    ),
    (f"{FACE},,,", "target is missing"),
    (f"{FACE},{TARGET},x,", "target_face_index must be a whole number, 0 or more; got 'x'"),
    (f"{FACE},{TARGET},,[1]", "metadata must be a JSON object"),
    (f'{FACE},"{TARGET}"x,,', "must be valid CSV: ',' expected after '\"'"),
    (f"{FACE},{TARGET},,,,7", "has 6 cells, but there are 4 columns"),
    (f"{FACE},https://example.com/\xff,,", "target_url must be UTF-8"),
]


def write_wrong_rows() -> list[str]:
    head = "source_url,target_url,target_face_index,metadata"
    lines = [head, f"{FACE},{TARGET},,", *(line for line, _ in WRONG)]
    Path("rows.csv").write_bytes("\n".join(lines).encode("latin-1"))
    return [fault for _, fault in WRONG]


def test_wrong_rows_are_outcomes(command: Command, service: Emulator) -> None:
    """An invalid row fails with its line and column, and the others continue."""
    faults = write_wrong_rows()
    outcome = command("bulk", "rows.csv")
    assert outcome.code == 3
    good, *bad = lines_of(outcome)
    assert good["error"] is None
    assert faults == [fields["error"]["message"] for fields in bad]
    assert [fields["line"] for fields in bad] == list(range(3, 3 + len(WRONG)))
    assert len(service.swaps) == 1
    assert "Invalid rows that were not sent: 7. Correct them first." in outcome.err


def test_a_dry_run_names_every_wrong_row(command: Command, service: Emulator) -> None:
    """All errors at once, and exit code 2; nothing is sent."""
    faults = write_wrong_rows()
    outcome = command("bulk", "--dry-run", "rows.csv")
    assert (outcome.code, outcome.out) == (2, "")
    named = [f"row {row} (line {row + 2}): {fault}" for row, fault in enumerate(faults, 1)]
    assert named == outcome.err.splitlines()[: len(faults)]
    assert "Error: 7 of 8 rows are invalid" in outcome.err
    assert service.requests == ()


def test_wrong_lines_of_json(command: Command) -> None:
    """Lines of JSON are checked like cells; fields that are not known are named."""
    lines = ['{"source_url": 1}', '{"colour": 1}', '{"a"', "[]"]
    Path("rows.jsonl").write_text("\n".join(lines))
    outcome = command("bulk", "rows.jsonl", "--dry-run")
    assert outcome.code == 2
    first, second, third, fourth = outcome.err.splitlines()[:4]
    assert first == "row 0 (line 1): target is missing"
    assert second.startswith("row 1 (line 2): unknown fields: 'colour'; allowed: source, target, ")
    assert third.startswith("row 2 (line 3): line must be valid JSON: Expecting ':' delimiter")
    assert fourth == "row 3 (line 4): line must be a JSON object"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "rows.csv must contain at least one row"),
        (
            "\nsource_url,colour\n",
            "line 2: wrong columns (unknown: 'colour'; missing: 'target')",
        ),
        ("source_url,target_url,source_url\n", "(repeated: 'source_url')"),
    ],
)
@pytest.mark.parametrize("option", ["--dry-run", "--retry-failed"])
def test_a_wrong_header(
    command: Command, service: Emulator, content: str, said: str, option: str
) -> None:
    """Columns that are not known, repeated or missing are exit code 2; nothing is sent."""
    Path("rows.csv").write_text(content)
    outcome = command("bulk", "rows.csv", option)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err.splitlines()[0]
    assert service.requests == ()


def test_a_dry_run(command: Command, service: Emulator) -> None:
    """It tells time, credits and requests, says what it assumes, and costs nothing."""
    write_rows(*[TARGET] * 40)
    outcome = command("bulk", "rows.csv", "--dry-run", "--assume-seconds", "60")
    assert outcome.code == 0
    data = outcome.data
    assert (data["rows"], data["credits_needed"], data["credits_suffice"]) == (40, 40, True)
    assert data["assumed"] == {"seconds_per_swap": 60, "credits_per_row": 1}
    assert 40 / 10 * 60 < data["seconds"] < 500
    assert {request.method for request in service.requests} == {"GET"}
    assert [Path("rows.csv")] == list(Path().iterdir())


@pytest.mark.usefixtures("service")
def test_a_dry_run_of_a_run_that_has_begun(command: Command) -> None:
    """What the journal has done already is left out."""
    write_rows(REFUSED)
    command("bulk", "rows.csv")
    write_rows(REFUSED, TARGET)
    assert command("bulk", "rows.csv", "--dry-run").data["rows_left"] == 1
    assert command("bulk", "rows.csv", "--dry-run", "--retry-failed").data["rows_left"] == 2


def test_a_dry_run_rejects_the_journal_of_another_key(
    command: Command, service: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the run itself would, before anything is sent."""
    write_rows(TARGET)
    command("bulk", "rows.csv")
    sent = len(service.requests)
    monkeypatch.setenv("AIFACESWAP_API_KEY", "another_key")
    outcome = command("bulk", "rows.csv", "--dry-run")
    assert outcome.code == 1
    assert "rows.sqlite belongs to another API key" in outcome.err
    assert len(service.requests) == sent


def test_the_plan_follows_the_limits() -> None:
    """Slots bound long swaps, requests short ones, and the day's requests large runs."""
    slow = Plan.estimate(1000, job=600, concurrency=10)
    assert 0.9 < slow.per_minute <= 1
    assert 50 < Plan.estimate(1000, job=0, concurrency=10).per_minute < 60
    assert Plan.estimate(1000, job=600, concurrency=5).seconds > 1.9 * slow.seconds
    assert Plan.estimate(30_000, job=1, concurrency=10).seconds > 3 * 86_400
    assert Plan.estimate(0, job=600, concurrency=10).seconds == 0


def test_a_bad_key_stops_the_run(command: Command, service: Emulator) -> None:
    """A key that is no live one is exit code 4 and the command that goes on."""
    write_rows(TARGET)
    service.revoke_key(service.api_key)
    outcome = command("bulk", "rows.csv")
    assert outcome.code == 4
    assert "invalid_api_key" in outcome.err or "not a live key" in outcome.err
    assert outcome.next.startswith("Set a valid key")
    assert outcome.next.endswith("  aifaceswap bulk rows.csv")


def test_missing_credits_stop_the_run(command: Command, service: Emulator) -> None:
    """Without credits the run ends in 1 and says how to go on, and goes on when there are some."""
    write_rows(TARGET, "https://example.com/no-credits.jpg")
    outcome = command("bulk", "rows.csv", "--concurrency", "1")
    assert outcome.code == 1
    assert outcome.err.startswith("1 done, 0 failed in ")
    assert "Journal: rows.sqlite\nError: the run has stopped" in outcome.err
    assert "Add credits" in outcome.next
    assert outcome.next.endswith("  aifaceswap bulk rows.csv --concurrency 1")
    assert command("bulk", "status", "rows.sqlite").data["waiting_for_credits"] == 1


def test_stdin_needs_a_journal(command: Command) -> None:
    """There is no name for a journal beside stdin."""
    outcome = command("bulk", "-")
    assert outcome.code == 2
    assert "--journal is required" in outcome.err


def test_a_run_that_is_finished_says_so(command: Command, service: Emulator) -> None:
    """All outcomes come from the journal: nothing is sent, and the summary says why."""
    write_rows(TARGET, REFUSED)
    assert "Nothing to do" not in command("bulk", "rows.csv").err
    sent = [request for request in service.requests if request.method == "POST"]
    outcome = command("bulk", "rows.csv")
    finished = "Nothing to do: all 2 rows were finished earlier (1 done, 1 failed)."
    assert finished in outcome.err.splitlines()
    assert len(lines_of(outcome)) == 2
    assert sent == [request for request in service.requests if request.method == "POST"]


@pytest.mark.usefixtures("service")
def test_status_and_export(command: Command) -> None:
    """`status` counts, `export` writes the outcomes as the run did, or as CSV."""
    write_rows(TARGET, FAILS)
    told = lines_of(command("bulk", "rows.csv"))
    counts = command("bulk", "status", "rows.sqlite")
    assert (counts.code, counts.data["rows"]) == (0, 2)
    assert (counts.data["done"], counts.data["failed"], counts.data["in_progress"]) == (1, 1, 0)
    exported = lines_of(command("bulk", "export", "rows.sqlite"))
    assert [{**fields, "line": line} for line, fields in enumerate(exported, 2)] == told
    cells = csv.DictReader(
        command("bulk", "export", "rows.sqlite", "--format", "csv").out.splitlines()
    )
    first, second = cells
    assert (first["swap_status"], first["error_type"]) == ("done", "")
    assert (second["row"], second["error_type"]) == ("1", "SwapFailedError")


@pytest.mark.usefixtures("service")
def test_the_status_of_a_run_that_is_all_done(command: Command) -> None:
    """There is nothing to do next, so nothing is said."""
    write_rows(TARGET)
    command("bulk", "rows.csv")
    counts = command("bulk", "status", "rows.sqlite")
    assert (counts.data["rows"], counts.data["done"], counts.err) == (1, 1, "")


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("name", ["status", "export", "report"])
def test_a_journal_that_cannot_be_used(command: Command, name: str) -> None:
    """No journal, another file or a damaged one: one line that says so."""
    assert "does not exist" in command("bulk", name, "run.sqlite").err
    Path("text.sqlite").write_text("no journal at all " * 100)
    assert "is not a journal" in command("bulk", name, "text.sqlite").err
    write_rows(REFUSED)
    command("bulk", "rows.csv")
    with sqlite3.connect("rows.sqlite") as connection:
        connection.execute("UPDATE rows SET state = 77, swap_json = '{'")
    connection.close()
    outcome = command("bulk", name, "rows.sqlite")
    assert (outcome.code, outcome.out) == (1, "")
    assert "Error: " in outcome.err
    assert "damaged" in outcome.err


def test_rows_may_change_between_runs(command: Command, service: Emulator) -> None:
    """A changed row is a new one; what it will take is shown before anything is sent."""
    write_rows(REFUSED, "https://example.com/1.jpg", "https://example.com/2.jpg")
    command("bulk", "rows.csv")
    write_rows("https://example.com/3.jpg", "https://example.com/2.jpg")
    planned = command("bulk", "rows.csv", "--dry-run", "--json")
    fields = {name: planned.data[f"rows_{name}"] for name in ("new", "done", "open", "gone")}
    assert fields == {"new": 1, "done": 1, "open": 0, "gone": 2}
    outcome = command("bulk", "rows.csv")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert {line["row"]: line["line"] for line in lines} == {0: 2, 1: 3, None: None}
    assert len(service.swaps) == 3


def test_a_private_emulator(command: Command) -> None:
    """With --emulator no journal stays behind that would pass for the service's."""
    write_rows("https://example.com/instant.jpg")
    outcome = command("--emulator", "bulk", "rows.csv", "--output", "out")
    assert outcome.code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["out", "rows.csv"]
    assert outcome.next.endswith("  aifaceswap bulk rows.csv --output out")


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A service whose swaps take a moment."""
    with Emulator(duration=0.2, limits=Limits(per_minute=None)) as emulator:
        for name, value in settings(emulator).items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.mark.parametrize(
    ("number", "code", "times"),
    [(signal.SIGINT, 130, 1), (signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)],
)
def test_stopped_and_resumed(
    steady: Emulator, command: Command, number: signal.Signals, code: int, times: int
) -> None:
    """Once: swaps in progress finish; twice: at once. The printed command resumes."""
    rows = 9
    write_rows(*[f"https://example.com/{row}.jpg" for row in range(rows)])
    with running(*RUN, env=settings(steady)) as process:
        process.read_until('"path":"out/')
        process.process.send_signal(number)
        if times > 1:
            process.read_until("Stopping: ")
            process.process.send_signal(number)
        assert process.end() == code
    assert not re.search("Traceback|Warning|never|destroyed", process.text)
    last = process.text.splitlines()[-1]
    assert last == "  aifaceswap bulk rows.csv --output out --concurrency 3"
    made = len(steady.swaps)
    assert 3 <= made < rows
    if times == 1:
        assert process.text.count('"path":"out/') == made
    outcome = command(*shlex.split(last)[1:-1], "10")
    assert outcome.code == 0, outcome.err
    assert len(lines_of(outcome)) == rows
    assert Counter(swap.target_url for swap in steady.swaps).most_common(1)[0][1] == 1
    assert len(steady.swaps) == rows == len(list(Path("out").glob("*.jpg")))


def test_ctrl_c_while_stdin_is_silent(steady: Emulator) -> None:
    """A pipe that says no more does not hold up the end."""
    command = [sys.executable, "-m", "aifaceswap", "bulk", "-", "--journal", "run.sqlite"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(**settings(steady))
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"source_url,target_url\n{FACE},{TARGET}\n".encode())
        process.stdin.flush()
        assert b'"error":null' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(20)
    assert process.returncode == 130
    assert err.endswith(b"bulk - --journal run.sqlite  # with the same rows on stdin\n")


def test_on_a_terminal(steady: Emulator) -> None:
    """People see a display of eighty columns that moves, failed rows, and a summary; no JSON."""
    write_rows(*[TARGET] * 5, REFUSED)
    with on_terminal("bulk", "rows.csv", env=settings(steady)) as process:
        assert process.end() == 3, process.text
    assert process.text.count("\x1b[?25l") == process.text.count("\x1b[?25h") == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", process.text).replace("\r\n", "\n")
    assert all(len(line.rstrip()) <= 80 for line in re.split("[\r\n]", text)), text
    assert re.search(r"\d+ of 6 .*/min, .* left\n +\d+ done +\d failed +\d+ in progress", text)
    assert re.search(r"\d+ of the day's 10,000 requests +about 9\d\d credits left", text)
    assert "row 5 (line 7): " in text
    assert "5 done, 1 failed in " in text
    assert '"row"' not in text


def test_many_failures_on_a_terminal(steady: Emulator) -> None:
    """The first ten are named; the others would push everything else off the screen."""
    write_rows(*[REFUSED] * 12)
    with on_terminal("bulk", "rows.csv", env=settings(steady), columns=200) as process:
        assert process.end() == 3, process.text
    assert process.text.count("The image was rejected.") == 10
    assert process.text.count("Further failures are counted") == 1
    assert "0 done, 12 failed in " in process.text


def test_a_bad_key_on_a_terminal(steady: Emulator) -> None:
    """The display does without the account's credits, and the run says what is the matter."""
    write_rows(TARGET)
    env = {**settings(steady), "AIFACESWAP_API_KEY": "key_of_nobody"}
    with on_terminal("bulk", "rows.csv", env=env) as process:
        assert process.end() == 4, process.text
    assert "credits left" not in process.text
    assert "Traceback" not in process.text


def test_whoever_reads_has_gone(service: Emulator) -> None:
    """The run ends with the command that goes on."""
    write_rows(TARGET)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "aifaceswap", "bulk", "rows.csv"]
    env = environment(**settings(service))
    with open(writer, "wb") as pipe:
        done = subprocess.run(
            command, env=env, stdout=pipe, stderr=subprocess.PIPE, timeout=20, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(
        b"Output closed by the reader. To resume:\n  aifaceswap bulk rows.csv\n"
    )
    assert b"Traceback" not in done.stderr


def test_a_run_that_cannot_begin(command: Command, service: Emulator) -> None:
    """There is nothing to sum up."""
    write_rows(TARGET)
    Path("text.sqlite").write_text("no journal at all " * 100)
    outcome = command("bulk", "rows.csv", "--journal", "text.sqlite")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: text.sqlite is not a journal")
    assert service.swaps == ()


def test_a_journal_of_a_private_emulator(command: Command) -> None:
    """Who asks for one is told that it is of no use for the service."""
    write_rows("https://example.com/instant.jpg")
    outcome = command("--emulator", "bulk", "rows.csv", "--journal", "run.sqlite")
    assert outcome.code == 0
    assert (
        "The journal contains swaps of the emulator: use another one for the service."
        in outcome.err
    )


@pytest.mark.usefixtures("service")
def test_a_limit_of_the_service_is_waited_for(command: Command, service: Emulator) -> None:
    """A 429 is no failed row."""
    service.add_fault(Fault("POST /swaps", Status(429, retry_after=1)))
    write_rows(TARGET)
    outcome = command("bulk", "rows.csv")
    assert outcome.code == 0, outcome.err
    assert [request.status for request in service.requests if request.method == "POST"] == [
        429,
        201,
    ]


def test_the_pace_is_that_of_the_last_minute() -> None:
    """A burst at the beginning does not count for ever, and shows no more than may be sent."""
    now = [0.0]
    display = BulkDisplay(CountingBudget(), clock=lambda: now[0])
    display.total = 1000

    def end(number: int) -> str:
        display.show(BulkProgress(total=1000, in_flight=number))
        display.show(BulkProgress(total=1000, done=100))
        screen = io.StringIO()
        Console(file=screen, width=200).print(display._render())
        (shown,) = re.findall(r"\d+/min, .* left|estimating", screen.getvalue())
        return str(shown)

    now[0] = 10.0
    assert end(100) == "60/min, 15 min left"
    now[0] = 65.0
    assert end(20) == "120/min, 7 min 30 s left"
    now[0] = 100.0
    assert end(0) == "20/min, 45 min left"
    now[0] = 200.0
    assert end(0) == "estimating"


async def test_a_line_that_cannot_be_read_ends_the_reading() -> None:
    """What goes wrong in the thread is raised where the line is awaited."""

    def lines() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    reading = in_threads(lines())
    assert await anext(reading) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        await anext(reading)


async def test_a_line_that_nobody_waits_for_any_more() -> None:
    """It comes late, and nothing happens."""
    late = threading.Event()
    asked = threading.Event()
    told: list[object] = []

    def lines() -> Iterator[int]:
        asked.set()
        late.wait(20)
        yield 1

    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    before = set(threading.enumerate())
    reading = asyncio.ensure_future(anext(in_threads(lines())))
    while not asked.is_set():
        await asyncio.sleep(0)
    (thread,) = set(threading.enumerate()) - before
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    late.set()
    thread.join(20)
    await asyncio.sleep(0)
    assert told == []


def test_the_page_names_every_option() -> None:
    """Whatever can be typed is documented."""
    page = PAGE.read_text(encoding="utf-8")
    parameters = [parameter for named in bulk.commands.values() for parameter in named.params]
    options = {name for p in parameters if isinstance(p, click.Option) for name in p.opts}
    assert {name for name in options if f"{name}`" not in page and f"{name} " not in page} == set()


def test_a_dry_run_learns_what_each_type_costs(command: Command, service: Emulator) -> None:
    """From the newest swaps of the key, where there are any."""
    write_rows(TARGET)
    assert command("bulk", "rows.csv").code == 0
    Path("more.jsonl").write_text(
        "".join(
            f'{{"source_url":"{FACE}","target_url":"{TARGET}","type":"{kind}"}}\n'
            for kind in ("gif", "image")
        )
    )
    service.configure(prices={"image": 3})
    assert command("bulk", "more.jsonl").code == 0
    write_rows(*[TARGET] * 2, name="new.csv")
    data = command("bulk", "new.csv", "--dry-run").data
    assert data["prices"] == {"gif": 2, "image": 3}
    assert data["credits_needed"] == 6
