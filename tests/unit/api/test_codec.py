"""JSON to values and back: strict about shapes, generous to what is new."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aifaceswap._api import codec
from aifaceswap.models import (
    Account,
    Credits,
    RateLimit,
    Swap,
    SwapPage,
    SwapRequest,
    SwapStatus,
    SwapType,
    WebhookEvent,
)

PROPERTY = settings(max_examples=100, deadline=None)

SWAP: dict[str, Any] = {
    "id": "tsk_1a2b",
    "type": "gif",
    "status": "done",
    "credit_cost": 3,
    "progress": 99.5,
    "created_at": "2026-01-02T03:04:05Z",
    "result_url": "https://cdn.example.com/r.gif?sig=1",
    "error": None,
    "metadata": {"order": 7},
    "webhook_url": "https://example.com/hook",
}
ACCOUNT: dict[str, Any] = {
    "user_id": "usr_1",
    "email_verified": True,
    "subscription_tier": "pro",
    "credits": {"permanent": 1, "monthly": 2.5, "subscription": 0, "total": 3.5},
    "rate_limit": {"limit": 60, "window_seconds": 60, "remaining": 59},
}
MODELS: list[Any] = [Swap, SwapPage, Account, Credits, RateLimit, WebhookEvent]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


# --- bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' [1, 2.5, "\xc3\xbc", null, true] \n', [1, 2.5, "ü", None, True]),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"0", 0),
        (b'{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_json_is_read(body: bytes, value: object) -> None:
    """JSON in UTF-8 is read, with white space around it."""
    assert value == codec.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"<html>502 Bad Gateway</html>",
        b'{"id": "tsk_1", "sta',
        b'{"a": 1}{"b": 2}',
        b"{'a': 1}",
        b"NaN",
        b'{"progress": NaN}',
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b'{"credits": {"total": -1e400}}',
        b"[1" + b"0" * 400 + b".0]",
        b"\xff\xfe{\x00}\x00",
        b'{"a": "\xff"}',
        b"\x1f\x8b\x08\x00",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5_000,
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_is_no_json(body: bytes) -> None:
    """Pages, cut bodies, NaN, what is infinite, other encodings, endless nesting are no JSON."""
    with pytest.raises(codec.NotJSONError):
        codec.loads(body)


@PROPERTY
@given(st.binary() | st.text().map(str.encode) | JSON.map(json.dumps).map(str.encode))
@example(b"1e999")
@example(b"\x00")
def test_bytes_are_json_or_not(body: bytes) -> None:
    """Whatever the bytes are, they are read or `NotJSONError` is raised, and nothing else."""
    try:
        codec.loads(body)
    except codec.NotJSONError as error:
        assert error.__cause__ is None  # noqa: PT017


@PROPERTY
@given(JSON)
def test_json_comes_back(value: object) -> None:
    """What is written is read again as it was."""
    written = codec.dumps(value)

    assert written.isascii()
    assert value == codec.loads(written)


def test_json_is_written_compactly() -> None:
    """The JSON has no white space and no byte beyond ASCII."""
    assert codec.dumps({"a": [1, "ü"], "b": None}) == b'{"a":[1,"\\u00fc"],"b":null}'


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def a_cycle() -> list[object]:
    value: list[object] = []
    value.append({"self": value})
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, [math.inf], {"a": -math.inf}, a_cycle(), nested(100_000), 10**5000],
    ids=["NaN", "Infinity", "-Infinity", "cycle", "too deep", "too long a number"],
)
def test_what_json_cannot_say(value: object) -> None:
    """NaN, cycles, and what is too deep or too long are a `ValueError`."""
    with pytest.raises(ValueError, match=r"JSON compliant|nested too deeply|Exceeds the limit"):
        codec.dumps(value)


@pytest.mark.parametrize("value", [object(), {"a": b"x"}, 1j], ids=["object", "bytes", "complex"])
def test_what_json_has_no_word_for(value: object) -> None:
    """An object that JSON does not know is a `TypeError`."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        codec.dumps(value)


# --- requests ------------------------------------------------------------------------------


def test_a_small_request_is_written_without_defaults() -> None:
    """What was not given is left to the service; the type is always said."""
    request = SwapRequest(source_url="https://a.example/s", target_url="https://a.example/t")

    assert codec.unstructure(request) == {
        "source_url": "https://a.example/s",
        "target_url": "https://a.example/t",
        "type": "image",
    }


def test_a_whole_request_is_written_in_the_apis_words() -> None:
    """Every field stands under the name that the API has for it; False and 0 are said."""
    fields = {
        "source_url": "https://a.example/s",
        "target_url": "https://a.example/t",
        "type": "gif",
        "webhook_url": "https://a.example/hook",
        "target_face_index": 0,
        "enable_face_enhancer": False,
        "metadata": {"a": [1, {"b": None}]},
    }

    assert fields == json.loads(codec.dumps(SwapRequest(**fields)))  # type: ignore[arg-type]


