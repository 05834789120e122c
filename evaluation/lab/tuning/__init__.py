"""`gkt tune`: find the cheapest policy that keeps a given part of the teacher's accuracy."""
