"""What both FastAPI services share: the app factory, the uvicorn runner, settings, TLS, bearer keys."""
