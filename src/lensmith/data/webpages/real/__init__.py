"""Web pages that somebody else made: fetched from package registries, prepared to stand alone, chosen, pinned.

Read `prepare` (what becomes of a page), then `collect` (which pages are kept), then `pinned` (the test sets).
The rules mirror those of Design2Code (arXiv 2403.03163, section 3.1), whose 484 pages come from a crawl instead.
"""
