"""Settings of all tests."""

import os
import signal

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores. Read when torch is first imported, here or in a command that a test starts.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

# Time limits belong to pytest-timeout: a busy machine is no reason for a property to fail. The same code gets the same
# examples: what a new example shows is found by whoever changes the code, not by whoever runs the checks next.
settings.register_profile("lensmith", parent=settings.default, deadline=None, derandomize=True)
settings.load_profile("lensmith")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever starts the tests in the background of a shell makes them deaf to Ctrl-C, and all commands that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
