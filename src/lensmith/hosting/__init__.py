"""A web server in a thread or until told to stop, and the keys that it accepts."""
