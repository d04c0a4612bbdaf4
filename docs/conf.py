"""Sphinx settings."""

project = "aifaceswap"
author = "The aifaceswap maintainers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "aifaceswap"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_use_ivar = True
myst_heading_anchors = 3
# Types of other projects: their inventories would have to be fetched.
nitpick_ignore_regex = [("py:.*", r".*")]
suppress_warnings = ["myst.xref_missing"]
