"""The laboratory of `gkt eval`: tasks, arms, runs, and the analysis of their results."""
