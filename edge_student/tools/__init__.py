"""Tool calling: prompt format and parser."""
