"""One guidance or review request, from admission to `done`."""
