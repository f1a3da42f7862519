"""The command line: parses, calls the library, prints. One file a noun, no logic."""

from lensmith.cli.app import main

__all__ = ["main"]
