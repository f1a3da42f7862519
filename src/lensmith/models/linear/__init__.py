"""Linear layers for a CPU: packed for the processor, or 8-bit."""
