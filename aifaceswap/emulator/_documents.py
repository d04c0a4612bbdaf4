"""TOML and JSON written by people become values, or an error that names the field.

Loads cattrs, which the emulator does not need until a file or a control request comes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, TypeAlias, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import ForbiddenExtraKeysError

from aifaceswap.emulator._actions import ACTIONS, Action

T = TypeVar("T")

#: Where in a document: keys of objects and places in lists.
Path: TypeAlias = "tuple[str | int, ...]"

_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\['([^']*)'\]")
_WORD = re.compile(r"\w+")
_LONGEST = 60
_LARGEST = 1e15
_UNKNOWN = "is not known here"


class FieldError(ValueError):
    """What is wrong with a document, and where."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return f"{where.removeprefix('.')}: {self.message}" if where else self.message


def read_toml(text: bytes, into: type[T], name: str) -> T:
    """Read a value from TOML; a `ValueError` begins with `name` and names the field."""
    source = _decode(text, name)
    try:
        value = tomllib.loads(source)
    except RecursionError:
        raise ValueError(f"{name}: is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return _structure_file(value, into, name)


def read_json(text: bytes, into: type[T], name: str) -> T:
    """Read a value from JSON; a `ValueError` begins with `name` and names the field."""
    source = _decode(text, name)
    try:
        value: object = json.loads(source, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: must be JSON: {error}") from None
    return _structure_file(value, into, name)


def _structure_file(value: object, into: type[T], name: str) -> T:
    try:
        return structure(value, into)
    except FieldError as error:
        raise ValueError(f"{name}: {error}") from None


def _decode(text: bytes, name: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{name}: must be UTF-8") from None


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def structure(value: object, into: type[T]) -> T:
    """Turn decoded JSON or TOML into a value of a type, or raise `FieldError`."""
    try:
        return _converter().structure(value, into)
    except Exception as error:  # cattrs lets through whatever a hook raises
        flaws = cattrs.transform_error(error, "$", _describe)
        # A misspelt field is often missing, too: what was written says more.
        worst = next((flaw for flaw in flaws if _UNKNOWN in flaw), flaws[0])
        message, _, place = worst.rpartition(" @ $")
        path = _to_path(place)
        # Errors of a class are about one of its fields, and begin with its name.
        field = _WORD.match(message)
        if field and field[0] in _fields_at(value, path):
            raise FieldError((*path, field[0]), message[field.end() :].strip()) from None
        raise FieldError(path, message) from None


def _to_path(text: str) -> Path:
    return tuple(int(place) if place else name or key for name, place, key in _STEP.findall(text))


def _fields_at(value: Any, path: Path) -> Mapping[str, object]:
    with contextlib.suppress(LookupError, TypeError):
        for step in path:
            value = value[step]
        if isinstance(value, dict):
            return cast("Mapping[str, object]", value)
    return {}


def _describe(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "is missing"
    if isinstance(error, ForbiddenExtraKeysError):
        known = ", ".join(field.name for field in attrs.fields(error.cl))
        return f"{min(error.extra_fields)} {_UNKNOWN}; known are {known}"
    return str(error)


# --- the converter -------------------------------------------------------------------------

_Hook: TypeAlias = Callable[[Any, Any], Any]


def _expect(name: str, *kinds: type) -> _Hook:
    def hook(value: Any, _: Any) -> Any:
        if type(value) in kinds:
            return value
        raise TypeError(f"must be {name}; got {_brief(value)}")

    return hook


def _read_number(value: Any, _: Any) -> float:
    if type(value) not in {int, float} or not abs(value) < _LARGEST:
        raise TypeError(f"must be a number; got {_brief(value)}")
    return cast("float", value)


def _brief(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _read_action(value: Any, _: Any) -> Any:
    given = {"action": value} if isinstance(value, str) else value
    _expect("an object with an action, such as { action = 'drop' }", dict)(given, dict)
    action = given.get("action")
    if not isinstance(action, str) or action not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}; got {_brief(action)}")
    fields = {name: field for name, field in given.items() if name != "action"}
    return _converter().structure(fields, ACTIONS[action])


def _checking_shape(converter: cattrs.Converter, cls: type[Any]) -> _Hook:
    """A hook that wants lists where the class has lists: cattrs takes whatever it can iterate."""
    read = cattrs.gen.make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
    attrs.resolve_types(cls)
    lists = [field.name for field in attrs.fields(cls) if get_origin(field.type) in {list, tuple}]
    mappings = [field.name for field in attrs.fields(cls) if get_origin(field.type) is Mapping]
    mapping = _expect("an object", dict)

    def hook(value: Any, _: Any) -> Any:
        mapping(value, dict)
        for names, kind, wanted in ((lists, list, "a list"), (mappings, dict, "an object")):
            for name in names:
                if name in value and not isinstance(value[name], kind):
                    raise TypeError(f"{name} must be {wanted}; got {_brief(value[name])}")
        return read(value, cls)

    return hook


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, omit_if_default=True)
    for kind, hook in {
        str: _expect("a string", str),
        int: _expect("an integer", int),
        float: _read_number,
        bool: _expect("true or false", bool),
    }.items():
        converter.register_structure_hook(kind, hook)
    for union, hook in {
        float | str | None: _expect("a number or a string", float, int, str, NoneType),
        dict[str, Any] | None: _expect("an object", dict, NoneType),
        Action: _read_action,
    }.items():
        converter.register_structure_hook_func(functools.partial(_is, union), hook)
    converter.register_structure_hook_factory(
        attrs.has, functools.partial(_checking_shape, converter)
    )
    return converter


def _is(union: object, kind: object) -> bool:
    return kind == union and set(get_args(kind)) == set(get_args(union))
