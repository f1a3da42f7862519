"""Settings of all tests."""

from hypothesis import settings

# Time limits belong to pytest-timeout: a busy machine is no reason for a property to fail.
settings.register_profile("lensmith", parent=settings.default, deadline=None)
settings.load_profile("lensmith")
