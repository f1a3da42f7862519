"""Pairs of a web page and its screenshot, generated or real, and the shards that hold them."""
