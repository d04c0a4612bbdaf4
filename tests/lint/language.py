"""Count wording that plain technical English does not use; the count may only fall.

    python tests/lint/language.py           check the count
    python tests/lint/language.py --list    show each place
    python tests/lint/language.py FILE ...  show each place in some files

Comments, docstrings and strings of the package count, and the complete text of other files.
When the count falls, lower `ALLOWED` in the same commit.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ALLOWED = 20

ROOT = Path(__file__).parents[2]
PLACES = ("aifaceswap/**/*.py", "aifaceswap/**/*.html", "docs/**/*.md", "README.md", "CHANGELOG.md")

# Wording, and what to write instead.
PHRASES = {
    r"(?<!there )\b(is|are|was|were) no\b(?! longer)": "is not a ...; must be a ...",
    r"\banew\b|\bonce more\b": "again",
    r"\bunder way\b": "in progress",
    r"\blook(s|ed|ing)?\b(?! (up|like|for)\b)": "poll, check, see",
    r"\banswer(s|ed|ing)?\b(?! (with )?[0-9])": "response, respond",
    r"\bwhole\b(?! number)": "complete",
    r"\bbeliev": "valid, verified",
    r"\bmend": "fix",
    r"\bunless given\b": "default: ...",
    r"\bfresh (key|one)s?\b": "new key",
    r"\bso long at most\b": "maximum time",
    r"\btold\b|\btells? of\b": "report, show, notify",
    r"\blive (key|one)s?\b": "active key",
    r"\bpatien(t|ce)\b": "timeout",
    r"\bsteer": "control",
    r"\ba creation\b|\bcreations\b": "creating a swap; create requests",
    r"\bto be had\b|\bcan be had\b": "available",
    r"\bfor want of\b|\breckon": "without; estimate",
    r"\bhand(s|ed|ing)? on\b": "forward",
    r"\bpaid twice\b": "charged twice",
    r"\b(go|goes|going|went) on\b": "continue, resume",
    r"\bput right\b|\bset right\b": "fix",
    r"\bstruck\b|\bstrikes?\b": "applies, triggers",
    r"\b(he|his|him)\b": "they, their; your user",
    r"(?<!connection )(?<!connection was )\brefus(e[sd]?|ing|al)\b": "reject",
    r"\bpictures?\b": "image, photo, plot",
    r"\bwhoever\b": "anyone who",
    r"\bhas ended\b": "has finished",
    r"(?<!pre)\bpaid\b": "charged",
    r"\bstands (in|on|at)\b": "is in",
    r"\bsomebody\b": "someone; what it is",
}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Each line number of a file and the words there."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if name in {"STRING", "COMMENT", "FSTRING_MIDDLE"}:
            words = re.sub(r"\{[^{}]*\}", "", token.string)  # names in f-strings of Python 3.11
            yield from enumerate(words.splitlines(), token.start[0])


def findings(paths: list[Path]) -> Iterator[tuple[Path, int, str, str]]:
    """File, line number, phrase and text of each place."""
    patterns = {phrase: re.compile(phrase, re.IGNORECASE) for phrase in PHRASES}
    for path in paths:
        for number, text in texts(path):
            for phrase, pattern in patterns.items():
                for _ in pattern.finditer(text):
                    yield path, number, phrase, text.strip()


def main(arguments: list[str]) -> int:
    """Compare the count with the one that is allowed."""
    files = [Path(name).resolve() for name in arguments if name != "--list"]
    paths = files or sorted(path for place in PLACES for path in ROOT.glob(place))
    found = list(findings(paths))
    if arguments:
        for path, number, phrase, text in found:
            print(f"{path.relative_to(ROOT)}:{number}: {PHRASES[phrase]!r}: {text[:120]}")
    for phrase, count in Counter(phrase for _, _, phrase, _ in found).most_common():
        print(f"{count:5}  {phrase}  ->  {PHRASES[phrase]}")
    print(f"{len(found):5}  in all; {ALLOWED} allowed")
    return len(found) > ALLOWED and not files


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
