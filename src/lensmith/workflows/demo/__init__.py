"""Everything in small, ending in one report."""
