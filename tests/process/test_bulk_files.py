"""Rows of local files, through a real S3 server: killed in mid-run, each row is one swap."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from aifaceswap import AsyncClient, Client
from aifaceswap.bulk._journal import State
from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator.faults import Fault, Truncate
from support.buckets import (
    CREDENTIALS,
    ENVIRONMENT,
    SmallBucket,
    create_bucket,
    s3_server,
    store_of,
)
from support.journals import entries
from support.kills import kill_after_lines
from support.local_files import write_gif, write_jpeg

pytest.importorskip("obstore")

KILLS = int(os.environ.get("AIFACESWAP_FILE_KILLS", "1"))
ROWS = 6
LIMITS = Limits(per_minute=None, per_day=None, concurrent=None)
PROGRAM = """
import asyncio, sys, aifaceswap

async def main():
    client = aifaceswap.AsyncClient(
        sys.argv[1], base_url=sys.argv[2], budget=None, files="s3://faces/job"
    )
    rows = [{"source": "face.jpg", "target": f"{number}.gif"} for number in range(ROWS)]
    done = 0
    async with client, client.swaps.bulk(rows, journal="run.sqlite", download_to="out") as outcomes:
        async for outcome in outcomes:
            print(outcome.row, outcome.error or "ok", flush=True)
            done += outcome.ok
    return done

sys.exit(asyncio.run(main()) != ROWS)
"""


@pytest.mark.timeout(300)
def test_no_crash_loses_or_doubles_a_swap_of_local_files(tmp_path: Path) -> None:
    """Rows, swaps and credits agree, and a key is sent with one body, whoever signed its URLs."""
    moments = random.Random(3)
    rows = ROWS if KILLS == 1 else 40
    for number in range(rows):
        write_gif(tmp_path / f"{number}.gif", str(number))
    write_jpeg(tmp_path / "face.jpg")
    faults = [] if KILLS == 1 else [Fault("POST /swaps", Truncate(), rate=0.2)]
    with s3_server() as url, Emulator(duration=0.1, limits=LIMITS, faults=faults) as emulator:
        env = {**os.environ, **ENVIRONMENT, "AWS_ENDPOINT_URL": url}
        create_bucket(url, "faces")
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM).replace("ROWS", str(rows))]
        command += [emulator.api_key, emulator.base_url]
        code, kills = -1, 0
        while code != 0:
            process = subprocess.Popen(
                command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
            )
            if kills < KILLS:
                kills += 1
                kill_after_lines(process, moments.randrange(1, 4), moments.random() / 2)
            else:
                process.communicate(timeout=100)
            code = process.returncode
        check(emulator, tmp_path / "run.sqlite", rows)


def check(emulator: Emulator, journal: Path, rows: int) -> None:
    """What was paid, what was sent, and what the journal has are the same."""
    assert len(emulator.swaps) == rows
    with Client(emulator.api_key, base_url=emulator.base_url) as client:
        assert client.me().credits.total == 1000.0 - 2 * rows
    found = entries(journal)
    assert {entry.state for entry in found} == {State.DONE}
    written = {entry.key: {entry.body} for entry in found}
    sent: dict[str, set[bytes]] = {}
    for request in emulator.requests:
        if request.method == "POST":
            sent.setdefault(request.idempotency_key or "", set()).add(request.body)
    assert sent == written
    targets = {json.loads(entry.files or "")["target"]["sha256"] for entry in found}
    assert len(targets) == rows


async def test_each_file_is_uploaded_once(tmp_path: Path) -> None:
    """The face of all rows, and a target that two rows have."""
    face = write_jpeg(tmp_path / "face.jpg")
    rows = [
        {"source": face, "target": write_gif(tmp_path / f"{number}.gif", str(number % 10))}
        for number in range(11)
    ]
    bucket = SmallBucket()
    async with (
        bucket.serve() as server,
        Emulator(duration=0.0, limits=LIMITS) as emulator,
        AsyncClient(
            emulator.api_key, base_url=emulator.base_url, budget=None, files=store_of(server)
        ) as client,
        client.swaps.bulk(rows, journal=tmp_path / "run.sqlite") as outcomes,
    ):
        assert [outcome.ok async for outcome in outcomes] == [True] * 11
    assert bucket.uploads == len(bucket.objects) == 11
    assert CREDENTIALS["secret_access_key"].encode() not in (tmp_path / "run.sqlite").read_bytes()
