"""API keys and callers, without a database."""
