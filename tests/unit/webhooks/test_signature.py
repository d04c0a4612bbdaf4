"""parse(), verify() and sign(): what is believed, what is not, and why."""

from __future__ import annotations

import hmac
import pickle
import sys
import time
from types import FrameType
from typing import Any

import pytest

from aifaceswap import (
    AIFaceSwapError,
    ConfigurationError,
    WebhookVerificationError,
    WebhookVerificationReason,
    webhooks,
)
from support.hooks import KEY, NOW, OTHER_KEY, body_of

BODY = b'{"event":"swap.completed","id":"tsk_1"}'
DIGEST = "cee582b09284b4f073d461a5cea4c948301100115120c7ab36c27f5d40ee6cfb"
HEADER = f"t={NOW},v1={DIGEST}"
WRONG = "0" * 64
Reason = WebhookVerificationReason


def reason_of(
    body: bytes = BODY, header: str | bytes | None = HEADER, keys: Any = (KEY,), **options: Any
) -> WebhookVerificationReason:
    """Why a delivery is refused; by verify(), too, unless it is for its JSON."""
    options = {"now": NOW, **options}
    with pytest.raises(WebhookVerificationError) as caught:
        webhooks.parse(body, header, keys, **options)
    reason = caught.value.reason
    if reason is not Reason.BODY_MALFORMED:
        with pytest.raises(WebhookVerificationError) as verified:
            webhooks.verify(body, header, keys, **options)
        assert verified.value.reason is reason
    return reason


def test_the_worked_example_of_the_contract() -> None:
    """It is signed, verified and read as the service's documents show it."""
    event = webhooks.parse(BODY, HEADER, [KEY], now=NOW)

    assert webhooks.SIGNATURE_HEADER == "x-aifaceswap-signature"
    assert webhooks.sign(BODY, KEY, timestamp=NOW) == HEADER
    assert (event.event, event.swap.id, event.swap.status) == ("swap.completed", "tsk_1", "done")


def test_a_delivery_that_was_signed_just_now_is_believed() -> None:
    """By the system's clock, where none is given."""
    body = body_of()

    webhooks.verify(body, webhooks.sign(body, KEY), KEY)
    assert webhooks.parse(body, webhooks.sign(body, KEY), KEY).swap.metadata == {"row": 1}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_every_kind_are_read(kind: Any) -> None:
    """What servers hand out: bytes, a bytearray or a view of either."""
    webhooks.verify(kind(BODY), HEADER, [KEY], now=NOW)

    assert webhooks.sign(kind(BODY), KEY, timestamp=NOW) == HEADER
    assert webhooks.parse(kind(BODY), HEADER, [KEY], now=NOW).swap.id == "tsk_1"


@pytest.mark.parametrize("body", ["text", None, {"event": "swap.completed"}, 7])
def test_a_body_that_was_decoded_is_a_mistake_of_the_program(body: Any) -> None:
    """A TypeError, before anything else is looked at."""
    for function in (webhooks.parse, webhooks.verify):
        with pytest.raises(TypeError, match="raw bytes"):
            function(body, None, [KEY])
    with pytest.raises(TypeError, match="raw bytes"):
        webhooks.sign(body, KEY)


def test_a_header_may_be_bytes() -> None:
    """As ASGI servers hand it out."""
    assert webhooks.parse(BODY, HEADER.encode(), [KEY], now=NOW).swap.id == "tsk_1"


def test_a_header_of_another_type_is_a_mistake_of_the_program() -> None:
    """A TypeError."""
    header: Any = [HEADER]
    with pytest.raises(TypeError, match="header"):
        webhooks.parse(BODY, header, [KEY])


