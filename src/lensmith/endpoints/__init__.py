"""Endpoints that need no model in this process: over HTTP, invented, or known from a file."""
