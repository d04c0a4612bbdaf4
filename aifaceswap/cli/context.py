"""One run of the command: its flags, and how far it has come."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

import attrs

PROGRAM = "aifaceswap"
SITE = "https://aifacesswap.com"


@attrs.define(eq=False)
class CommandContext:
    """What every part of a command knows.

    Attributes:
        arguments: What was typed after the program's name.
        command: The name of the command, ``""`` until it is known.
        emulated: Whether the command runs against a private emulator.
        as_json: Whether JSON was asked for.
        idempotency_key: The key of the swap that is created, once it may have been sent.
        resume: The command that goes on with what has been paid, if there is any.
    """

    arguments: Sequence[str]
    command: str = ""
    emulated: bool = False
    as_json: bool = False
    idempotency_key: str | None = None
    resume: str | None = None

    @property
    def shows_table(self) -> bool:
        """Whether data is shown as a table: nobody asked for JSON, and stdout is a terminal."""
        return not self.as_json and sys.stdout.isatty()

    def retyped(self, *options: str, emulated: bool | None = None) -> str:
        """The command as it was typed, ready for a shell."""
        at = self.arguments.index(self.command) if self.command in self.arguments else 0
        flags = [word for word in self.arguments[:at] if word != "--emulator"]
        if self.emulated if emulated is None else emulated:
            flags.insert(0, "--emulator")
        rest = [word for word in self.arguments[at:] if word != "--emulator"]
        return command_line(*flags, *rest[:1], *options, *rest[1:])

    def set_resume(self, *commands: str) -> None:
        """Remember what goes on from here, where there is something to go on with."""
        # A private emulator ends with the command, and its swaps with it.
        if not self.emulated:
            self.resume = " && ".join(commands)


def command_line(*words: object) -> str:
    """A command of ours, ready for a shell."""
    return shlex.join([PROGRAM, *(str(word) for word in words if word is not None)])
