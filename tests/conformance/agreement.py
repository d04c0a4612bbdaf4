"""Does an emulator do what its description says? Asked by schemathesis, and by hand."""

from __future__ import annotations

import importlib
import importlib.resources
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conformance.service import Service

DESCRIPTION: dict[str, Any] = json.loads(
    importlib.resources.files("aifaceswap.emulator._service").joinpath("openapi.json").read_bytes()
)
METHODS = frozenset({"get", "post"})


def operations(paths: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of each operation."""
    return [
        (path, method, operation)
        for path, item in paths.items()
        for method, operation in item.items()
        if method in METHODS
    ]


def tighten() -> dict[str, Any]:
    """The description without the room that it leaves to the service, but not to the emulator.

    Open enums are closed, and an answer with a status that is not listed is not described.
    """
    tight: dict[str, Any] = _close_enums(DESCRIPTION)
    for _, _, operation in operations(tight["paths"]):
        del operation["responses"]["default"]
    return tight


def without_keys(description: dict[str, Any]) -> dict[str, Any]:
    """A description of the API without Idempotency-Key.

    Schemathesis sends one key with many bodies, and a conflict hides what it thinks of the rest.
    """
    description["paths"]["/swaps"]["post"]["parameters"] = []
    return description


def _close_enums(value: Any) -> Any:
    if isinstance(value, list):
        return [_close_enums(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        "enum" if name == "x-extensible-enum" else name: _close_enums(item)
        for name, item in value.items()
    }


def resolve(description: dict[str, Any], value: Any) -> Any:
    """The value, or what its `$ref` leads to."""
    while "$ref" in value:
        target = description
        for name in value["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        value = target
    return value


def find_fault(schema: dict[str, Any], value: object) -> str | None:
    """What is wrong with a value, if anything is."""
    # By name, because it has no types.
    jsonschema = importlib.import_module("jsonschema")
    whole = {"components": tighten()["components"], **schema}
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(
            whole, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        ).iter_errors(value)
    )
    return None if error is None else f"{error.json_path}: {error.message}"


def run_schemathesis(
    description: dict[str, Any], service: Service, folder: Path, examples: int
) -> subprocess.CompletedProcess[str]:
    """Let schemathesis look for a disagreement, by all checks it has.

    Args:
        description: What should be true.
        service: Where to look.
        folder: For its files.
        examples: How many requests to make up for each operation.
    """
    described = folder / "openapi.json"
    described.write_text(json.dumps(description))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(described)),
        *("--url", service.url, "--header", f"Authorization: Bearer {service.api_key}"),
        *("--checks", "all", "--max-examples", str(examples), "--continue-on-failure"),
        *("--generation-deterministic", "--no-color"),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *_python_path()]),
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "AIFACESWAP_CURSOR": _make_cursor(service),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _python_path() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return [path] if path else []


def _make_cursor(service: Service) -> str:
    for _ in range(2):
        service.create(service.fields())
    return str(service.get("/swaps?limit=1").value["next_cursor"])
