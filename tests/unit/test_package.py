"""The package as a whole: what it exports, what it loads, and the order of its house."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.resources
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Protocol

import attrs
import pytest

import aifaceswap
from aifaceswap import AsyncClient, AsyncSwaps, Client, Swaps, budget, errors, models

PACKAGE = Path(aifaceswap.__file__).parent

HEAVY = ["aiohttp", "attrs", "attr", "cattrs", "anyio", "click"]


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()


# --- names ---------------------------------------------------------------------------------


def test_all_is_sorted() -> None:
    """The public names are listed once each, in order."""
    assert sorted(set(aifaceswap.__all__)) == aifaceswap.__all__


@pytest.mark.parametrize("name", aifaceswap.__all__)
def test_names_are_there(name: str) -> None:
    """Every public name can be had from the package, at the first and at the second look."""
    value = getattr(aifaceswap, name)

    assert value is not None
    assert value is getattr(aifaceswap, name)


def test_every_name_is_declared_for_type_checkers() -> None:
    """What is loaded lazily is what type checkers see."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert {*aifaceswap.__all__} - {"__version__"} == declared


def test_every_public_value_is_exported() -> None:
    """No public class of the public modules is left out."""
    public = {
        name
        for module in (errors, models, budget)
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and name[0] != "_"
    }

    assert public <= {*aifaceswap.__all__}


def test_a_star_import_gives_all() -> None:
    """`from aifaceswap import *` gives the public names and no other."""
    names: dict[str, object] = {}

    exec("from aifaceswap import *", names)

    assert {*aifaceswap.__all__} == names.keys() - {"__builtins__"}


@pytest.mark.parametrize("name", ["nothing", "_Resources", "Transport", "_codec_", "__nothing__"])
def test_unknown_names(name: str) -> None:
    """What is not public is not there, and the error says so as Python does."""
    with pytest.raises(AttributeError, match=f"^module 'aifaceswap' has no attribute '{name}'$"):
        getattr(aifaceswap, name)


def test_dir_lists_what_is_public() -> None:
    """A shell completes the public names, before any of them is loaded."""
    assert aifaceswap.__all__ == dir(aifaceswap)
    assert str(aifaceswap.__all__) == run("import aifaceswap; print(dir(aifaceswap))")


def test_the_version_is_the_installed_one() -> None:
    """The version is the one that pip knows."""
    assert importlib.metadata.version("aifaceswap") == aifaceswap.__version__


def test_types_are_shipped() -> None:
    """Type checkers are told that the package has types."""
    assert importlib.resources.files("aifaceswap").joinpath("py.typed").is_file()


# --- loading -------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    names = run(f"import sys\n{code}\nprint(*sorted({{n.partition('.')[0] for n in sys.modules}}))")
    return set(names.split()) & set(HEAVY)


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import aifaceswap", set[str]()),
        ("import aifaceswap; aifaceswap.__version__; dir(aifaceswap)", set[str]()),
        ("from aifaceswap import AIFaceSwapError, RateLimitError", set[str]()),
        ("import aifaceswap.errors", set[str]()),
        ("from aifaceswap import Swap, SwapRequest", {"attr", "attrs"}),
        ("import aifaceswap; hasattr(aifaceswap, 'nothing')", set[str]()),
    ],
    ids=["package", "version", "errors", "errors module", "models", "unknown name"],
)
def test_what_importing_loads(code: str, loaded: set[str]) -> None:
    """Importing the package costs next to nothing; each name loads what it needs and no more."""
    assert loaded == loaded_by(code)


def test_the_pure_core_loads_no_http() -> None:
    """What needs no network loads neither aiohttp nor anyio."""
    core = ("_api.codec", "_api.requests", "_api.responses", "budget", "webhooks")

    loaded = loaded_by("\n".join(f"import aifaceswap.{name}" for name in core))

    assert {"attr", "attrs", "cattrs"} == loaded


def test_the_clients_load_no_cli() -> None:
    """A program that uses the clients does not load the command line."""
    assert "click" not in loaded_by("from aifaceswap import AsyncClient, Client")


WITHOUT_FILES = """
from aifaceswap import AsyncClient, Client
from aifaceswap.emulator import Emulator
URLS = {"source_url": "https://example.com/a.jpg", "target_url": "https://example.com/b.jpg"}
with Emulator(duration=0) as emulator:
    with Client(emulator.api_key, base_url=emulator.base_url) as client:
        client.swaps.run(**URLS)
"""
WITH_FILES = (
    WITHOUT_FILES
    + """
        client.swaps.run(source=b"\\xff\\xd8\\xff\\xe0" + bytes(100), target=URLS["target_url"])
        AsyncClient("key", files="s3://bucket/prefix")
"""
)


@pytest.mark.parametrize(("code", "loaded"), [(WITHOUT_FILES, "False"), (WITH_FILES, "True")])
def test_files_are_loaded_by_those_who_have_some(code: str, loaded: str) -> None:
    """And obstore by those who publish in a bucket."""
    shown = 'import sys; print("aifaceswap.files" in sys.modules, "obstore" in sys.modules)'

    assert run(f"{code}\n{shown}") == f"{loaded} False"


def all_modules() -> list[str]:
    """Every module of the package; `__main__` runs the command when it is imported."""
    found = pkgutil.walk_packages(aifaceswap.__path__, "aifaceswap.")
    return [info.name for info in found if not info.name.endswith("__main__")]


