"""Versioned templates and policies, with labels that move: the registry."""