def test_no_header() -> None:
    """It has a reason of its own."""
    assert reason_of(header=None) is Reason.HEADER_MISSING


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"v1={DIGEST}",
        f"t={NOW}",
        f"t=,v1={DIGEST}",
        f"t={NOW},t={NOW},v1={DIGEST}",
        f"t={NOW},v1={DIGEST},t=1",
        f"t={NOW},v1={DIGEST}, t=1",
        f"t=+{NOW},v1={DIGEST}",
        f"t=-1,v1={DIGEST}",
        f"t={NOW}.0,v1={DIGEST}",
        f"t=1_760_000_000,v1={DIGEST}",
        f"t= {NOW},v1={DIGEST}",
        f"t=1\N{ARABIC-INDIC DIGIT SEVEN}60000000,v1={DIGEST}",
        f"t={NOW},v1={DIGEST[:-1]}",
        f"t={NOW},v1={DIGEST}0",
        f"t={NOW},v1={DIGEST[:-1]}g",
        f"t={NOW},v1={DIGEST.upper()}",
        f"t={NOW},v1={DIGEST}\n",
        f"t={NOW},v0={DIGEST}",
        f"T={NOW},V1={DIGEST}",
        f"t={NOW};v1={DIGEST}",
        HEADER + "é",
        HEADER + "\udcff",
        HEADER.encode() + b"\xff",
        HEADER + "," * (1025 - len(HEADER)),
    ],
)
def test_a_header_that_cannot_be_read(header: str | bytes) -> None:
    """It needs one t of plain digits and a v1 of 64 digits, in ASCII, within 1 KiB."""
    assert reason_of(header=header) is Reason.HEADER_MALFORMED


@pytest.mark.parametrize(
    "header",
    [
        f"v1={DIGEST},t={NOW}",
        f"t={NOW},v1={WRONG},v1={DIGEST}",
        f"t={NOW},v1={DIGEST},v1={WRONG}",
        f"t={NOW},v1=short,v1={DIGEST},v1=",
        f"t={NOW},v0={WRONG},v2=abc,v1={DIGEST},flag",
        f"t={NOW}, v1={DIGEST}",
        f"{HEADER}{',' * (1024 - len(HEADER))}",
    ],
)
def test_what_a_header_may_hold_besides(header: str) -> None:
    """Several signatures, malformed ones, other schemes, in any order: one right one is enough."""
    assert webhooks.parse(BODY, header, [KEY], now=NOW).swap.id == "tsk_1"


@pytest.mark.parametrize("keys", [[OTHER_KEY], [OTHER_KEY, "x"], [KEY + "x"], [KEY.upper()]])
def test_another_key_signed_nothing(keys: list[str]) -> None:
    """A mismatch."""
    assert reason_of(keys=keys) is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], b"", BODY.replace(b"1", b"2")])
def test_another_body_was_not_signed(body: bytes) -> None:
    """A mismatch, also where the JSON says the same."""
    assert reason_of(body) is Reason.SIGNATURE_MISMATCH


def test_another_time_was_not_signed() -> None:
    """The time is part of what is signed, to the digit."""
    assert reason_of(header=f"t={NOW + 1},v1={DIGEST}") is Reason.SIGNATURE_MISMATCH
    assert reason_of(header=f"t=0{NOW},v1={DIGEST}") is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize("keys", [[KEY, OTHER_KEY], [OTHER_KEY, KEY], (KEY,), {KEY}, KEY])
def test_any_of_the_keys_may_have_signed(keys: Any) -> None:
    """During a rotation two keys sign; a single one needs no list."""
    assert webhooks.parse(BODY, HEADER, keys, now=NOW).swap.id == "tsk_1"


def test_keys_may_come_from_a_generator() -> None:
    """They are read once."""
    keys = (key for key in (OTHER_KEY, KEY))
    assert webhooks.parse(BODY, HEADER, keys, now=NOW).swap.id == "tsk_1"


@pytest.mark.parametrize(
    "keys", [[], (), "", [""], [KEY, ""], [None], [KEY.encode()], None, 5, ["a b"], ["ключ"]]
)
def test_no_key_and_empty_keys_are_refused(keys: Any) -> None:
    """With an empty key everybody could sign; no message shows a key."""
    for function in (webhooks.parse, webhooks.verify):
        with pytest.raises(ConfigurationError, match=r"^keys must ") as caught:
            function(BODY, HEADER, keys, now=NOW)
        assert caught.value.field == "keys"
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["", "a b", "\n"])
def test_nothing_is_signed_with_an_empty_key(key: str) -> None:
    """Neither is it checked."""
    with pytest.raises(ConfigurationError):
        webhooks.sign(BODY, key)


def test_every_key_is_held_against_every_signature() -> None:
    """How long it takes does not tell which was right."""
    compared = 0

    def watch(_: FrameType, event: str, function: object) -> None:
        nonlocal compared
        compared += event == "c_call" and function is hmac.compare_digest

    sys.setprofile(watch)
    try:
        webhooks.verify(BODY, f"t={NOW},v1={DIGEST},v1={WRONG}", [KEY, OTHER_KEY, "x"], now=NOW)
    finally:
        sys.setprofile(None)

    assert compared == 6


