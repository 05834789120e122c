"""API keys and callers. Knows no database."""
