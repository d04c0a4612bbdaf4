"""Whatever the bytes: one error, and nothing believed that was not signed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap import (
    InvalidRequestError,
    WebhookEvent,
    WebhookVerificationError,
    WebhookVerificationReason,
    webhooks,
)
from support.webhook_fuzz import fuzz, is_genuine

KEY = "key_test_123"


@pytest.mark.parametrize("seed", range(4))
def test_random_deliveries(seed: int) -> None:
    """Every reason comes up, and what is accepted is genuine."""
    seen = fuzz(5000, seed)

    assert {*WebhookVerificationReason, "accepted"} == seen.keys()


def test_the_oracle_knows_the_worked_example() -> None:
    """What the fuzzing leans on is right itself."""
    body, stamp = b'{"event":"swap.completed","id":"tsk_1"}', 1_760_000_000
    header = webhooks.sign(body, KEY, timestamp=stamp)

    assert is_genuine(body, header)
    assert not is_genuine(body + b" ", header)
    assert not is_genuine(body, header[:-1])
    assert not is_genuine(body, webhooks.sign(body, KEY, timestamp=1))


@given(st.binary(), st.one_of(st.none(), st.text(), st.binary()))
def test_nothing_unsigned_is_believed(body: bytes, header: str | bytes | None) -> None:
    """Nor does anything but the one error come out."""
    with pytest.raises(WebhookVerificationError):
        webhooks.parse(body, header, [KEY])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
FIELDS = st.sampled_from(["event", "id", "status", "metadata", "error", "new"])


@given(st.dictionaries(FIELDS, JSON))
def test_whatever_is_signed_is_an_event_or_the_error(fields: dict[str, object]) -> None:
    """The service may send anything; what needs a name has one."""
    fields.pop("metadata", None)
    body = json.dumps(fields).encode()
    header = webhooks.sign(body, KEY)
    if not isinstance(fields.get("event"), str) or type(fields.get("id")) not in (str, int):
        with pytest.raises(WebhookVerificationError) as caught:
            webhooks.parse(body, header, [KEY])
        assert caught.value.reason is WebhookVerificationReason.BODY_MALFORMED
        return
    event = webhooks.parse(body, header, [KEY])
    assert (event.event, event.swap.id, event.swap.error) == (
        fields["event"],
        str(fields["id"]),
        fields.get("error"),
    )
    if isinstance(fields.get("status"), str):
        assert event.swap.status == fields["status"]
    assert WebhookEvent.from_json(event.to_json()) == event


@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_any_text_is_an_event_of_ours_or_our_error(text: str | bytes) -> None:
    """A queue can hold anything."""
    with pytest.raises(InvalidRequestError, match=r"to_json\(\)"):
        WebhookEvent.from_json(text)
