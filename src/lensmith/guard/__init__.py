"""The guard: a reverse proxy that enforces an exposure in front of any OpenAI-compatible server."""
