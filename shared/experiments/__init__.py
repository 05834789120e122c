"""Experiments: their definition, and the assignment of units to arms. The cloud and the edge compute the same."""
