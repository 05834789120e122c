"""Terminal output of the command line."""
