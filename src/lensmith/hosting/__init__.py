"""A web server in a thread or until a signal; the keys that it accepts, and compressed bodies of requests."""
