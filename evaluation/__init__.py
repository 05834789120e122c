"""Measures the running services over HTTP, like any client."""
