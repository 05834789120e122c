"""The model catalogue, downloads and their progress."""
