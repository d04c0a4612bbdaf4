"""Collects the template of a bulk run's report."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[2]

datas = [(str(_PACKAGE / "cli/bulk/report.html"), "aifaceswap/cli/bulk")]