# --- swaps ---------------------------------------------------------------------------------


def test_a_whole_swap() -> None:
    """Every documented field is read into its attribute."""
    assert codec.structure(SWAP, Swap) == Swap(
        id="tsk_1a2b",
        type=SwapType.GIF,
        status=SwapStatus.DONE,
        credit_cost=3,
        progress=99.5,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        result_url="https://cdn.example.com/r.gif?sig=1",
        error=None,
        metadata={"order": 7},
        webhook_url="https://example.com/hook",
        extra={},
    )


def test_a_whole_swap_is_written_as_it_came() -> None:
    """What is read and written again is the same JSON."""
    assert codec.unstructure(codec.structure(SWAP, Swap)) == SWAP


def test_a_swap_needs_an_id_and_a_status() -> None:
    """Everything else may be missing, and is None then."""
    swap = codec.structure({"id": "tsk_1", "status": "queued"}, Swap)

    assert Swap(id="tsk_1", status=SwapStatus.QUEUED) == swap
    assert {None} == {getattr(swap, name) for name in without(SWAP, "id", "status")}


@pytest.mark.parametrize("name", without(SWAP, "id", "status"))
def test_a_field_may_be_null(name: str) -> None:
    """Null is read like a field that is missing."""
    with_null = codec.structure({**SWAP, name: None}, Swap)

    assert getattr(with_null, name) is None
    assert with_null == codec.structure(without(SWAP, name), Swap)


def test_unknown_values_and_fields_are_kept() -> None:
    """A new status, type or field is passed on, and comes back when the swap is written."""
    new = {**SWAP, "status": "dreaming", "type": "video", "eta": {"s": [4]}, "extra": 1}

    swap = codec.structure(new, Swap)

    assert (swap.status, swap.type) == ("dreaming", "video")
    assert not isinstance(swap.status, SwapStatus)
    assert swap.extra == {"eta": {"s": [4]}, "extra": 1}
    assert new == codec.unstructure(swap)


@pytest.mark.parametrize("status", SwapStatus)
def test_known_statuses_are_members(status: SwapStatus) -> None:
    """A status that is known is a member, and still equal to its word."""
    swap = codec.structure({"id": "tsk_1", "status": status.value}, Swap)

    assert status is swap.status


