"""Writes the signatures of `sync.py` and of the reference, and docstrings, from `client.py`.

`nox -s sync` writes them; in the lint session, with ``--check``, a difference is an error.
Bodies in `sync.py` are written by hand. A method that is missing there gets a body that runs
the asynchronous method.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "aifaceswap"
REFERENCE = PACKAGE.parent / "docs" / "reference.md"
SIGNATURES = "## Signatures"
PAIRS = {"AsyncClient": "Client", "AsyncSwaps": "Swaps"}
WORDS = {
    r"\basync (def|with|for)\b": r"\1",
    r"\bAsync(Client|Iterator|Bulk)\b": r"\1",
    r"\bAbstractAsync(ContextManager)\b": r"Abstract\1",
}
# An aiohttp session belongs to an event loop: the blocking client takes none.
SESSION = re.compile(r"^        session: .*\n(?:            .*\n)*", re.MULTILINE)

Method = ast.FunctionDef | ast.AsyncFunctionDef
Edit = tuple[int, int, str]


def written(client: str, sync: str) -> str:
    """The text of `sync.py` with the signatures and docstrings of `client.py`."""
    lines = sync.splitlines(keepends=True)
    awaited, blocking = _classes(client), _classes(sync)
    pairs = [(awaited[name], blocking[PAIRS[name]]) for name in PAIRS]
    edits = [edit for pair in pairs for edit in _edits(client.splitlines(keepends=True), *pair)]
    for first, end, text in reversed(edits):
        lines[first:end] = [_blocking_words(text)]
    return "".join(lines)


def _edits(client: list[str], awaited: ast.ClassDef, blocking: ast.ClassDef) -> Iterator[Edit]:
    """What to replace in `sync.py`: the first line, the one after the last, the new text."""
    first, end = _sections(awaited), _sections(blocking)
    yield *end, "".join(client[slice(*first)])
    own = dict(_methods(blocking))
    last = end[1]
    for key, method in _methods(awaited):
        head = "".join(client[slice(*_head(method))])
        if key in own:
            yield *_head(own[key]), head
            last = own[key].end_lineno or 0
        else:
            yield last, last, f"\n{head}{_default_body(method, awaited.name)}"


def _classes(source: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _sections(cls: ast.ClassDef) -> tuple[int, int]:
    """The lines of a class's docstring from `Args` on; what is before is written by hand."""
    end = cls.body[0].end_lineno or 0
    text = (ast.get_docstring(cls, clean=False) or "").splitlines()
    kept = text.index("    Args:") if "    Args:" in text else len(text)
    return cls.body[0].lineno - 1 + kept, end


def _methods(cls: ast.ClassDef) -> Iterator[tuple[tuple[str, int], Method]]:
    """The client's `__init__()` and the public methods; overloads are numbered."""
    seen: dict[str, int] = {}
    for node in cls.body:
        if not isinstance(node, Method) or node.name in {"aclose", "close"}:
            continue
        if node.name.startswith("_") and (node.name != "__init__" or "Swaps" in cls.name):
            continue
        seen[node.name] = seen.get(node.name, 0) + 1
        yield (node.name, seen[node.name]), node


def _head(method: Method) -> tuple[int, int]:
    """The lines of decorators, signature and docstring (of an overload: all of it)."""
    first = min(node.lineno for node in (method, *method.decorator_list)) - 1
    start = method.body[0]
    if isinstance(start, ast.Expr) and isinstance(start.value, ast.Constant):
        return first, start.end_lineno or 0
    assert method.returns is not None
    return first, method.returns.end_lineno or 0


def _default_body(method: Method, cls: str) -> str:
    arguments = [argument.arg for argument in method.args.args[1:]]
    arguments += [f"{argument.arg}={argument.arg}" for argument in method.args.kwonlyargs]
    owner = "_client" if cls == "AsyncClient" else "_swaps"
    call = ", ".join([f"self.{owner}.{method.name}", *arguments])
    return f"        return self._thread.run({call})\n"


def _blocking_words(text: str) -> str:
    for pattern, word in WORDS.items():
        text = re.sub(pattern, word, text)
    return SESSION.sub("", text)


def listed(client: str, sync: str, page: str) -> str:
    """The reference with the signatures of both clients, as they are."""
    uses = {
        "Asynchronous": [(client, "AsyncClient"), (client, "AsyncSwaps")],
        "Blocking": [(sync, "Client"), (sync, "Swaps")],
    }
    text = "\n".join(_signatures(use, classes) for use, classes in uses.items())
    return f"{page.partition(SIGNATURES)[0]}{SIGNATURES}\n\n{text}"


def _signatures(use: str, classes: Sequence[tuple[str, str]]) -> str:
    lines = [f"### {use}", "", "```text"]
    for source, name in classes:
        lines += [f"class {name}:", *_signature_lines(source, name), ""]
    return "\n".join([*lines[:-1], "```", ""])


def _signature_lines(source: str, name: str) -> Iterator[str]:
    lines = source.splitlines()
    for _, method in _methods(_classes(source)[name]):
        if not method.decorator_list:  # an overload, or a property
            assert method.returns is not None
            for line in lines[method.lineno - 1 : method.returns.end_lineno]:
                yield line.partition("  # noqa")[0].removesuffix(":" if line.endswith(":") else "")


def main(*arguments: str) -> int:
    """Write `sync.py` and the reference, or with ``--check`` say whether they are up to date."""
    target = PACKAGE / "sync.py"
    sync = target.read_text("utf-8")
    client = (PACKAGE / "client.py").read_text("utf-8")
    raw = written(client, sync)
    command = ["ruff", "format", "--stdin-filename", str(target), "-"]
    text = subprocess.run(command, input=raw, capture_output=True, text=True, check=True).stdout
    page = REFERENCE.read_text("utf-8")
    reference = listed(client, text, page)
    if "--check" in arguments:
        if is_stale := (text, reference) != (sync, page):
            text = "sync.py or docs/reference.md differs from client.py: run `nox -s sync`"
            print(text, file=sys.stderr)
        return int(is_stale)
    target.write_text(text, "utf-8")
    REFERENCE.write_text(reference, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
