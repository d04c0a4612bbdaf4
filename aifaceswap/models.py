"""The values that go to the service and come from it: frozen, typed, checked.

What goes out is checked when it is made, by the rules of the API contract; what comes in is
kept: statuses, types and fields that are new to this package are passed on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from operator import index
from typing import IO, Any, Generic, Self, SupportsIndex, TypeAlias, TypeVar, cast

import attrs

from aifaceswap import _validation
from aifaceswap.errors import InvalidRequestError, short_repr

#: What can be published: a path, the bytes, or an open binary file; a string may be a URL.
FileSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]

T = TypeVar("T")


def _no_fields() -> dict[str, Any]:
    return {}


class SwapType(StrEnum):
    """What the target of a swap is."""

    IMAGE = "image"
    GIF = "gif"


class SwapStatus(StrEnum):
    """How far a swap has come.

    The service may add statuses at any time: a status that is not listed here appears as a
    plain string. ``Swap.is_finished`` knows how to read them.
    """

    QUEUED = "queued"
    PREPARING = "preparing"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"


def _file_url(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _validation.file_url(attribute.name, value)


def _file_source(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _validation.file_source(attribute.name, value)


def _optional_public_url(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _validation.public_url(attribute.name, value)


def _swap_type(value: SwapType | str | None) -> SwapType | None:
    if value is None:
        return None
    try:
        return SwapType(value)
    except ValueError:
        raise InvalidRequestError.for_field("type", value, 'must be "image" or "gif"') from None


def _face_index(value: object) -> int | None:
    if value is None:
        return None
    # Also the integers of numpy and pandas.
    if isinstance(value, SupportsIndex) and not isinstance(value, bool) and index(value) >= 0:
        return index(value)
    reason = "must be a whole number, 0 or more"
    raise InvalidRequestError.for_field("target_face_index", value, reason)


def _optional_bool(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise InvalidRequestError.for_field(attribute.name, value, "must be True or False")


def _metadata(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if value is None else _json_object(value)


def _json_object(value: object) -> dict[str, Any]:
    """A copy, as JSON says it: what the caller changes later has no part in it."""
    if not isinstance(value, Mapping):
        raise InvalidRequestError.for_field("metadata", value, "must be a mapping with string keys")
    given = cast("Mapping[object, object]", value)
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(given), allow_nan=False))
        # JSON would carry half a surrogate pair, and no receiver could write it down.
        json.dumps(copy, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"must be JSON serializable ({error})"
        raise InvalidRequestError.for_field("metadata", given, reason) from None
    if not all(isinstance(key, str) for key in _keys(given)):
        raise InvalidRequestError.for_field(
            "metadata", given, "must have only string keys, at every level"
        )
    return copy


def _keys(value: object) -> Iterator[object]:
    """The keys of all objects in a JSON value, at any depth."""
    rest: list[object] = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, Mapping):
            fields = cast("Mapping[object, object]", item)
            yield from fields
            rest.extend(fields.values())
        elif isinstance(item, list | tuple):
            rest.extend(cast("list[object]", item))


_USER = re.compile(r"//[^/?#]*@")
_URL = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)


def without_query(url: str | None) -> str | None:
    """A URL as it can be shown: without a user name, and without its query, a signature.

    Args:
        url: Any URL, or None.

    Returns:
        The URL up to its query, with ``?…`` in its place.
    """
    if url is None:
        return None
    shown, query, _ = url.partition("?")
    return _USER.sub("//", shown) + ("?…" if query else "")


def without_queries(text: str) -> str:
    """A text as it can be shown: the URLs in it are without their queries.

    Args:
        text: Any text.

    Returns:
        The text, with each URL as `without_query` returns it.
    """
    return _URL.sub(lambda url: without_query(url[0]) or "", text)


def _shown_url(url: str | None) -> str:
    return repr(without_query(url))


@attrs.frozen(kw_only=True)
class SwapRequest:
    """A swap to be created: the arguments of ``client.swaps.create()`` as one value.

    Attributes:
        source: In place of `source_url` a local file: a path, bytes, or an open binary file. A
            URL is moved to `source_url`.
        target: In place of `target_url` a local file, as `source`.
        source_url: Public https URL of the image with the face to put in.
        target_url: Public https URL of the image or GIF to transform.
        type: What the target is: ``"image"`` or ``"gif"``. Default: ``"image"``; None for a
            local target, whose bytes show it when it is read.
        webhook_url: Public https URL that is called when the swap ends.
        target_face_index: Which face of the target, from 0, where there are several.
        enable_face_enhancer: Whether to sharpen the face.
        metadata: A small JSON object that comes back with the swap. Its size limit is not
            documented.

    Raises:
        InvalidRequestError: A field is wrong; it names the field and the value.
    """

    source: FileSource | None = attrs.field(
        default=None, validator=_file_source, hash=False, repr=short_repr
    )
    target: FileSource | None = attrs.field(
        default=None, validator=_file_source, hash=False, repr=short_repr
    )
    source_url: str | None = attrs.field(default=None, validator=_file_url, repr=_shown_url)
    target_url: str | None = attrs.field(default=None, validator=_file_url, repr=_shown_url)
    type: SwapType | str | None = attrs.field(default=None, converter=_swap_type)
    webhook_url: str | None = attrs.field(default=None, validator=_optional_public_url)
    target_face_index: int | None = attrs.field(default=None, converter=_face_index)
    enable_face_enhancer: bool | None = attrs.field(default=None, validator=_optional_bool)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, converter=_metadata, hash=False)

    def __attrs_post_init__(self) -> None:
        if self.source is not None or self.source_url is None:
            self._settle("source", self.source, self.source_url)
        if self.target is not None or self.target_url is None:
            self._settle("target", self.target, self.target_url)
        if self.type is None and self.target is None:
            object.__setattr__(self, "type", SwapType.IMAGE)

    def _settle(self, name: str, file: object, url: str | None) -> None:
        """Check that there is either a file or a URL, and keep each in its field."""
        if file is None:
            text = f"{name} is missing; pass {name}= (a file or a URL) or {name}_url="
            raise InvalidRequestError(text, field=name)
        if url is not None:
            reason = f"must not be combined with {name}_url"
            raise InvalidRequestError.for_field(name, file, reason)
        if _validation.is_url(file):
            _validation.file_url(name, file)
            object.__setattr__(self, name, None)
            object.__setattr__(self, f"{name}_url", file)


@attrs.frozen(kw_only=True)
class Swap:
    """A swap as the service describes it.

    Only ``id`` and ``status`` are always set. Fields that the response lacks are ``None``.

    Attributes:
        id: The service's name for it, ``tsk_…``.
        status: A ``SwapStatus``, or a plain string where the service has a new one.
        type: A ``SwapType``, or a plain string where the service has a new one.
        credit_cost: What it costs, in credits.
        progress: How far it is, 0 to 100.
        created_at: When it was created.
        result_url: Where the result is, once it is done. The query part may be a signature:
            it is left out of ``repr()``.
        error: What went wrong, in the service's form: an object with ``code`` and
            ``message``, or a bare string. The contract does not say.
        metadata: The JSON object it was created with.
        webhook_url: The URL that is called when it ends.
        extra: Fields that this package does not know yet.
    """

    id: str
    status: SwapStatus | str
    type: SwapType | str | None = attrs.field(default=None, repr=False)
    credit_cost: float | None = attrs.field(default=None, repr=False)
    progress: float | None = None
    created_at: datetime | None = attrs.field(default=None, repr=False)
    result_url: str | None = attrs.field(default=None, repr=_shown_url)
    error: Any = attrs.field(default=None, hash=False)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, repr=False, hash=False)
    webhook_url: str | None = attrs.field(default=None, repr=False)
    extra: Mapping[str, Any] = attrs.field(factory=_no_fields, repr=False, hash=False)

    @property
    def is_finished(self) -> bool:
        """Whether it has finished: done, failed, a result, or an unknown status with an error."""
        if self.status in _FINISHED or self.result_url:
            return True
        return self.status not in _UNFINISHED and bool(self.error)

    @property
    def has_failed(self) -> bool:
        """Whether it has finished without a result."""
        if self.status == SwapStatus.FAILED:
            return True
        return self.is_finished and self.status != SwapStatus.DONE and not self.result_url

    @property
    def error_message(self) -> str | None:
        """What went wrong, as text, whatever the form of ``error``; None without an error."""
        error: object = self.error
        if error is None or not isinstance(error, Mapping):
            return None if error is None else str(error)
        fields = cast("Mapping[str, object]", error)
        told = [str(fields[name]) for name in ("code", "message") if fields.get(name)]
        return ": ".join(told) or json.dumps(dict(fields), default=str)


_FINISHED = frozenset({SwapStatus.DONE, SwapStatus.FAILED})
_UNFINISHED = frozenset({SwapStatus.QUEUED, SwapStatus.PREPARING, SwapStatus.PROCESSING})


@attrs.frozen(kw_only=True)
class SwapPage:
    """One page of the key's swaps, newest first. Iterating over it gives its swaps.

    Attributes:
        data: The swaps of this page.
        next_cursor: Where the next page begins; None on the last one.
    """

    data: tuple[Swap, ...]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Swap]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


@attrs.frozen(kw_only=True)
class Credits:
    """The credits of an account, by where they come from.

    Attributes:
        permanent: Credits that do not expire.
        monthly: Credits of the month.
        subscription: Credits of the subscription.
        total: All of them.
        extra: Fields that this package does not know yet.
    """

    permanent: float
    monthly: float
    subscription: float
    total: float
    extra: Mapping[str, Any] = attrs.field(factory=_no_fields, repr=False, hash=False)


@attrs.frozen(kw_only=True)
class RateLimit:
    """How many requests the service allows.

    Attributes:
        limit: Requests allowed in the window.
        remaining: Requests left in it.
        window_seconds: The window's length in seconds; ``me()`` says it, headers do not.
        reset: Unix time in seconds at which the window resets; headers say it, ``me()``
            does not.
        extra: Fields that this package does not know yet.
    """

    limit: float
    remaining: float
    window_seconds: float | None = None
    reset: float | None = None
    extra: Mapping[str, Any] = attrs.field(factory=_no_fields, repr=False, hash=False)


@attrs.frozen(kw_only=True)
class Account:
    """Whose key it is, and what is left of credits and requests.

    Attributes:
        user_id: The service's name for the user.
        email_verified: Whether the user's address is verified.
        subscription_tier: The user's plan.
        credits: The credits left.
        rate_limit: The requests left.
        extra: Fields that this package does not know yet.
    """

    user_id: str
    email_verified: bool
    subscription_tier: str
    credits: Credits
    rate_limit: RateLimit
    extra: Mapping[str, Any] = attrs.field(factory=_no_fields, repr=False, hash=False)


@attrs.frozen(kw_only=True)
class Response(Generic[T]):
    """A complete response, from ``client.request()``.

    Attributes:
        value: The decoded body.
        status: The HTTP status, 200 to 299.
        headers: The headers of the response; names in any case.
        request_id: What the service's support asks for, where it was given.
        rate_limit: The requests left according to the headers, or None.
        attempts: How many attempts the call took.
        idempotency_key: The key that was sent; None for a GET.
    """

    value: T
    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    request_id: str | None = None
    rate_limit: RateLimit | None = None
    attempts: int = 1
    idempotency_key: str | None = None


@attrs.frozen(kw_only=True)
class WebhookEvent:
    """A verified webhook delivery.

    Attributes:
        event: What happened: ``"swap.completed"``, ``"swap.failed"``, or one that is new.
        swap: The swap, as the delivery describes it.
    """

    event: str
    swap: Swap

    def to_json(self) -> str:
        """Write the event as JSON, to put it into a queue; `from_json` reads it.

        Returns:
            The JSON, ASCII only.
        """
        swap = attrs.asdict(self.swap, recurse=False)
        if self.swap.created_at is not None:
            swap["created_at"] = self.swap.created_at.isoformat()
        return json.dumps({"event": self.event, "swap": swap})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read an event that `to_json` wrote. It does not verify a delivery: `parse()` does.

        Args:
            text: The JSON.

        Returns:
            An event that equals the one that was written.

        Raises:
            InvalidRequestError: `text` was not written by `to_json`.
        """
        try:
            fields = json.loads(text)
            swap = fields["swap"]
            if swap["created_at"] is not None:
                swap["created_at"] = datetime.fromisoformat(swap["created_at"])
            swap["status"] = _known(SwapStatus, swap["status"])
            swap["type"] = _known(SwapType, swap["type"])
            return cls(event=fields["event"], swap=Swap(**swap))
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
            reason = "must be JSON from WebhookEvent.to_json()"
        raise InvalidRequestError.for_field("text", text, reason)


def _known(members: type[StrEnum], value: Any) -> Any:
    """A member of an open enum, or the value itself."""
    try:
        return members(value)
    except ValueError:
        return value
