"""The reference has every public name, once."""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from types import ModuleType
from typing import Any

import aifaceswap
from aifaceswap import emulator, files, testing, webhooks
from aifaceswap.emulator import faults
from support.doc_pages import pages

DIRECTIVE = re.compile(r"^\.\. auto(?:class|exception|function|data):: ([\w.]+)", re.MULTILINE)


def resolve(name: str) -> Any:
    """What a dotted name of the package is."""
    value: Any = aifaceswap
    for part in name.split(".")[1:]:
        # Rooms of extras are modules that the package itself does not name.
        value = getattr(value, part, None) or import_module(f"{value.__name__}.{part}")
    return value


def identity(name: str) -> str:
    """Where it is defined: `aifaceswap.Swap` and `aifaceswap.models.Swap` are one."""
    value = resolve(name)
    defined = isinstance(value, type) or callable(value)
    return f"{value.__module__}.{value.__qualname__}" if defined else name


def public() -> set[str]:
    """Every public name, by where it is defined."""
    lists = {"aifaceswap": aifaceswap.__all__, "aifaceswap.webhooks": webhooks.__all__}
    lists |= {"aifaceswap.emulator": emulator.__all__, "aifaceswap.testing": testing.__all__}
    lists["aifaceswap.files"] = files.__all__
    lists["aifaceswap.emulator.faults"] = [kind.__name__ for kind in faults.ACTIONS.values()]
    names = {f"{module}.{name}" for module, found in lists.items() for name in found}
    return {
        identity(name)
        for name in names
        if not name.endswith("__") and not isinstance(resolve(name), ModuleType)
    }


def test_every_public_name_is_documented_once() -> None:
    """No name is left out, none stands on two pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    counts = Counter(identity(name) for name in DIRECTIVE.findall(text))

    assert public() <= counts.keys()
    assert [name for name, count in counts.items() if count > 1] == []


def test_only_public_names_are_documented() -> None:
    """The reference shows each name by the way that users import it."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    names = DIRECTIVE.findall(text)

    assert [name for name in names if "._" in name] == []
    assert "automodule" not in text


def test_methods_are_chosen_or_complete() -> None:
    """Clients show every method; a new one is in the reference without being asked."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    for name in ("AsyncClient", "AsyncSwaps", "Client", "Swaps", "emulator.Emulator"):
        assert re.search(rf"autoclass:: aifaceswap\.{name}(?:\(\))?\n   :members:\n", text)
