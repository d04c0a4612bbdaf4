"""Files that people write: TOML and JSON become values, or an error that names line and field.

Loads cattrs, which the emulator can do without until a file comes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, Final, TypeAlias, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import ForbiddenExtraKeysError

from aifaceswap.emulator.faults import ACTIONS, Action, Fault

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


@attrs.frozen
class _Script:
    fault: list[Fault] = attrs.field(factory=list[Fault])


def read_script(text: bytes, name: str) -> tuple[Fault, ...]:
    """Faults from TOML with `[[fault]]` tables.

    Raises:
        ValueError: The message begins with `name`, and names the line and the field.
    """
    source = _decode(text, name)
    try:
        value = tomllib.loads(source)
    except RecursionError:
        raise ValueError(f"{name}: is nested too deep") from None
    except ValueError as error:
        end = f"at line {source.count(chr(10)) + 1}, the end"
        raise ValueError(f"{name}: {error}".replace("at end of document", end)) from None
    try:
        return tuple(structure(value, _Script).fault)
    except FieldError as error:
        raise _report(error, name, _find_toml_line(source, error.path)) from None


def read_json(
    text: bytes, into: type[T], name: str, check: Callable[[object], None] = lambda _: None
) -> T:
    """A value from JSON.

    Args:
        text: The file.
        into: The type of the value.
        name: What the error calls the file.
        check: Looks at what the JSON says before its shape is checked; may raise a `FieldError`.

    Raises:
        ValueError: The message begins with `name`, and names the line and the field.
    """
    source = _decode(text, name)
    try:
        value: object = json.loads(source, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}, line {error.lineno}: is no JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: is no JSON: {error}") from None
    try:
        check(value)
        return structure(value, into)
    except FieldError as error:
        raise report_json(error, source, name) from None


def report_json(error: FieldError, source: str, name: str) -> ValueError:
    """The error for a flaw of a JSON document."""
    return _report(error, name, find_json_line(source, error.path))


def _report(error: FieldError, name: str, line: int) -> ValueError:
    return ValueError(f"{name}, line {line}: {error}")


def _decode(text: bytes, name: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}, line {line}: is not UTF-8") from None


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def structure(value: object, into: type[T]) -> T:
    """A value of a type from what JSON or TOML says.

    Raises:
        FieldError: It is of another shape.
    """
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


# --- the lines of fields -------------------------------------------------------------------


def _find_toml_line(source: str, path: Path) -> int:
    """Where the field, or what holds it, ends: in the first lines that together have it."""
    lines = source.splitlines()
    found = (
        number
        for end in range(len(path), 0, -1)
        for number in range(1, len(lines) + 1)
        if _has("\n".join(lines[:number]), path[:end])
    )
    return next(found, 1)


def _has(source: str, path: Path) -> bool:
    with contextlib.suppress(ValueError, LookupError, TypeError):
        value: Any = tomllib.loads(source)
        for step in path:
            value = value[step]
        return True
    return False


_BLANK: Final = re.compile(r"[ \t\r\n,:]*")
_raw_decode = json.JSONDecoder().raw_decode


def find_json_line(source: str, path: Path) -> int:
    """Where the field, or what holds it, begins; the first line is 1."""
    place = _skip(source, 0)
    for step in path:
        found = _find_member(source, place, step)
        if found is None:
            break
        place = found
    return source.count("\n", 0, place) + 1


def _find_member(source: str, place: int, step: str | int) -> int | None:
    """Where the member of the object or list at `place` begins, or None without such a one."""
    is_object, number = source[place] == "{", 0
    if source[place] not in "[{":
        return None
    place = _skip(source, place + 1)
    while source[place] not in "]}":
        key: str | int = number
        if is_object:
            key, place = _raw_decode(source, place)
            place = _skip(source, place)
        if key == step:
            return place
        place, number = _skip(source, _raw_decode(source, place)[1]), number + 1
    return None


def _skip(source: str, place: int) -> int:
    match = _BLANK.match(source, place)
    return match.end() if match else place


# --- the converter -------------------------------------------------------------------------

_Hook: TypeAlias = Callable[[Any, Any], Any]


def _expect(name: str, *kinds: type) -> _Hook:
    def hook(value: Any, _: Any) -> Any:
        if type(value) in kinds:
            return value
        raise TypeError(f"must be {name}, not {_brief(value)}")

    return hook


def _read_number(value: Any, _: Any) -> float:
    if type(value) not in {int, float} or not abs(value) < _LARGEST:
        raise TypeError(f"must be a number, not {_brief(value)}")
    return cast("float", value)


def _brief(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _read_action(value: Any, _: Any) -> Any:
    given = {"action": value} if isinstance(value, str) else value
    _expect("an object with an action, such as { action = 'drop' }", dict)(given, dict)
    action = given.get("action")
    if not isinstance(action, str) or action not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, not {_brief(action)}")
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
                    raise TypeError(f"{name} must be {wanted}, not {_brief(value[name])}")
        return read(value, cls)

    return hook


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, omit_if_default=True)
    for kind, hook in {
        str: _expect("a string", str),
        int: _expect("a whole number", int),
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


def unstructure(value: object) -> Any:
    """What JSON says for one of our values, without what is as by default."""
    return _converter().unstructure(value)
