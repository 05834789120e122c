"""Parts of all FastAPI services: the app factory, the uvicorn runner, settings, TLS, bearer keys."""
