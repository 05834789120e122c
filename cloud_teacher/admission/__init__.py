"""Decides if a request may run now: limits of its key, the fair queue, rates, budgets."""
