"""JSON to values and back, through one cattrs converter.

Reading is strict about the types that the contract documents and keeps what it does not
know. A value of the wrong shape is a `ShapeError` that names the JSON path.
"""

from __future__ import annotations

import json
import logging
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from math import isinf
from operator import eq
from types import MappingProxyType, NoneType
from typing import Any, NoReturn, TypeVar, get_type_hints

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from aifaceswap._limits import SWAP_COMPLETED, SWAP_FAILED
from aifaceswap.errors import short_repr
from aifaceswap.models import SwapPage, SwapRequest, SwapStatus, SwapType, WebhookEvent

T = TypeVar("T")

_log = logging.getLogger("aifaceswap")

# Which of these holds the items of a page is not documented.
_PAGE_FIELDS = ("data", "swaps", "items")
#: The events of a finished swap, and the status that each stands for.
FINAL_STATUSES: Mapping[str, SwapStatus] = MappingProxyType(
    {SWAP_COMPLETED: SwapStatus.DONE, SWAP_FAILED: SwapStatus.FAILED}
)


class NotJSONError(ValueError):
    """The bytes are not valid JSON."""


class ShapeError(ValueError):
    """The JSON does not have the expected shape; the message names the path."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError(f"{short_repr(text)} is too large")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def loads(body: bytes) -> Any:
    """Decode strict JSON in UTF-8, without NaN and Infinity; raises only `NotJSONError`."""
    try:
        return _decoder.decode(body.removeprefix(BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        raise NotJSONError(str(error)) from None


def dumps(value: object) -> bytes:
    """Encode a value as compact ASCII JSON; raises ValueError or TypeError if it cannot be."""
    try:
        return _encoder.encode(_converter.unstructure(value)).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None


def structure(value: object, into: type[T]) -> T:
    """Make a value of a type from decoded JSON; raises `ShapeError` naming each JSON path."""
    try:
        return _converter.structure(value, into)
    except Exception as error:  # cattrs lets through whatever a hook raises
        reasons = cattrs.transform_error(error, path="$", format_exception=_describe)
        raise ShapeError("; ".join(reasons)) from None


def unstructure(value: object) -> Any:
    """Make plain JSON data from a value, including its unknown fields."""
    return _converter.unstructure(value)


def _describe(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error) or type(error).__name__


def _expect(*kinds: type, name: str) -> Callable[[Any, Any], Any]:
    """A hook that accepts values of these exact types."""

    def hook(value: Any, _: Any) -> Any:
        if type(value) in kinds:
            return value
        raise ShapeError(f"expected {name}, got {_brief(value)}")

    return hook


def _brief(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}…"  # noqa: PLR2004 - one line of a message


def _open_enum(members: type[SwapStatus | SwapType]) -> Callable[[Any, Any], Any]:
    """A hook that makes a known string a member of the enum and keeps any other string."""
    known = {member.value: member for member in members}

    def hook(value: Any, _: Any) -> Any:
        if type(value) is str:
            return known.get(value, value)
        raise ShapeError(f"expected a string, got {_brief(value)}")

    return hook


def _optional(hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, kind: None if value is None else hook(value, kind)


def _datetime(value: Any, _: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ShapeError(f"expected an ISO 8601 time, got {_brief(value)}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _write_datetime(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _keeping_extra(cls: type[Any]) -> Callable[[Any, Any], Any]:
    """A hook for a class that keeps unknown and unreadable optional fields in its `extra`."""
    read = make_dict_structure_fn(cls, _converter, extra=override(omit=True))
    known = {field.name for field in attrs.fields(cls)} - {"extra"}
    mapping = _expect(dict, name="an object")

    def hook(value: Any, _: Any) -> Any:
        fields = mapping(value, dict)
        try:
            result = read(fields, cls)
            kept = fields.keys() - known
        except Exception:  # as in `structure`
            odd = _unreadable_fields(cls, fields)
            if not odd:
                raise
            result = read({name: fields[name] for name in fields.keys() - odd}, cls)
            _log.warning(
                "%s %s: unexpected form of %s; kept as it is in extra",
                cls.__name__,
                short_repr(fields.get("id", "")),
                ", ".join(sorted(odd)),
            )
            kept = (fields.keys() - known) | odd
        return attrs.evolve(result, extra={n: fields[n] for n in kept}) if kept else result

    return hook


def _unreadable_fields(cls: type[Any], fields: Mapping[str, Any]) -> set[str]:
    """The optional fields of a class that are not of the documented type."""
    types = get_type_hints(cls)
    odd = set[str]()
    for field in attrs.fields(cls):
        if field.default is attrs.NOTHING or field.name == "extra" or field.name not in fields:
            continue
        try:
            _converter.structure(fields[field.name], types[field.name])
        except Exception:  # as in `structure`
            odd.add(field.name)
    return odd


def _spreading_extra(cls: type[Any]) -> Callable[[Any], dict[str, Any]]:
    """The inverse of `_keeping_extra`: the fields in `extra` are written beside the others."""
    write = make_dict_unstructure_fn(cls, _converter, extra=override(omit=True))
    return lambda value: {**write(value), **value.extra}


def _leaving_out_defaults(cls: type[Any]) -> Callable[[Any], dict[str, Any]]:
    return make_dict_unstructure_fn(
        cls,
        _converter,
        _cattrs_omit_if_default=True,
        # In this order: bulk runs recognise their rows by the body.
        source_url=override(omit_if_default=False),
        target_url=override(omit_if_default=False),
        type=override(omit_if_default=False),
        source=override(omit=True),
        target=override(omit=True),
    )


@cache
def _plain_reader(cls: type[Any]) -> Callable[[Any, Any], Any]:
    """The hook that cattrs generates for a class."""
    return make_dict_structure_fn(cls, _converter)


def _page(value: Any, _: Any) -> SwapPage:
    fields = _expect(dict, name="an object")(value, dict)
    name = next((name for name in _PAGE_FIELDS if isinstance(fields.get(name), list)), None)
    if name is None:
        raise ShapeError(f"expected a list in one of {', '.join(_PAGE_FIELDS)}")
    known = {"data": fields[name], "next_cursor": fields.get("next_cursor")}
    page: SwapPage = _plain_reader(SwapPage)(known, SwapPage)
    return page


def _event(value: Any, _: Any) -> WebhookEvent:
    fields = _expect(dict, name="an object")(value, dict)
    named = fields.get("event")
    swap = {name: fields[name] for name in fields if name != "event"}
    if "id" not in swap and isinstance(swap.get("data"), dict):
        swap = dict(swap["data"])
    # A delivery is signed: it counts whatever it calls the swap and the status.
    if type(swap.get("id")) is int:
        swap["id"] = str(swap["id"])
    if not isinstance(swap.get("status"), str):
        swap["status"] = str(FINAL_STATUSES.get(named, "") if isinstance(named, str) else "")
    event: WebhookEvent = _plain_reader(WebhookEvent)({"event": named, "swap": swap}, WebhookEvent)
    return event


def _has_extra(cls: Any) -> bool:
    return attrs.has(cls) and hasattr(attrs.fields(cls), "extra")


def _build_converter() -> cattrs.Converter:
    # Hooks of classes are factories: each is generated at its first use, not at import.
    converter = cattrs.Converter()
    mapping = _expect(dict, name="an object")
    for kind, hook in {
        str: _expect(str, name="a string"),
        float: _expect(float, int, name="a number"),
        int: _expect(int, name="a whole number"),
        bool: _expect(bool, name="true or false"),
        dict: mapping,
        list: _expect(list, name="a list"),
        datetime: _datetime,
        SwapPage: _page,
        WebhookEvent: _event,
    }.items():
        converter.register_structure_hook(kind, hook)
    for union, hook in {
        SwapStatus | str: _open_enum(SwapStatus),
        SwapType | str | None: _optional(_open_enum(SwapType)),
        str | None: _expect(str, NoneType, name="a string"),
        float | None: _expect(float, int, NoneType, name="a number"),
        datetime | None: _optional(_datetime),
        Mapping[str, Any]: mapping,
        Mapping[str, Any] | None: _expect(dict, NoneType, name="an object"),
    }.items():
        converter.register_structure_hook_func(partial(eq, union), hook)
    converter.register_structure_hook_factory(_has_extra, _keeping_extra)
    converter.register_unstructure_hook_factory(_has_extra, _spreading_extra)
    converter.register_unstructure_hook(datetime, _write_datetime)
    converter.register_unstructure_hook_factory(partial(eq, SwapRequest), _leaving_out_defaults)
    return converter


_converter = _build_converter()
