"""Options that several commands have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from aifaceswap.cli.session import Session

Function = TypeVar("Function", bound=Callable[..., Any])


class Finite(click.FloatRange):
    """A number in a range; `inf` and `nan` are none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number; see `click.ParamType.convert`."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def json_option(function: Function) -> Function:
    """Give a command the option ``--json``."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_ask_for_json,
        help="Write JSON on a terminal, too.",
    )(function)


def point_to_the_service(session: Session) -> None:
    """After a command against a private emulator, say how to do the same with a key."""
    if session.emulated:
        from aifaceswap.cli.rendering import note_the_real_thing  # noqa: PLC0415 - loads rich

        note_the_real_thing(session)


def _ask_for_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).as_json = True
