"""Servers elsewhere as teachers. Only what is here talks to them, and only with the `openai` client."""
