"""The use case: one answer, written by student and teacher."""
