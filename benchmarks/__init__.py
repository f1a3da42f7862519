"""Benchmarks: ours and the peer's way, side by side in one run. `python -m benchmarks.NAME [--quick] [--json]`."""
