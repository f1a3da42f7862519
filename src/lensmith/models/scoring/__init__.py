"""How likely a model finds given answers."""
