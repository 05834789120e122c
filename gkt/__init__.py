"""The command line: starts either side, both, asks, and manages models."""
