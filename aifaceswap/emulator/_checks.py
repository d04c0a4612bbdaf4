"""Validators for constructor arguments: they name the field, the value and what is right."""

from __future__ import annotations

import ipaddress
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    import attrs

    Validator = Callable[[object, "attrs.Attribute[Any]", Any], None]


def number(
    *,
    least: float = 0.0,
    above: float | None = None,
    optional: bool = False,
) -> Validator:
    """A validator for a finite number of at least `least`, or greater than `above`."""
    wanted = f"at least {least:g}" if above is None else f"greater than {above:g}"

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        require_number(attribute.name, value)
        fits = value >= least if above is None else value > above  # type: ignore[operator]
        if not fits:
            raise ValueError(f"{attribute.name} must be {wanted}, not {value!r}")

    return check


def require_number(name: str, value: object) -> None:
    """Raise unless `value` is a finite int or float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")


def whole(*, least: int, most: int | None = None, optional: bool = False) -> Validator:
    """A validator for an int from `least` to `most`."""
    wanted = f"at least {least}" if most is None else f"from {least} to {most}"

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{attribute.name} must be an int, not {value!r}")
        if value < least or (most is not None and value > most):
            raise ValueError(f"{attribute.name} must be {wanted}, not {value!r}")

    return check


def instance(kind: type, wanted: str) -> Validator:
    """A validator for an instance of `kind`, described as `wanted`."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name} must be {wanted}, not {value!r}")

    return check


def bearer_token(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for an API key; its message never shows the value."""
    require_key(attribute.name, value)


def require_key(name: str, value: object) -> None:
    """Raise unless `value` can stand in an Authorization header."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value or not all("!" <= character <= "~" for character in value):
        raise ValueError(f"{name} must be visible ASCII without spaces")


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def loopback_host(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for a host that only this machine reaches."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a str, not {value!r}")
    if not is_loopback(value):
        raise ValueError(
            f"{attribute.name} must be a loopback address such as '127.0.0.1', not {value!r}"
        )


def loopback_origin(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for None or an origin such as `http://127.0.0.1:8000`."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a str or None, not {value!r}")
    if not _is_loopback_origin(value):
        raise ValueError(
            f"{attribute.name} must be an http(s) origin on loopback such as "
            f"'http://127.0.0.1:8000', not {value!r}"
        )


def _is_loopback_origin(value: str) -> bool:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 (reading it checks it)
    except ValueError:
        return False
    plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
    named = parts.username is None and is_loopback(parts.hostname or "")
    return parts.scheme in {"http", "https"} and plain and named
