"""Processes that are killed in the middle of their work."""

from __future__ import annotations

import signal
import subprocess


def kill_after_lines(process: subprocess.Popen[str], lines: int, delay: float) -> None:
    """SIGKILL once so many outcomes were printed and a moment has passed."""
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    process.stdout.close()
