"""Sphinx configuration of the documentation: `make docs`."""

project = "gkt"
author = "the gkt authors"
copyright = author  # noqa: A001 (Sphinx reads this name)

extensions = ["myst_parser"]
exclude_patterns = ["lm_eval"]
myst_heading_anchors = 4  # headings get the anchors that code forges give them, so that links work in both places
nitpicky = True

html_theme = "pydata_sphinx_theme"
html_title = "gkt"
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": []}
html_theme_options = {
    "navbar_align": "left",
    "navigation_depth": 3,
    "show_nav_level": 2,
    "show_toc_level": 2,
    "show_prev_next": False,
    "footer_start": [],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}
