"""One answer, written by student and teacher."""
