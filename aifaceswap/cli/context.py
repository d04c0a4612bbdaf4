"""One run of the command: its flags, and how to resume it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs
import click

PROGRAM = "aifaceswap"
SITE = "https://aifacesswap.com"

_PASSWORD = re.compile(r"(?<=://)[^/@\s]*(?=@)|(?<=[?&]password=)[^&\s]*")


@attrs.define(eq=False)
class CommandContext:
    """What every part of a command knows.

    Attributes:
        arguments: What was typed after the program's name.
        command: The name of the command, ``""`` until it is known.
        emulated: Whether the command runs against a private emulator.
        as_json: Whether JSON was asked for.
        quiet: Whether only data and errors are written.
        verbose: Whether each request is logged.
        proxy: The proxy that was typed.
        redis: The URL of the Redis server that other processes share; None: none.
        files: The store of local files that was typed; None: the one in the environment.
        has_files: Whether the command has uploaded local files.
        idempotency_key: The key of the swap that is created, once it may have been sent.
        resume: The command that continues what has been charged, if there is any.
        longer_timeout: The ``--timeout`` to try next, after one that was too short.
    """

    arguments: Sequence[str]
    command: str = ""
    emulated: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    proxy: str | None = None
    redis: str | None = attrs.field(default=None, repr=False)
    files: str | None = None
    has_files: bool = False
    idempotency_key: str | None = None
    resume: str | None = None
    longer_timeout: str | None = None

    @property
    def shows_table(self) -> bool:
        """Whether data is shown as a table: stdout is a terminal, and JSON was not asked for."""
        return not self.as_json and sys.stdout.isatty()

    def retyped(
        self,
        *options: object,
        emulated: bool | None = None,
        replaced: Mapping[str, str | None] = MappingProxyType({}),
    ) -> str:
        """The command as it was typed, with options after its name that replace earlier ones.

        `replaced` has other words in place of some that were typed.
        """
        left_out = ("--files", *options) if emulated else options
        words = [word for word in _without(self.arguments, left_out) if word != "--emulator"]
        at = words.index(self.command) if self.command in words else 0
        flags = words[:at]
        if self.emulated if emulated is None else emulated:
            flags.insert(0, "--emulator")
        rest = [replaced.get(word, word) for word in words[at + 1 :]]
        return command_line(*flags, *words[at : at + 1], *options, *rest)

    def set_resume(self, *commands: str) -> None:
        """Remember the commands that continue from here, one after the other."""
        # A private emulator ends with the command, and its swaps with it.
        if not self.emulated:
            self.resume = " && ".join(commands)


def current_context() -> CommandContext | None:
    """The context of the command that is running in this thread."""
    running = click.get_current_context(silent=True)
    return None if running is None else running.find_object(CommandContext)


def command_line(*words: object) -> str:
    """One of our commands, ready for a shell; None is left out, and so are passwords in URLs."""
    shown = (_PASSWORD.sub("…", str(word)) for word in words if word is not None)
    return shlex.join([PROGRAM, *shown])


def _without(words: Sequence[str], options: Sequence[object]) -> list[str]:
    """The words without the options that are given again, and without the values of those."""
    names = {str(option) for option in options if str(option).startswith("--")}
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in names:
            skip = True
        elif word.partition("=")[0] not in names:
            kept.append(word)
    return kept
