"""HTTP routes and their FastAPI dependencies."""
