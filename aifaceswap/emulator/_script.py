"""Settings and faults as files and control requests write them. Loads cattrs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from aifaceswap.emulator._documents import read_json, read_toml
from aifaceswap.emulator.faults import Fault
from aifaceswap.emulator.limits import Limits
from aifaceswap.emulator.settings import Idempotency, Lag, ResultLinks

if TYPE_CHECKING:
    from aifaceswap.emulator.settings import Settings

_ABSENT: Final[Any] = object()


@attrs.frozen
class SettingsTable:
    """The settings that a document names; the others are absent."""

    credits: float = _ABSENT
    limits: Limits | None = _ABSENT
    duration: float = _ABSENT
    spread: float = _ABSENT
    deliver_to: str | None = _ABSENT
    idempotency: Idempotency = _ABSENT
    lag: Lag = _ABSENT
    prices: Mapping[str, float] = _ABSENT
    result_ttl: float = _ABSENT
    result_links: ResultLinks = _ABSENT

    def present(self) -> Settings:
        """Return the settings that are named."""
        named = attrs.asdict(self, recurse=False).items()
        return cast("Settings", {name: value for name, value in named if value is not _ABSENT})


@attrs.frozen
class SettingsWithFaults(SettingsTable):
    """The settings that a control request names, and the faults."""

    faults: list[Fault] = _ABSENT


@attrs.frozen
class _Script:
    fault: list[Fault] = attrs.field(factory=list[Fault])
    settings: SettingsTable = attrs.field(factory=SettingsTable)


def read_settings(body: bytes, name: str) -> Settings:
    """Read the settings of a control request; an empty body names none."""
    if not body.strip():
        return {}
    return read_json(body, SettingsWithFaults, name).present()


def read_script(text: bytes, name: str) -> Settings:
    """Read a TOML file with a `[settings]` table and `[[fault]]` tables."""
    script = read_toml(text, _Script, name)
    return {**script.settings.present(), "faults": script.fault}
