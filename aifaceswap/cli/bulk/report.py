"""A journal as one page that needs nothing else: counts, errors by kind, and every row."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import attrs

from aifaceswap._api import codec
from aifaceswap._http.images import data_url_of
from aifaceswap._http.saving import PartialFile, check_target
from aifaceswap.bulk._journal import JournalEntry, JournalView
from aifaceswap.cli import rendering
from aifaceswap.cli.bulk.records import STATES
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import CommandError
from aifaceswap.cli.output import STDOUT, binary_stdout
from aifaceswap.cli.rendering import Display, note, printable
from aifaceswap.errors import AIFaceSwapError
from aifaceswap.models import Swap, without_queries, without_query

_MOST_EMBEDDED = 2000
# Browsers do not open pages that are much larger.
_MOST_BYTES = 256 * 1024 * 1024
_LONGEST_TEXT, _LONGEST_CODE = 2000, 40
_INPUTS = ("source", "target")
_STEP = 1000  # rows between two updates of the display

_PLACE = re.compile(r"\{\{(\w+)\}\}")
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_LINK = re.compile(r"https?://\S+", re.IGNORECASE)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# An image on the page: a text; a text that is a link; or a text, its link ("" for the text itself)
# and the source of the image: the number of an embedded one, or "" for the link itself.
_Image = str | list[str | int]


@attrs.frozen(kw_only=True)
class ReportArguments:
    """The arguments of `report`; `output` may be `STDOUT`."""

    journal: Path
    output: Path
    embed: bool
    remote_images: bool


def report(context: CommandContext, arguments: ReportArguments) -> None:
    """Write the page of a journal, to stdout or to a file that appears when it is complete."""
    if arguments.output == STDOUT:
        _write_page(arguments, binary_stdout(context))
        return
    target = check_target(arguments.output)
    with PartialFile(target) as partial:
        # As private as the journal, because it has the same contents.
        os.chmod(partial.file.name, 0o600)
        rows = _write_page(arguments, partial.file)
        partial.move_to(target)
    note(f"Saved {printable(target)} ({rows:,} rows, {rendering.size_of(target)}).")
    if not context.shows_table:
        fields = {"journal": str(arguments.journal), "output": str(target), "rows": rows}
        rendering.write_json(fields)


def _write_page(arguments: ReportArguments, file: IO[bytes]) -> int:
    """Read all rows and write the page; return the number of rows."""
    with ExitStack() as stack:
        rows, images = (_Lines(stack.enter_context(tempfile.TemporaryFile())) for _ in range(2))
        page = _Page(rows, _Images(arguments, images))
        journal = stack.enter_context(JournalView.open(arguments.journal))
        total = sum(journal.counts().values())
        if arguments.embed and total > _MOST_EMBEDDED:
            raise _too_large(f"the journal has {total:,} rows, more than {_MOST_EMBEDDED:,}")
        with Display("Reading the journal") as display:
            for entry in journal.entries():
                page.add(entry)
                if rows.count % _STEP == 0:
                    display.count(rows.count, total)
        page.write(arguments, file)
        return rows.count


def _too_large(reason: str) -> CommandError:
    message = f"--embed stores every image in the page, which would not open: {reason}"
    return CommandError(message, "Leave out --embed: the page then shows the saved files.")


@attrs.define(eq=False)
class _Lines:
    """Values as lines of JSON, on the disk until it is known what stands above them."""

    file: IO[bytes]
    count: int = 0

    def add(self, value: object) -> None:
        self.file.write((b",\n" if self.count else b"\n") + _json(value))
        self.count += 1

    def copy_to(self, file: IO[bytes]) -> None:
        self.file.seek(0)
        shutil.copyfileobj(self.file, file)


class _Images:
    """What the page shows as the images of a row."""

    def __init__(self, arguments: ReportArguments, embedded: _Lines) -> None:
        self.embedded = embedded
        self._embeds = arguments.embed
        self._loads_remote = arguments.remote_images
        self._folder = os.path.join(os.path.abspath(arguments.output.parent), "")
        # A path in the journal is relative to where the run was started, or to the journal.
        folders = (os.curdir, arguments.journal.parent)
        self._folders = [os.path.abspath(folder) for folder in folders]
        # Many rows have the same photo.
        self.of_file = lru_cache(8192)(self._of_file)
        self.of_url = lru_cache(8192)(self._of_url)

    def _of_url(self, url: str) -> _Image:
        text = without_query(url) or ""
        if self._loads_remote and url.startswith("https://"):
            return [text, "" if url == text else url, ""]
        # Without its query, which can be a signature, a URL leads nowhere.
        return [text] if url == text and _LINK.fullmatch(url) else text

    def _of_file(self, path: str) -> _Image | None:
        """An existing file."""
        for folder in self._folders:
            file = os.path.normpath(os.path.join(folder, path))
            if os.path.isfile(file):
                url = self._link_to(file)
                return [path, "" if url == path else url, self._embed(file)]
        return None

    def _link_to(self, file: str) -> str:
        if not file.startswith(self._folder):
            return Path(file).as_uri()
        # Page and file can be moved together.
        return quote(os.fsencode(file.removeprefix(self._folder).replace(os.sep, "/")))

    def _embed(self, file: str) -> int | str:
        """The number of an embedded image; empty: the page shows the file."""
        url = data_url_of(Path(file), _MOST_BYTES) if self._embeds else None
        if url is None:
            return ""
        self.embedded.add(url)
        if self.embedded.file.tell() > _MOST_BYTES:
            raise _too_large(f"its images are larger than {_MOST_BYTES // 2**20} MiB together")
        return self.embedded.count - 1


@attrs.define(eq=False)
class _Page:
    rows: _Lines
    images: _Images
    credits: float = 0.0
    states: Counter[str] = attrs.field(factory=Counter[str])
    # Of each kind of errors, by class and code, how many rows it has and its first message.
    kinds: Counter[tuple[str, str]] = attrs.field(factory=Counter[tuple[str, str]])
    examples: dict[tuple[str, str], str] = attrs.field(factory=dict[tuple[str, str], str])

    def add(self, entry: JournalEntry) -> None:
        """Write a row in the order in which the page's script reads it."""
        body: dict[str, Any] = codec.loads(entry.body)
        files: dict[str, Any] = codec.loads((entry.files or "{}").encode())
        swap, error = entry.swap, entry.error
        self.states[STATES[entry.state]] += 1
        self.credits += (entry.cost or 0) + entry.earlier_cost
        created = None if swap is None else swap.created_at
        metadata = body.get("metadata")
        row = [
            entry.number,
            STATES[entry.state],
            None if error is None else " ".join(self._count(error, swap)),
            entry.swap_id,
            body.get("type"),
            entry.cost,
            round(entry.seconds, 3),
            entry.key,
            *(self._input(files.get(name), body.get(f"{name}_url")) for name in _INPUTS),
            self._result(entry, swap),
            None if created is None else f"{created.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            None if metadata is None else _shorten(_encode(metadata)),
            None if error is None else _shorten(error.message),
        ]
        self.rows.add(row)

    def write(self, arguments: ReportArguments, file: IO[bytes]) -> None:
        """Write the page."""
        package = importlib.resources.files("aifaceswap.cli.bulk")
        template = package.joinpath("report.html").read_text("utf-8")
        texts = {
            "policy": _policy(template, "https:" if arguments.remote_images else ""),
            "name": escape(printable(arguments.journal.name)),
            "summary": "".join(self._summary()),
        }
        lines = {"rows": self.rows, "images": self.images.embedded}
        for number, part in enumerate(_PLACE.split(template)):
            if number % 2 and part in lines:
                lines[part].copy_to(file)
            else:
                file.write((texts[part] if number % 2 else part).encode())
        file.flush()

    def _input(self, file: Mapping[str, Any] | None, url: str | None) -> _Image | None:
        """A source or target: the local file that was published, or else its URL."""
        path = None if file is None else file.get("path")
        if path is not None:
            return self.images.of_file(path) or path
        return None if url is None else self.images.of_url(url)

    def _result(self, entry: JournalEntry, swap: Swap | None) -> _Image | None:
        path = None if entry.path is None else os.fsdecode(entry.path)
        saved = None if path is None else self.images.of_file(path)
        if saved is not None or swap is None or swap.result_url is None:
            return saved or path
        return self.images.of_url(swap.result_url)

    def _count(self, error: AIFaceSwapError, swap: Swap | None) -> tuple[str, str]:
        reason: object = None if swap is None else swap.error
        code: object = getattr(error, "code", None)
        if code is None and isinstance(reason, Mapping):
            code = cast("Mapping[str, object]", reason).get("code")
        kind = type(error).__name__, str(code or "")[:_LONGEST_CODE]
        self.kinds[kind] += 1
        self.examples.setdefault(kind, _shorten(error.message))
        return kind

    def _summary(self) -> Iterator[str]:
        """What is readable without scripts: counts first, then errors by kind."""
        counts = {
            "Rows": f"{self.rows.count:,}",
            **{name.capitalize(): f"{rows:,}" for name, rows in self.states.most_common()},
            "Credits": f"{self.credits:,.10g}",
            "Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        }
        items = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in counts.items())
        yield f"<dl class=counts>{''.join(items)}</dl>"
        if self.kinds:
            yield "<h2>Errors</h2><table><thead><tr><th>Rows<th>Error<th>Code<th>Example</thead>"
            for kind, rows in self.kinds.most_common():
                cells = (f"{rows:,}", *kind, self.examples[kind])
                yield "<tr>" + "".join(f"<td>{escape(printable(cell))}" for cell in cells)
            yield "</table>"


def _json(value: object) -> bytes:
    """JSON that ends no script element; what is not text stays an escape."""
    return _encode(value).replace("<", "\\u003c").encode("utf-8", "backslashreplace")


def _shorten(text: str) -> str:
    shown = without_queries(text)
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[:_LONGEST_TEXT]}…"


def _policy(template: str, image_source: str) -> str:
    """The page's policy: its own script and style alone, and images of the kinds that it needs."""
    sources = {kind: _hash(content) for kind, content in _INLINE.findall(template)}
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"img-src 'self' file: data: {image_source}; "
        f"script-src {sources['script']}; style-src {sources['style']}; "
        # What others have written can never become HTML.
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
