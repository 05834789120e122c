"""The laboratory of `gkt eval`: tasks, arms, what each question gave, and what may be said of it."""
