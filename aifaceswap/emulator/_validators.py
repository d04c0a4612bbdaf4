"""Validators for constructor arguments: they name the field, the value and what is right."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    import attrs

    Validator = Callable[[object, "attrs.Attribute[Any]", Any], None]


_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.%]{2,60}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def number(
    *,
    least: float = 0.0,
    above: float | None = None,
    below: float = math.inf,
    most: float = math.inf,
    optional: bool = False,
) -> Validator:
    """A validator for a finite number in these bounds; `above` takes the place of `least`."""
    wanted = f"at least {least:g}" if above is None else f"greater than {above:g}"
    wanted += f" and less than {below:g}" if below < math.inf else ""
    wanted += f" and at most {most:g}" if most < math.inf else ""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        given = require_number(attribute.name, value)
        fits = given >= least if above is None else given > above
        if not (fits and given < below and given <= most):
            raise ValueError(f"{attribute.name} must be {wanted}; got {value!r}")

    return check


def require_number(name: str, value: object) -> float:
    """Return `value`, or raise unless it is a finite int or float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number; got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number; got {value!r}")
    return value


def integer(*, least: int, most: int | None = None, optional: bool = False) -> Validator:
    """A validator for an int from `least` to `most`."""
    wanted = f"at least {least}" if most is None else f"from {least} to {most}"

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{attribute.name} must be an int; got {value!r}")
        if value < least or (most is not None and value > most):
            raise ValueError(f"{attribute.name} must be {wanted}; got {value!r}")

    return check


def instance(kind: type, wanted: str) -> Validator:
    """A validator for an instance of `kind`, described as `wanted`."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name} must be {wanted}; got {value!r}")

    return check


def all_of(kind: type) -> Validator:
    """A validator for a sequence of instances of `kind`."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, Sequence):
            raise TypeError(f"{attribute.alias} must be a list of {kind.__name__}; got {value!r}")
        for place, item in enumerate(cast("Sequence[object]", value)):
            require_instance(f"{attribute.alias}[{place}]", item, kind)

    return check


def require_instance(name: str, value: object, kind: type) -> None:
    """Raise unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}(...); got {value!r}")


def one_of(*values: str | int | None) -> Validator:
    """A validator for one of these values."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool | float) or value not in values:
            wanted = " or ".join(map(repr, values))
            raise ValueError(f"{attribute.name} must be {wanted}; got {value!r}")

    return check


def boolean(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be True or False; got {value!r}")


def text(*, empty: bool = False, lines: bool = False, optional: bool = False) -> Validator:
    """A validator for a str that UTF-8 can say, on one line unless `lines`."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        if not isinstance(value, str):
            raise TypeError(f"{attribute.name} must be a str; got {value!r}")
        if not value and not empty:
            raise ValueError(f"{attribute.name} must not be empty")
        if not (value.isprintable() or (lines and _is_unicode(value))):
            raise ValueError(f"{attribute.name} must be printable text; got {value!r}")

    return check


def _is_unicode(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def json_object(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for a mapping that JSON can express."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name} must be a dict; got {value!r}")
    _require_json(attribute.name, cast("object", value))


def json_error(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for the `error` of a swap."""
    if not (value is None or isinstance(value, str | Mapping)):
        raise TypeError(f"{attribute.name} must be a dict, a str or None; got {value!r}")
    _require_json(attribute.name, cast("object", value))


def _require_json(name: str, value: object) -> None:
    try:
        json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON: {error}") from None


def names(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for a tuple of names."""
    if not isinstance(value, tuple) or not all(
        isinstance(name, str) for name in cast("tuple[object, ...]", value)
    ):
        raise TypeError(f"{attribute.name} must be a list of names; got {value!r}")


def headers(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for a mapping of header names to values."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name} must be a dict; got {value!r}")
    for name, content in cast("Mapping[object, object]", value).items():
        _require_header_name(attribute.name, name)
        require_header_value(f"{attribute.name}[{name!r}]", content)


def header_names(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for a tuple of header names."""
    if not isinstance(value, tuple):
        raise TypeError(f"{attribute.name} must be a list of header names; got {value!r}")
    for name in cast("tuple[object, ...]", value):
        _require_header_name(attribute.name, name)


def _require_header_name(field: str, name: object) -> None:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{field} must name headers such as 'Retry-After'; got {name!r}")


def require_header_value(field: str, value: object) -> None:
    """Raise unless `value` can stand in a header: Latin-1 on one line."""
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"{field} must be a header's value on one line; got {value!r}")


def header_value(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for what can stand in a header."""
    require_header_value(attribute.name, value)


def retry_after(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for None, seconds of at least 0, or a header's value."""
    if isinstance(value, str):
        require_header_value(attribute.name, value)
    elif value is not None and require_number(attribute.name, value) < 0:
        raise ValueError(f"{attribute.name} must be at least 0; got {value!r}")


def bearer_token(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for an API key; its message never shows the value."""
    require_key(attribute.name, value)


def require_key(name: str, value: object) -> None:
    """Raise unless `value` can stand in an Authorization header."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str; got {type(value).__name__}")
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


def host(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for an address or a name to listen on."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a str; got {value!r}")
    if not _HOST.fullmatch(value):
        raise ValueError(
            f"{attribute.name} must be an address such as '127.0.0.1' or a name; got {value!r}"
        )


def require_origin(name: str, value: object, *, loopback: bool) -> None:
    """Raise unless `value` is None or an origin such as `http://127.0.0.1:8000`."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None; got {value!r}")
    if not _is_origin(value, loopback=loopback):
        where = " on loopback" if loopback else ""
        raise ValueError(
            f"{name} must be an http(s) origin{where} such as 'http://127.0.0.1:8000'; "
            f"got {value!r}"
        )


def origin(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A validator for None or an origin on any host."""
    require_origin(attribute.name, value, loopback=False)


def _is_origin(value: str, *, loopback: bool) -> bool:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 (reading it checks it)
    except ValueError:
        return False
    plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
    name = parts.hostname or ""
    fits = is_loopback(name) if loopback else _HOST.fullmatch(name) is not None
    return parts.scheme in {"http", "https"} and plain and parts.username is None and fits
