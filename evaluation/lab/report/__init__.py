"""`gkt eval report` and `gkt eval compare`: HTML page, Markdown, charts, tables."""
