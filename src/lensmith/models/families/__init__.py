"""The published models, a folder each."""
