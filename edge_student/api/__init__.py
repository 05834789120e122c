"""OpenAI-compatible routes: parse requests, build response chunks."""
