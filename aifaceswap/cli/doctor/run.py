"""`doctor`: everything that a call needs, looked at, and shown."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
from rich.table import Table
from rich.text import Text

from aifaceswap import _limits
from aifaceswap._limits import API_KEY_VARIABLE, BASE_URL_VARIABLE
from aifaceswap.cli import jobs, rendering
from aifaceswap.cli.context import Session
from aifaceswap.cli.doctor import checks as look
from aifaceswap.cli.doctor.checks import PATIENCE, Check, Reply, Settings, State, counted
from aifaceswap.cli.failures import ERROR
from aifaceswap.cli.rendering import Display, note, printable
from aifaceswap.client import AsyncClient
from aifaceswap.emulator import Emulator
from aifaceswap.errors import AIFaceSwapError, APIStatusError
from aifaceswap.models import Account

_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def examine(session: Session) -> int:
    """Look at everything, and show what was found.

    Args:
        session: The command.

    Returns:
        The exit code: 0 if there is no problem.
    """
    checks = jobs.start(lambda: _examine(session))
    if session.is_for_people:
        _show(checks)
    else:
        found = [attrs.asdict(check, recurse=False) for check in checks]
        rendering.write_json({"ok": not _count(checks, "problem"), "checks": found})
    return ERROR if _count(checks, "problem") else 0


async def _examine(session: Session) -> list[Check]:
    with Display("Examining"):
        async with _settings(session) as settings:
            reply = None
            if settings.key_fault is None and settings.url_fault is None:
                reply = await _ask(settings)
            return [
                look.at_versions(),
                look.at_key(session, settings, reply),
                look.at_base_url(session, settings),
                await look.at_name(settings),
                await look.at_tls(settings),
                look.at_service(session, reply),
                look.at_clock(reply),
                look.at_credits(reply),
                look.at_requests(reply),
                look.at_proxies(reply),
            ]


@asynccontextmanager
async def _settings(session: Session) -> AsyncGenerator[Settings]:
    if session.emulated:
        async with Emulator() as emulator:
            yield Settings.of(emulator.api_key, emulator.base_url)
        return
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    yield Settings.of(key, os.environ.get(BASE_URL_VARIABLE) or _limits.DEFAULT_BASE_URL)


async def _ask(settings: Settings) -> Reply:
    """GET /me, once: no retry hides what is wrong."""
    account, headers, failure = None, None, None
    began = time.monotonic()
    async with AsyncClient(
        settings.key,
        base_url=settings.base_url,
        timeout=PATIENCE,
        deadline=PATIENCE,
        max_retries=0,
        budget=None,
    ) as client:
        try:
            response = await client.request("GET", "/me", into=Account)
            account, headers = response.value, response.headers
        except AIFaceSwapError as error:
            failure = error
            headers = error.headers if isinstance(error, APIStatusError) else None
        took = time.monotonic() - began
        return Reply(took, time.time(), account, headers or {}, failure)


def _show(checks: list[Check]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for check in checks:
        state = Text(check.state, style=_STYLES.get(check.state, "dim"))
        table.add_row(state, check.name, Text(printable(check.text)))
    rendering.show_table(table)
    for check in checks:
        if check.next:
            note(Text.assemble((f"Next, {check.name}:", "bold"), " ", check.next))
    problems, warnings = _count(checks, "problem"), _count(checks, "warning")
    note(f"{counted('problem', problems)}, {counted('warning', warnings)}.")


def _count(checks: list[Check], state: State) -> int:
    return sum(check.state == state for check in checks)
