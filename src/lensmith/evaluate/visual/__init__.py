"""How alike two rendered pages are: blocks matched, then text, position, colour and pixels compared."""
