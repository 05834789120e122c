"""Decides whether a request may run now: limits of its key, the fair queue, rates."""
