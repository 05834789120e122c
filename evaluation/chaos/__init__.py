"""Faults of every kind while requests run, and what clients must see all the same."""
