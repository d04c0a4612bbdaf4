"""An outcome as HTML, for notebooks: escaped, and without the queries of URLs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from aifaceswap._http.images import data_url_of
from aifaceswap.models import without_queries

if TYPE_CHECKING:
    from aifaceswap.bulk._values import Outcome

# A notebook stores what it shows: larger images are named only.
_LARGEST = 5 * 1024 * 1024


def html_of(outcome: Outcome) -> str:
    """A table of what is known, and below it the saved image."""
    shown = {name: value for name, value in outcome.as_row().items() if value is not None}
    lines = "".join(
        f'<tr><th style="text-align:left">{name}</th>'
        f'<td style="text-align:left">{escape(without_queries(str(value)))}</td></tr>'
        for name, value in shown.items()
    )
    url = None if outcome.path is None else data_url_of(outcome.path, _LARGEST)
    image = "" if url is None else f'<img src="{url}" alt="" style="max-height:20em">'
    return f"<table>{lines}</table>{image}"
