"""What an interface allows, found out by about forty questions."""
