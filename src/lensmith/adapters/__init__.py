"""lensmith's models inside other evaluation frameworks. Each module needs its framework installed, and nothing else."""