def test_modules_import_without_posix() -> None:
    """Windows lacks these modules: each module of the package can be imported without them."""
    code = f"""
import importlib, sys
import asyncio  # imports some of them where they exist
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
for name in {[name for name in all_modules() if ".mcp" not in name]}:
    importlib.import_module(name)
print("imported")
"""

    # The package mcp itself imports one of them wherever `sys.platform` is not that of Windows.
    assert run(code) == "imported"


# --- words ---------------------------------------------------------------------------------


def public_modules() -> list[ModuleType]:
    found = pkgutil.iter_modules(aifaceswap.__path__)
    names = [info.name for info in found if not info.name.startswith("_")]
    return [aifaceswap, *(importlib.import_module(f"aifaceswap.{name}") for name in names)]


def public_classes() -> list[type]:
    values = (getattr(aifaceswap, name) for name in aifaceswap.__all__)
    return [value for value in values if inspect.isclass(value)]


def public_functions() -> list[FunctionType]:
    """The public methods of the public classes and functions of the public modules."""
    methods = [
        value.__func__ if isinstance(value, classmethod | staticmethod) else value
        for cls in public_classes()
        for name, value in vars(cls).items()
        if not name.startswith("_")
    ]
    functions = [
        value
        for module in (errors, models, budget)
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return [value for value in [*methods, *functions] if inspect.isfunction(value)]


def name_of(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or value.__name__)


def section(docstring: str, title: str) -> str:
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", f"{docstring}\n", re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("module", public_modules(), ids=name_of)
def test_modules_are_explained(module: ModuleType) -> None:
    """Every module says in a sentence what it is."""
    assert (module.__doc__ or "").strip().partition("\n")[0].endswith((".", ":", "`"))


@pytest.mark.parametrize("cls", public_classes(), ids=name_of)
def test_classes_are_explained(cls: type) -> None:
    """Every public class has a docstring of its own, and each of its attributes is explained."""
    docstring = inspect.cleandoc(vars(cls)["__doc__"])

    assert docstring.partition("\n")[0].endswith((".", ":"))
    if attrs.has(cls):
        for field in attrs.fields(cls):
            assert f"    {field.name}: " in section(docstring, "Attributes")


def made_by_users() -> list[type]:
    """The public classes with an `__init__()` that is written by hand."""
    return [
        cls
        for cls in public_classes()
        if "__init__" in vars(cls)
        and not attrs.has(cls)
        and cls not in {AsyncSwaps, Swaps}
        and Protocol not in cls.__bases__
    ]


@pytest.mark.parametrize("cls", made_by_users(), ids=name_of)
def test_arguments_of_classes_are_explained(cls: Any) -> None:
    """The arguments that make a public class are explained in its docstring."""
    for name in list(inspect.signature(cls.__init__).parameters)[1:]:
        assert f"    {name}: " in section(inspect.cleandoc(cls.__doc__), "Args")


@pytest.mark.parametrize("function", public_functions(), ids=name_of)
def test_functions_are_explained(function: FunctionType) -> None:
    """Every public function says what it does, what it takes and what it returns."""
    docstring = inspect.cleandoc(function.__doc__ or "")
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    returns = function.__annotations__.get("return")

    assert docstring.partition("\n")[0].endswith(".")
    if elsewhere := re.search(r"; see `(\w+)\.(\w+)`\.$", docstring):
        docstring = inspect.getdoc(getattr(getattr(aifaceswap, elsewhere[1]), elsewhere[2])) or ""
    for name in set(parameters) - {"cls"}:
        assert f"    {name}: " in section(docstring, "Args")
    if returns not in {"None", None}:
        assert section(docstring, "Returns") or section(docstring, "Yields")


@pytest.mark.parametrize("cls", [AsyncClient, AsyncSwaps, Client, Swaps], ids=name_of)
def test_calls_say_what_they_raise(cls: type) -> None:
    """Every call to the service says which errors it may end in, and each of them exists."""
    for name, value in vars(cls).items():
        if name.startswith("_") or name in {"budget", "close", "aclose", "expect_deliveries"}:
            continue
        raised = re.findall(
            r"^    (\w+): ", section(inspect.getdoc(value) or "", "Raises"), re.MULTILINE
        )
        assert raised, name
        for error in raised:
            assert hasattr(errors, error) or error in {"OSError", "KeyboardInterrupt"}


# --- two clients, one interface ------------------------------------------------------------


def test_an_own_session_is_for_asyncio_alone() -> None:
    """A session belongs to an event loop: only the asynchronous client takes one."""
    only = inspect.signature(AsyncClient).parameters.keys()

    assert {"session"} == only - inspect.signature(Client).parameters.keys()


@pytest.mark.parametrize(("awaited", "blocking"), [(AsyncClient, Client), (AsyncSwaps, Swaps)])
def test_one_awaits_and_the_other_blocks(awaited: type, blocking: type) -> None:
    """Every coroutine and async iterator of one client is a blocking method of the other."""
    for name, value in vars(awaited).items():
        if name.startswith("_") or name == "aclose" or not inspect.isfunction(value):
            continue
        other = vars(blocking)[name]
        assert not inspect.iscoroutinefunction(other)
        assert inspect.isasyncgenfunction(value) is inspect.isgeneratorfunction(other)


def test_run_takes_what_create_takes() -> None:
    """`create()` and `run()` take the fields of a `SwapRequest`."""
    create = dict(inspect.signature(AsyncSwaps.create).parameters)
    run_ = dict(inspect.signature(AsyncSwaps.run).parameters)
    del run_["timeout"], run_["on_update"]
    fields = inspect.signature(models.SwapRequest).parameters
    others = {"self", "idempotency_key"}

    assert create == run_
    assert [*fields] == [name for name in create if name not in others]
