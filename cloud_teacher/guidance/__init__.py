"""The use case: one guidance or review request, from admission to `done`."""
