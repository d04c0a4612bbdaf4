"""The description itself: valid, complete, and honest about how sure it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from aifaceswap import Account, Credits, RateLimit, Swap, SwapRequest
from aifaceswap.emulator import Emulator, VirtualClock
from conformance.agreement import DESCRIPTION, find_fault, operations, resolve
from conformance.service import Service
from support.error_codes import CONTRACT

COMPONENTS = DESCRIPTION["components"]
LEVELS = {"documented", "inferred", "unknown"}

GUESSED = {"not_found": 404, "idempotency_conflict": 409, "internal_error": 500}


def facts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything that the description says, with its place."""
    for kind in ("securitySchemes", "parameters", "headers", "responses", "schemas"):
        for name, value in COMPONENTS[kind].items():
            yield f"{kind}/{name}", value
            yield from _properties(f"{kind}/{name}", value)
    for path, method, operation in operations(DESCRIPTION["paths"] | DESCRIPTION["webhooks"]):
        yield f"{method} {path}", operation
        for status, response in operation["responses"].items():
            yield f"{method} {path} {status}", resolve(DESCRIPTION, response)
    for number, server in enumerate(DESCRIPTION["servers"]):
        yield f"servers/{number}", server


def _properties(place: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in schema.get("properties", {}).items():
        yield f"{place}.{name}", value
        yield from _properties(f"{place}.{name}", value)


FACTS = dict(facts())


def test_it_is_openapi() -> None:
    """The description is valid OpenAPI 3.1."""
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(DESCRIPTION, cls=validator.OpenAPIV31SpecValidator)


@pytest.mark.parametrize("place", FACTS)
def test_every_fact_says_how_sure_it_is(place: str) -> None:
    """No operation, parameter, header, answer or field goes without its certainty."""
    assert FACTS[place].get("x-certainty") in LEVELS


def test_null_is_only_assumed() -> None:
    """No document says that null may stand for an optional field of a creation."""
    fields = COMPONENTS["schemas"]["SwapRequest"]["properties"].values()
    nullable = [field for field in fields if "null" in field.get("type", [])]

    assert [field["x-assumed"] for field in nullable] == ["null"] * 4


def test_the_codes_are_those_of_the_documents() -> None:
    """Each code stands at its status, and there is no other."""
    described = {}
    for _, _, operation in operations(DESCRIPTION["paths"]):
        for status, reference in operation["responses"].items():
            for code in _codes(resolve(DESCRIPTION, reference)):
                described[code] = int(status)
    (method,) = _codes(COMPONENTS["responses"]["MethodNotAllowed"])

    assert {**described, method: 405} == CONTRACT | GUESSED


def _codes(response: dict[str, Any]) -> list[str]:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    error = schema.get("properties", {}).get("error", {}).get("properties", {})
    codes: list[str] = error.get("code", {}).get("x-extensible-enum", [])
    return codes


@pytest.mark.parametrize(
    ("place", "model"),
    [
        ("schemas/SwapRequest", SwapRequest),
        ("schemas/Swap", Swap),
        ("schemas/Account", Account),
        ("schemas/Account.credits", Credits),
        ("schemas/Account.rate_limit", RateLimit),
    ],
)
def test_the_fields_are_those_of_the_models(place: str, model: type[attrs.AttrsInstance]) -> None:
    """The description and the client know the same fields."""
    fields = {field.name for field in attrs.fields(model)} - {"extra"}
    if model is SwapRequest:
        fields -= {"source", "target"}  # local files, which are sent as URLs
    if model is RateLimit:
        fields -= {"reset"}  # only the headers have it

    assert fields == FACTS[place]["properties"].keys()


def examples() -> Iterator[tuple[dict[str, Any], object]]:
    """Each example with the schema that it is for."""
    yield from _examples(DESCRIPTION)


def _examples(value: Any) -> Iterator[tuple[dict[str, Any], object]]:
    if isinstance(value, dict):
        if "schema" in value:
            yield from ((value["schema"], e["value"]) for e in value.get("examples", {}).values())
            yield from ((value["schema"], value[name]) for name in ("example",) if name in value)
        for item in value.values():
            yield from _examples(item)
    elif isinstance(value, list):
        for item in value:
            yield from _examples(item)


def test_every_example_is_one() -> None:
    """Examples are valid by their schemas."""
    found = list(examples())

    assert len(found) > 8
    assert [find_fault(schema, value) for schema, value in found] == [None] * len(found)


def test_the_emulator_serves_it() -> None:
    """Without a key, without counting; it sends tools to the emulator, not to the service."""
    with Emulator(clock=VirtualClock()) as emulator:
        service = Service(emulator.origin, "no key", "", "", pause=lambda _: None)
        answer = service.send("GET", "/openapi.json", headers={"Authorization": ""})
        refused = service.send("DELETE", "/openapi.json")
        head = service.send("HEAD", "/openapi.json")
        service = Service(emulator.base_url, emulator.api_key, "", "", pause=lambda _: None)
        left = service.get("/me").headers["x-ratelimit-remaining"]

    assert (answer.status, answer.headers.get_content_type()) == (200, "application/json")
    assert answer.value == DESCRIPTION | {"servers": [{"url": "/api/v1"}]}
    assert (refused.code, refused.headers["Allow"]) == ("method_not_allowed", "GET, HEAD")
    assert (head.status, head.body) == (200, b"")
    assert left == "59"
