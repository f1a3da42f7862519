"""Build, use, serve, audit and guard vision-language models."""

__version__ = "0.1.0"
