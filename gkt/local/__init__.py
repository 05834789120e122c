"""Processes that the command line runs on this machine."""
