"""Clients that measure streams, and load generators."""
