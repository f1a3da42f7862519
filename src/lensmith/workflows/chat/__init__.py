"""Conversations with pictures: with a local model or an endpoint."""
