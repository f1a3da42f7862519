"""Checkpoints as files: shards, their writing, and rules that map names of weights."""