@pytest.mark.parametrize("ahead", [-300, -299.5, 0, 299.5, 300])
def test_a_delivery_within_five_minutes_is_in_time(ahead: float) -> None:
    """The bounds are part of it."""
    assert webhooks.parse(BODY, HEADER, [KEY], now=NOW - ahead).swap.id == "tsk_1"


@pytest.mark.parametrize("ahead", [-1e9, -300.5, 300.5, 1e9, float("nan"), float("inf")])
def test_a_delivery_from_another_time_is_refused(ahead: float) -> None:
    """Too old, or from the future."""
    assert reason_of(now=NOW - ahead) is Reason.TIMESTAMP_OUTSIDE_TOLERANCE


def test_the_tolerance_can_be_chosen() -> None:
    """In seconds."""
    webhooks.verify(BODY, HEADER, [KEY], now=NOW + 3600, tolerance=3600)
    webhooks.verify(BODY, HEADER, [KEY], now=NOW, tolerance=0)

    assert reason_of(now=NOW + 11, tolerance=10) is Reason.TIMESTAMP_OUTSIDE_TOLERANCE
    assert reason_of(tolerance=-1) is Reason.TIMESTAMP_OUTSIDE_TOLERANCE
    assert reason_of(tolerance=float("nan")) is Reason.TIMESTAMP_OUTSIDE_TOLERANCE


@pytest.mark.parametrize("digits", [20, 400, 900])
def test_a_time_of_many_digits(digits: int) -> None:
    """It is far in the future, nothing worse."""
    stamp = int("9" * digits)
    header = webhooks.sign(BODY, KEY, timestamp=stamp)

    assert reason_of(header=header) is Reason.TIMESTAMP_OUTSIDE_TOLERANCE


def test_the_signature_comes_before_the_time() -> None:
    """Who has no key is not told how our clock stands."""
    assert reason_of(header=f"t=1,v1={DIGEST}") is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b'"swap.completed"',
        b"{}",
        b'{"event":"swap.completed"}',
        b'{"id":"tsk_1","status":"done"}',
        b'{"event":7,"id":"tsk_1"}',
        b'{"event":"swap.completed","id":true}',
        b'{"event":"swap.completed","id":"tsk_1","credit_cost":NaN}',
        b'{"event":"swap.completed","id":"\xff"}',
        BODY.decode().encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"event":"swap.completed","id":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"event":"swap.completed","id":"tsk_1","progress":' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: body[:40],
)
def test_a_signed_body_that_is_no_event(body: bytes) -> None:
    """Its JSON comes last, and whatever it is, the error is the same."""
    header = webhooks.sign(body, KEY, timestamp=NOW)

    webhooks.verify(body, header, [KEY], now=NOW)
    assert reason_of(body, header) is Reason.BODY_MALFORMED


@pytest.mark.parametrize("event", ["swap.failed", "swap.progress", "", "credits.low", "\ud800"])
def test_unknown_events_become_events(event: str) -> None:
    """And so do fields and statuses that this package does not know."""
    body = body_of(event, status="enhanced", new_field=[1])
    parsed = webhooks.parse(body, webhooks.sign(body, KEY), [KEY])

    assert (parsed.event, parsed.swap.status) == (event, "enhanced")
    assert parsed.swap.extra == {"new_field": [1]}


def test_the_error_is_ours_and_travels() -> None:
    """One class, with a reason for programs; it pickles, and shows neither key nor digest."""
    with pytest.raises(AIFaceSwapError) as caught:
        webhooks.parse(BODY, f"t={NOW},v1={WRONG}", [KEY], now=NOW)
    error = pickle.loads(pickle.dumps(caught.value))

    assert isinstance(error, WebhookVerificationError)
    assert error.reason == "signature_mismatch"
    assert not {KEY, DIGEST, WRONG} & set(str(error).split())


def test_signing_uses_the_clock_unless_told() -> None:
    """Whole seconds of unix time."""
    stamp = int(webhooks.sign(BODY, KEY).partition(",")[0].removeprefix("t="))

    assert abs(stamp - time.time()) < 60