@pytest.mark.parametrize(
    "error", ["text", "", {"code": "a", "message": "b"}, {}, ["a"], 5, False, None], ids=repr
)
def test_an_error_of_any_form(error: object) -> None:
    """The form of a swap's error is not documented: any is kept."""
    swap = codec.structure({**SWAP, "error": error}, Swap)

    assert error == swap.error
    assert error == codec.unstructure(swap)["error"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678Z", datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)),
        (
            "2026-01-02T03:04:05+02:00",
            datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        ),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    """Times are read with their zone; without one they are UTC."""
    assert moment == codec.structure({**SWAP, "created_at": text}, Swap).created_at


def full(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields)


UNKNOWN = st.dictionaries(st.text(), JSON, max_size=3)
SWAPS = st.builds(
    lambda known, unknown: {**unknown, **known},
    full(
        id=st.text(),
        type=st.none() | st.sampled_from(SwapType).map(str) | st.text(),
        status=st.sampled_from(SwapStatus).map(str) | st.text(),
        credit_cost=st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        progress=st.none() | st.floats(0, 100),
        created_at=st.none()
        | st.datetimes(timezones=st.just(UTC)).map(
            lambda at: f"{at:%Y}".zfill(4) + at.isoformat()[4:-6] + "Z"
        ),
        result_url=st.none() | st.text(),
        error=JSON,
        metadata=st.none() | st.dictionaries(st.text(), JSON, max_size=3),
        webhook_url=st.none() | st.text(),
    ),
    UNKNOWN,
)
ACCOUNTS = st.builds(
    lambda known, unknown: {**unknown, **known},
    full(
        user_id=st.text(),
        email_verified=st.booleans(),
        subscription_tier=st.text(),
        credits=full(
            permanent=st.integers(),
            monthly=st.integers(),
            subscription=st.integers(),
            total=st.integers(),
        ),
        rate_limit=full(
            limit=st.integers(),
            remaining=st.integers(),
            window_seconds=st.integers(),
            reset=st.none(),
            new=JSON,
        ),
    ),
    UNKNOWN,
)


@PROPERTY
@given(SWAPS)
def test_swaps_come_back(swap: dict[str, Any]) -> None:
    """Any swap with any unknown fields is written as it came, through bytes too."""
    value = codec.structure(swap, Swap)

    assert swap == codec.unstructure(value)
    assert value == codec.structure(codec.loads(codec.dumps(value)), Swap)


@PROPERTY
@given(ACCOUNTS)
def test_accounts_come_back(account: dict[str, Any]) -> None:
    """Any account with any unknown fields is written as it came."""
    assert account == codec.unstructure(codec.structure(account, Account))


def test_a_whole_account() -> None:
    """The account of the contract is read, numbers of either kind included."""
    account = codec.structure({**ACCOUNT, "region": "eu"}, Account)

    assert account == Account(
        user_id="usr_1",
        email_verified=True,
        subscription_tier="pro",
        credits=Credits(permanent=1, monthly=2.5, subscription=0, total=3.5),
        rate_limit=RateLimit(limit=60, remaining=59, window_seconds=60),
        extra={"region": "eu"},
    )


# --- pages and events ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data", "swaps", "items"])
def test_a_page_under_any_name(name: str) -> None:
    """The field that holds a page's swaps is not documented: each likely one is read."""
    page = codec.structure({name: [SWAP], "next_cursor": "abc", "has_more": True}, SwapPage)

    assert SwapPage(data=(codec.structure(SWAP, Swap),), next_cursor="abc") == page


@pytest.mark.parametrize("rest", [{}, {"next_cursor": None}], ids=["missing", "null"])
def test_the_last_page(rest: dict[str, Any]) -> None:
    """A page without a cursor is the last one; it may be empty."""
    assert SwapPage(data=(), next_cursor=None) == codec.structure({"data": [], **rest}, SwapPage)


def test_a_list_goes_before_a_count() -> None:
    """A field of the right name that is no list does not hide the one that is."""
    page = codec.structure({"data": 1, "items": [SWAP]}, SwapPage)

    assert [swap.id for swap in page] == ["tsk_1a2b"]


def test_the_worked_example() -> None:
    """The contract's example of a delivery is read; its event says how the swap ended."""
    event = codec.structure(codec.loads(b'{"event":"swap.completed","id":"tsk_1"}'), WebhookEvent)

    assert WebhookEvent(event="swap.completed", swap=Swap(id="tsk_1", status="done")) == event
    assert event.swap.is_finished


@pytest.mark.parametrize(
    ("delivery", "status"),
    [
        ({"event": "swap.completed"}, "done"),
        ({"event": "swap.failed"}, "failed"),
        ({"event": "swap.paused"}, ""),
        ({"event": "swap.completed", "status": "archived"}, "archived"),
        ({"event": "swap.failed", "status": "done"}, "done"),
    ],
    ids=["completed", "failed", "new", "with a status", "against the status"],
)
def test_the_status_of_an_event(delivery: dict[str, str], status: str) -> None:
    """The swap's own status counts; where it is missing, the event's name stands for it."""
    event = codec.structure({**delivery, "id": "tsk_1", "n": 1}, WebhookEvent)

    assert (delivery["event"], status) == (event.event, event.swap.status)
    assert event.swap.extra == {"n": 1}


# --- faults --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "into", "message"),
    [
        ({**SWAP, "id": 5}, Swap, "expected a string, got 5 @ $.id"),
        (without(SWAP, "id"), Swap, "'id' is missing @ $.id"),
        ({**SWAP, "status": None}, Swap, "expected a string, got null @ $.status"),
        ([], Swap, "expected an object, got [] @ $"),
        (None, Swap, "expected an object, got null @ $"),
        (
            {**SWAP, "status": ["x" * 100]},
            Swap,
            f'expected a string, got ["{"x" * 58}… @ $.status',
        ),
        (
            {**ACCOUNT, "credits": {**ACCOUNT["credits"], "total": "3"}},
            Account,
            'expected a number, got "3" @ $.credits.total',
        ),
        (
            {**ACCOUNT, "rate_limit": {"limit": 60}},
            Account,
            "'remaining' is missing @ $.rate_limit.remaining",
        ),
        (
            {**ACCOUNT, "email_verified": "yes"},
            Account,
            'expected true or false, got "yes" @ $.email_verified',
        ),
        (
            {"data": [SWAP, {**SWAP, "id": None}]},
            SwapPage,
            "expected a string, got null @ $.data[1].id",
        ),
        ({"data": [SWAP, "x"]}, SwapPage, 'expected an object, got "x" @ $.data[1]'),
        ({"data": {}}, SwapPage, "expected a list in one of data, swaps, items @ $"),
        ([], SwapPage, "expected an object, got [] @ $"),
        (
            {"data": [], "next_cursor": 2},
            SwapPage,
            "expected a string, got 2 @ $.next_cursor",
        ),
        ({"id": "tsk_1"}, WebhookEvent, "expected a string, got null @ $.event"),
        (
            {"event": ["x"], "id": "tsk_1"},
            WebhookEvent,
            'expected a string, got ["x"] @ $.event',
        ),
        ({"event": "swap.completed"}, WebhookEvent, "'id' is missing @ $.swap.id"),
        (
            {**without(SWAP, "id"), "status": 1, "progress": []},
            Swap,
            ("'id' is missing @ $.id; expected a string, got 1 @ $.status"),
        ),
        (1, dict, "expected an object, got 1 @ $"),
        ({}, list, "expected a list, got {} @ $"),
        ({"a": "b"}, dict[str, int], "expected a whole number, got \"b\" @ $['a']"),
        (["a", 1], list[str], "expected a string, got 1 @ $[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_shapes_name_their_path(value: object, into: type[Any], message: str) -> None:
    """The error says what was expected and what came, with the JSON path of each fault."""
    with pytest.raises(codec.ShapeError) as caught:
        codec.structure(value, into)

    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("field", "odd"),
    [
        ("type", ["image"]),
        ("credit_cost", "1"),
        ("progress", "50"),
        ("progress", True),
        ("created_at", "soon"),
        ("created_at", 1_700_000_000),
        ("result_url", {"url": "https://example.com/r.jpg"}),
        ("metadata", []),
        ("webhook_url", 5),
    ],
)
def test_an_odd_optional_field_is_kept_raw(
    field: str, odd: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The swap was charged: it is returned, the field is in `extra`, and a warning names it."""
    swap = codec.structure({**SWAP, field: odd, "new": 1}, Swap)

    assert (swap.id, getattr(swap, field)) == (SWAP["id"], None)
    assert swap.extra == {field: odd, "new": 1}
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert field in record.getMessage()
    assert codec.unstructure(swap)[field] == odd


def test_odd_fields_hide_no_missing_one() -> None:
    """Without an id or a status there is no swap, whatever else is wrong."""
    with pytest.raises(codec.ShapeError, match=r"^'id' is missing @ \$\.id$"):
        codec.structure({"status": "queued", "progress": "50"}, Swap)


def test_odd_fields_on_a_page_and_in_a_delivery() -> None:
    """One odd field spoils neither the page nor the delivery."""
    odd = {**SWAP, "progress": "50"}

    page = codec.structure({"data": [SWAP, odd]}, SwapPage)
    event = codec.structure({"event": "swap.completed", **odd}, WebhookEvent)

    assert page.data[1].extra == event.swap.extra == {"progress": "50"}


def test_a_byte_order_mark_is_skipped() -> None:
    """Some proxies and frameworks put one before the JSON."""
    assert codec.loads(b"\xef\xbb\xbf" + b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("into", MODELS, ids=lambda cls: cls.__name__)
def test_a_fault_drags_nothing_along(into: type[Any]) -> None:
    """The error has no cause: the traceback is about our caller, not about the decoder."""
    with pytest.raises(codec.ShapeError) as caught:
        codec.structure(nested(50), into)

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@attrs.frozen
class Receipt:
    """A class of a user's own."""

    number: int
    swap: Swap
    note: str | None = None


def test_a_users_own_class() -> None:
    """An attrs class that this package does not know is read as well, with the same paths."""
    assert codec.structure({"number": 1, "swap": SWAP, "new": 2}, Receipt) == Receipt(
        1, codec.structure(SWAP, Swap)
    )
    with pytest.raises(codec.ShapeError, match=r'^expected a whole number, got "1" @ \$\.number$'):
        codec.structure({"number": "1", "swap": SWAP}, Receipt)


NAMES = sorted(
    {field.name for cls in MODELS for field in attrs.fields(cls)} | {"event", "swaps", "items"}
)
LIKELY = st.recursive(
    SCALARS | st.sampled_from([SWAP, ACCOUNT, "done", "2026-01-01"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    value=LIKELY | JSON | st.dictionaries(st.sampled_from(NAMES), LIKELY | st.sampled_from([SWAP])),
    into=st.sampled_from([*MODELS, dict, list, str, int, float, bool, list[Swap], Receipt]),
)
def test_any_json_is_a_value_or_a_fault(value: object, into: type[Any]) -> None:
    """Whatever the JSON is, it is read or `ShapeError` names a path, and nothing else comes."""
    try:
        codec.structure(value, into)
    except codec.ShapeError as error:
        assert "@ $" in str(error)  # noqa: PT017


@pytest.mark.parametrize("into", MODELS, ids=lambda cls: cls.__name__)
def test_endless_nesting_is_no_other_error(into: type[Any]) -> None:
    """A value nested beyond reason is a fault of shape like any other."""
    deep = nested(100_000)

    for value in (deep, {"id": deep, "event": deep, "data": [deep], "user_id": deep}):
        with pytest.raises(codec.ShapeError):
            codec.structure(value, into)
