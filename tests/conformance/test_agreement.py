"""The emulator does what its description says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aifaceswap.emulator import Emulator, Limits, VirtualClock
from aifaceswap.emulator._service import scenarios
from conformance.agreement import (
    find_fault,
    operations,
    resolve,
    run_schemathesis,
    tighten,
    without_keys,
)
from conformance.service import Answer, Receiver, Service

# `nox -s conformance` tries many more.
EXAMPLES = int(os.environ.get("AIFACESWAP_EXAMPLES", "10"))

FREE = {"duration": 0, "credits": 1e6, "limits": Limits(None, None, None)}
LIMITED = {
    "duration": 0.2,
    "credits": 1e6,
    "limits": Limits(per_minute=10, per_day=None, concurrent=2, window=0.1),
}
WORLDS: list[tuple[dict[str, Any], dict[str, Any], set[int]]] = [
    (FREE, tighten(), {200, 201, 400, 401, 404, 405, 409}),
    (FREE, without_keys(tighten()), {200, 201, 400, 401, 404, 405}),
    (LIMITED, tighten(), {200, 201, 429}),
]


def make_service(emulator: Emulator) -> Service:
    return Service(
        emulator.base_url,
        emulator.api_key,
        source_url="https://example.com/face.jpg",
        target_url="https://example.com/target.jpg",
        pause=lambda _: None,
        emulator=emulator,
    )


@pytest.mark.timeout(60 + EXAMPLES * 5)
@pytest.mark.parametrize(
    ("settings", "description", "expected"), WORLDS, ids=["free", "keyless", "limited"]
)
def test_schemathesis_finds_no_disagreement(
    settings: dict[str, Any], description: dict[str, Any], expected: set[int], tmp_path: Path
) -> None:
    """Whatever it sends, it gets what the description says, where limits are met, too."""
    pytest.importorskip("schemathesis")
    with Emulator(**settings) as emulator:
        done = run_schemathesis(description, make_service(emulator), tmp_path, EXAMPLES)
        seen = {request.status for request in emulator.requests}

    assert done.returncode == 0, done.stdout + done.stderr
    assert expected <= seen


def describe(answer: Answer, path: str, method: str) -> str | None:
    """What is not described in an answer, if anything is."""
    description = tighten()
    responses = description["paths"][path][method]["responses"]
    if str(answer.status) not in responses:
        return f"the status {answer.status}"
    response = resolve(description, responses[str(answer.status)])
    missing = [name for name in response["headers"] if name not in answer.headers]
    if missing:
        return f"{missing} are missing"
    return find_fault(response["content"]["application/json"]["schema"], answer.value)


@pytest.mark.parametrize("name", [*scenarios.PROBLEMS, scenarios.DAILY])
def test_every_refusal_is_as_described(name: str) -> None:
    """Status, headers and envelope of each refusal of a creation are described, with its code."""
    with Emulator() as emulator:
        service = make_service(emulator)
        answer = service.create(service.fields(source_url=f"https://example.com/{name}"))

    assert describe(answer, "/swaps", "post") is None


@pytest.mark.parametrize("header", ["", "Bearer nobody"])
def test_a_refused_key_is_as_described(header: str) -> None:
    """Without a key, or with one that is not live, the answer is described, with its code."""
    with Emulator() as emulator:
        answer = make_service(emulator).send("GET", "/me", headers={"Authorization": header})

    assert answer.status == 401
    assert describe(answer, "/me", "get") is None


# What no document knows is not in the description either.
@pytest.mark.parametrize("name", sorted({*scenarios.LIVES} - {"new-status.jpg"}))
def test_every_life_is_as_described(name: str) -> None:
    """A swap is as described from its creation to its end, listed or alone."""
    with Emulator(clock=VirtualClock(), duration=10) as emulator:
        service = make_service(emulator)
        created = service.create(service.fields(source_url=f"https://example.com/{name}"))
        assert describe(created, "/swaps", "post") is None
        for seconds in (0, 2, 6, 10):
            emulator.advance(seconds)
            seen = service.get(f"/swaps/{created.value['id']}")
            assert describe(seen, "/swaps/{id}", "get") is None
            assert describe(service.get("/swaps"), "/swaps", "get") is None


@pytest.mark.parametrize("name", ["face.jpg", "fails.jpg", "fails-bare.jpg", "fails-silent.jpg"])
def test_a_delivery_is_as_described(name: str, receiver: Receiver) -> None:
    """Body and signature of a webhook are as described."""
    with Emulator(duration=0, deliver_to=receiver.origin) as emulator:
        service = make_service(emulator)
        source = f"https://example.com/{name}"
        service.create(service.fields(source_url=source, webhook_url="https://example.com/hook"))
        emulator.settle_blocking()
    ((headers, body),) = receiver.received
    description = tighten()
    ((_, _, hook),) = operations(description["webhooks"])
    signature = resolve(description, hook["parameters"][0])

    assert find_fault(signature["schema"], headers[signature["name"]]) is None
    schema = hook["requestBody"]["content"]["application/json"]["schema"]
    assert find_fault(schema, json.loads(body)) is None
