"""The student on the edge: an OpenAI-compatible endpoint in, answers out."""
