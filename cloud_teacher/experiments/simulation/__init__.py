"""Simulated experiments: how often the statistics are wrong, and how much data they need. Behind `gkt experiment simulate`."""
