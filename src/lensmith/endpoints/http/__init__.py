"""The client of an OpenAI-compatible server: requests, retries, and errors that name the cause."""
