"""Settings and the teachers file."""
