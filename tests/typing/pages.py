"""Write the Python of pages to a folder, for type checkers: `python tests/typing/pages.py FOLDER`.

Of those pages whose blocks each stand on their own and have all their types.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGES = ("web-apps.md", "observability.md")
_DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```py(?:thon)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main(folder: str) -> None:
    """A file for each block, named by its page and place; those of an earlier run go."""
    for old in Path(folder).glob("*.py"):
        old.unlink()
    for page in PAGES:
        text = (_DOCS / page).read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 2
            name = f"{page.removesuffix('.md').replace('-', '_')}_{line}.py"
            Path(folder, name).write_text(f"# pyright: strict\n{block[1]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
