"""The checks of `doctor` for the Redis server of `--redis`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aifaceswap.cli import shared
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.doctor.checks import Check
from aifaceswap.cli.failures import CommandError, format_duration

if TYPE_CHECKING:
    from aifaceswap.redis._probe import ServerReport

_NOTABLE_SKEW = 30.0
_KEEPS_ALL = "noeviction"
_OLDEST = (6, 2)


async def check_redis(context: CommandContext) -> Sequence[Check]:
    """Whether the server can be used, and how well; no checks without ``--redis``."""
    if context.redis is None:
        return ()
    try:
        report = await shared.inspect(context.redis)
    except CommandError as error:
        skipped = (
            Check(f"Redis {name}", "skipped", "needs a connection to Redis")
            for name in ("clock", "memory", "ACL")
        )
        return (Check("Redis", "problem", error.message, error.advice), *skipped)
    return judge(context.redis, report)


def judge(url: str, report: ServerReport) -> Sequence[Check]:
    """What a report means."""
    return (
        _check_server(url, report),
        _check_clock(report),
        _check_memory(report),
        _check_permissions(url, report),
    )


def _check_server(url: str, report: ServerReport) -> Check:
    text = f"{shared.name_of(url)} responded in {report.seconds * 1000:,.1f} ms"
    data = {"version": report.version, "seconds": round(report.seconds, 4)}
    numbers = [int(part) for part in report.version.split(".")[:2] if part.isdecimal()]
    if numbers and tuple(numbers) < _OLDEST:
        advice = "use Redis 6.2 or newer, or Valkey"
        return Check("Redis", "warning", f"{text}; version {report.version}", advice, data)
    return Check("Redis", "ok", f"{text}; version {report.version or 'unknown'}", data=data)


def _check_clock(report: ServerReport) -> Check:
    data = {"skew_seconds": round(report.skew, 1)}
    if abs(report.skew) <= _NOTABLE_SKEW:
        return Check(
            "Redis clock", "ok", f"within {_NOTABLE_SKEW:g} s of this machine's", data=data
        )
    off = f"{format_duration(abs(report.skew))} {'ahead of' if report.skew > 0 else 'behind'}"
    text = f"{off} this machine's; the daily limit follows the clock of Redis"
    return Check("Redis clock", "warning", text, "set the clock of the wrong machine", data)


def _check_memory(report: ServerReport) -> Check:
    data = {"policy": report.policy, "max_bytes": report.max_memory}
    if report.policy is None:
        return Check("Redis memory", "skipped", "INFO is not permitted", data=data)
    text = f"eviction policy {report.policy}"
    if report.policy != _KEEPS_ALL:
        text += "; a full server can forget slots and requests, which leads to 429s"
        advice = f"use a server of its own with: maxmemory-policy {_KEEPS_ALL}"
        return Check("Redis memory", "warning", text, advice, data)
    return Check("Redis memory", "ok", text, data=data)


def _check_permissions(url: str, report: ServerReport) -> Check:
    data = {"denied": list(report.denied)}
    if report.denied:
        text, advice = shared.denied(url, report)
        return Check("Redis ACL", "problem", text, advice, data)
    return Check("Redis ACL", "ok", "all commands that are needed", data=data)
