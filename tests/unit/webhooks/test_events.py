"""Events that go through a queue: written as JSON and read again."""

from __future__ import annotations

import json

import pytest

from aifaceswap import InvalidRequestError, SwapStatus, SwapType, WebhookEvent, webhooks
from support.hooks import KEY, body_of


def event_of(**fields: object) -> WebhookEvent:
    body = body_of(**fields)  # type: ignore[arg-type]
    return webhooks.parse(body, webhooks.sign(body, KEY), KEY)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"event": "swap.failed", "error": {"code": "no_face", "message": "Gesicht fehlt: ä"}},
        {"event": "swap.new", "status": "enhanced", "type": "video", "new": {"a": [1, None]}},
        {"created_at": None, "metadata": None, "type": None},
        {"created_at": "2026-01-01T00:00:00.123456+02:00", "credit_cost": 0.1},
        {"id": "\ud800"},
    ],
    ids=["done", "failed", "unknown", "empty", "time", "surrogate"],
)
def test_an_event_survives_a_queue(fields: dict[str, object]) -> None:
    """Unknown fields, statuses and times included."""
    event = event_of(**fields)
    text = event.to_json()

    assert text.isascii()
    assert WebhookEvent.from_json(text) == WebhookEvent.from_json(text.encode()) == event


def test_known_values_are_members_again() -> None:
    """Not strings that look like them."""
    swap = WebhookEvent.from_json(event_of().to_json()).swap

    assert swap.status is SwapStatus.DONE
    assert swap.type is SwapType.IMAGE


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"event":"e"}', '{"event":"e","swap":{}}', b"\xff", "[" * 100_000],
    ids=range(8),
)
def test_other_json_is_rejected(text: str | bytes) -> None:
    """With the error of every wrong argument."""
    with pytest.raises(InvalidRequestError, match=r"text must be JSON from WebhookEvent.to_json"):
        WebhookEvent.from_json(text)


def test_a_field_that_a_newer_version_wrote_is_rejected() -> None:
    """Rather than read in part."""
    fields = json.loads(event_of().to_json())
    fields["swap"]["newer"] = 1

    with pytest.raises(InvalidRequestError):
        WebhookEvent.from_json(json.dumps(fields))
