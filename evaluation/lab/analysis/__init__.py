"""Statistics over result rows. No input or output."""
