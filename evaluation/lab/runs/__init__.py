"""`gkt eval run`: ask the questions of a task under several arms."""
