"""Collects the emulator's page and its OpenAPI description."""

from __future__ import annotations

from pathlib import Path

_EMULATOR = Path(__file__).parent.parent

datas = [
    (str(_EMULATOR / name), str(Path("aifaceswap/emulator", name).parent))
    for name in ("_control/page.html", "_service/openapi.json")
]
