"""The examples with several processes, each as its page says: one command, with its own Redis."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from process.examples.apps import EXAMPLES
from support.commands import environment
from support.redis_server import ADVICE, PROGRAM

NEEDS = {
    "celery_rows": ("celery", "redis"),
    "taskiq_rows": ("taskiq", "taskiq_redis"),
    "workers_app": ("fastapi", "gunicorn", "redis", "uvicorn"),
    "many_keys": ("redis",),
}
ONLY_IN_CRASHES = pytest.mark.skipif(
    "AIFACESWAP_WORKER_ROWS" not in os.environ, reason="takes long: nox -s crashes"
)
# Workers load for seconds on a busy machine, and their rows take seconds.
TIMEOUT = 150


def require(name: str) -> None:
    """Skip where a package or a Redis server is not installed."""
    missing = [module for module in NEEDS[name] if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    if PROGRAM is None:
        pytest.skip(ADVICE)


def start(name: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *options],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(name: str, folder: Path, *options: str) -> str:
    require(name)
    process = start(name, folder, "--emulator", "--duration", "1", *options)
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    assert "Traceback" not in output, output
    return output


@pytest.mark.timeout(TIMEOUT + 10)
@pytest.mark.parametrize(
    ("name", "rows"), [("celery_rows", 12), ("taskiq_rows", 12), ("many_keys", 24)]
)
def test_each_row_is_one_swap(name: str, rows: int, tmp_path: Path) -> None:
    """One command, from rows to results, without a rejected request."""
    output = output_of(name, tmp_path)
    done = re.findall(r"^row (\d+): http://\S+$", output, re.MULTILINE)

    assert len(set(done)) == rows, output
    assert output.splitlines()[-1] == f"{rows} rows, {rows} swaps, 0 responses of 429"


@pytest.mark.timeout(TIMEOUT + 10)
@pytest.mark.parametrize("server", ["gunicorn", pytest.param("uvicorn", marks=ONLY_IN_CRASHES)])
def test_four_workers_share_deliveries(server: str, tmp_path: Path) -> None:
    """Each delivery is handled once, by any worker, and ends the wait in another one."""
    output = output_of("workers_app", tmp_path, "--server", server)
    handled = Counter(re.findall(r"worker \d+: (tsk_[0-9a-f]+) is done", output))

    assert output.splitlines()[-1] == "8 rows, 8 swaps, 0 responses of 429"
    assert len(handled) == 8, output
    assert set(handled.values()) == {1}


def test_without_the_emulator_it_says_what_to_do(tmp_path: Path) -> None:
    """The programs are demonstrations; a key needs the commands of the page."""
    require("many_keys")
    process = start("many_keys", tmp_path)
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 2
    assert "use --emulator" in output


def test_ctrl_c_stops_all_processes(tmp_path: Path) -> None:
    """Nothing is left running."""
    require("many_keys")
    process = start("many_keys", tmp_path, "--emulator", "--duration", "60")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Emulator at http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 130, output
    assert "Traceback" not in output, output
