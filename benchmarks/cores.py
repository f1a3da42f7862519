"""Benchmarks of speed run on two cores, whatever the machine has, so that figures of several machines compare."""

import os

CORES = 2


def keep_to_cores(count: int = CORES) -> None:
    """Keeps this process, and those that it starts, to so many cores; libraries that are loaded later see no more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
