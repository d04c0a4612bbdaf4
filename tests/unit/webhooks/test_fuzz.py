"""Whatever the bytes: one error, and nothing believed that was not signed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap import WebhookVerificationError, WebhookVerificationReason, webhooks
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
    """The service may send anything; what needs a string has one."""
    body = json.dumps(fields).encode()
    header = webhooks.sign(body, KEY)
    if all(isinstance(fields.get(name), str) for name in ("event", "id")):
        fields = {"status": "done", **fields, "metadata": None}
    if not all(isinstance(fields.get(name), str) for name in ("event", "id", "status")):
        with pytest.raises(WebhookVerificationError) as caught:
            webhooks.parse(body, header, [KEY])
        assert caught.value.reason is WebhookVerificationReason.BODY_MALFORMED
        return
    body = json.dumps(fields).encode()
    event = webhooks.parse(body, webhooks.sign(body, KEY), [KEY])
    assert (event.event, event.swap.id, event.swap.status, event.swap.error) == (
        fields["event"],
        fields["id"],
        fields["status"],
        fields.get("error"),
    )
