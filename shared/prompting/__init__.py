"""Chat formats, guidance templates, word boundaries, and tokenizing off the event loop."""
