"""Endpoints that need no model in this process: over HTTP, invented, replayed or known from a file."""
