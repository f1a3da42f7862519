"""Whether the model behind an endpoint has changed since it was last looked at."""
