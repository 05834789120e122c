"""The command line: start one or both sides, ask questions, manage models and keys."""
