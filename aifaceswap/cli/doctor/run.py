"""The command `doctor`: check everything that a call needs, and show the results."""

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
from aifaceswap._validation import Secret
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.doctor import checks
from aifaceswap.cli.doctor.checks import TIMEOUT_SECONDS, Check, Reply, Settings, State, pluralize
from aifaceswap.cli.doctor.redis import check_redis
from aifaceswap.cli.failures import ERROR
from aifaceswap.cli.rendering import Display, note, printable
from aifaceswap.client import AsyncClient
from aifaceswap.emulator import Emulator
from aifaceswap.errors import AIFaceSwapError, APIStatusError
from aifaceswap.models import Account

_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def run_checks(context: CommandContext) -> int:
    """Run all checks, show their results, and return the exit code."""
    results = runtime.run_job(lambda: _run_checks(context))
    if context.shows_table:
        _show(results)
    else:
        found = [attrs.asdict(check, recurse=False) for check in results]
        rendering.write_json({"ok": not _count(results, "problem"), "checks": found})
    return ERROR if _count(results, "problem") else 0


async def _run_checks(context: CommandContext) -> list[Check]:
    with Display("Checking"):
        async with _settings(context) as settings:
            reply = None
            if settings.key_error is None and settings.url_error is None:
                reply = await _fetch_account(settings)
            return [
                checks.check_versions(),
                checks.check_key(context, settings, reply),
                checks.check_base_url(context, settings),
                await checks.check_name(settings),
                await checks.check_tls(settings),
                checks.check_service(context, reply),
                checks.check_clock(reply),
                checks.check_credits(reply),
                checks.check_requests(reply),
                checks.check_proxies(settings, reply),
                *await check_redis(context),
            ]


@asynccontextmanager
async def _settings(context: CommandContext) -> AsyncGenerator[Settings]:
    if context.emulated:
        async with Emulator() as emulator:
            yield Settings.check(emulator.api_key, emulator.base_url, proxy=None)
        return
    key = Secret(os.environ.get(API_KEY_VARIABLE, ""))
    base_url = os.environ.get(BASE_URL_VARIABLE) or _limits.DEFAULT_BASE_URL
    yield Settings.check(key, base_url, proxy=context.proxy or "environment")


async def _fetch_account(settings: Settings) -> Reply:
    """Send GET /me once, without retries that would hide a problem."""
    account, headers, failure = None, None, None
    began = time.monotonic()
    async with AsyncClient(
        settings.key.reveal(),
        base_url=settings.base_url,
        proxy=settings.proxy,
        timeout=TIMEOUT_SECONDS,
        deadline=TIMEOUT_SECONDS,
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


def _show(results: list[Check]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for check in results:
        state = Text(check.state, style=_STYLES.get(check.state, "dim"))
        table.add_row(state, check.name, Text(printable(check.text)))
    rendering.show_table(table)
    for check in results:
        if check.next:
            note(Text.assemble((f"Next, {check.name}:", "bold"), " ", check.next))
    problems, warnings = _count(results, "problem"), _count(results, "warning")
    note(f"{pluralize('problem', problems)}, {pluralize('warning', warnings)}.")


def _count(results: list[Check], state: State) -> int:
    return sum(check.state == state for check in results)
