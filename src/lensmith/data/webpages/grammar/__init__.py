"""Pages drawn from a seeded grammar: their structure, words and styles."""
