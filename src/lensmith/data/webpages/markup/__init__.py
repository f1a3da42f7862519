"""HTML that somebody else wrote: repaired, made to stand alone, aligned with its pretty form."""
