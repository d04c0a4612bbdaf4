"""Sphinx settings; and llms.txt, the documentation for language models."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "aifaceswap"
author = "The aifaceswap maintainers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "aifaceswap"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_favicon = "_static/favicon.svg"
copyright = "The aifaceswap maintainers, MIT licensed"  # noqa: A001 - Sphinx's name
# Only the commands of a console block are copied, without their prompt and output.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "py:obj"
napoleon_google_docstring = True
napoleon_use_ivar = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Names of other projects: their inventories would have to be fetched. Ours must all be found.
nitpick_ignore_regex = [
    ("py:.*", r"(?!aifaceswap).*"),
    # Type variables, and protocols that only stand in signatures.
    ("py:.*", r"aifaceswap\.[\w.]+\.(T|WaitingClient)"),
]

SUMMARY = "Async-first Python SDK for the AI Face Swap API, with a blocking client and an emulator."


def write_llms(app: Sphinx, failure: Exception | None) -> None:
    """Write llms.txt, a table of contents, and llms-full.txt, all pages in their order."""
    if failure or app.builder.name != "html":
        return
    index, whole = [f"# {project}\n\n> {SUMMARY}\n"], []
    for caption, names in _chapters(app):
        index.append(f"\n## {caption}\n")
        for name in names:
            source = Path(app.env.doc2path(name)).read_text(encoding="utf-8")
            title = app.env.titles[name].astext()
            index.append(f"- [{title}]({name}.html)")
            whole.append(f"<!-- {name} -->\n\n{source}")
    out = Path(app.outdir)
    (out / "llms.txt").write_text("\n".join(index) + "\n", encoding="utf-8")
    (out / "llms-full.txt").write_text("\n".join(whole), encoding="utf-8")


def _chapters(app: Sphinx) -> list[tuple[str, list[str]]]:
    """The captions of the table of contents, and the pages below each."""
    from sphinx.addnodes import toctree  # noqa: PLC0415 - only to build

    trees = app.env.get_doctree(str(app.config.root_doc)).findall(toctree)
    return [(tree["caption"], tree["includefiles"]) for tree in trees]


def describe_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, object], doctree: Any
) -> None:
    """Give each page its first paragraph as the description that search engines show."""
    from docutils.nodes import paragraph  # noqa: PLC0415 - only to build

    first = next(iter(doctree.findall(paragraph)), None) if doctree else None
    if first is not None:
        text = html.escape(" ".join(first.astext().split())[:200])
        context["metatags"] = f'{context["metatags"]}<meta name="description" content="{text}" />'


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", describe_page)
    app.connect("build-finished", write_llms)
