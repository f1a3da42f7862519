"""A web server in a thread or until told to stop; the keys that it accepts, and compressed bodies of requests."""
