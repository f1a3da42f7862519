"""Writes docs/cli.md from the help texts of the command line, or checks that it is up to date (`--check`)."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["COLUMNS"] = "100"  # before anything measures the terminal
os.environ["NO_COLOR"] = "1"

from typer.main import get_command
from typer.testing import CliRunner

from lensmith.cli.app import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """# Command line

Results go to stdout, progress and messages to stderr. Exit status: 0 done or clean, 1 findings, 2 bad usage or input,
3 could not tell, 130 interrupted. This page is written by `make format` from the commands' own help.
"""


def command_paths(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The command itself, then all below it, in the order of the help."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from command_paths(below, (*path, name))


def page() -> str:
    """The whole page. Raises RuntimeError where a command cannot print its help."""
    sections = [HEAD]
    for path in command_paths(get_command(app)):
        result = CliRunner().invoke(app, [*path, "--help"], prog_name="lensmith")
        if result.exit_code != 0:
            raise RuntimeError(f"lensmith {' '.join(path)} --help failed: {result.output}") from result.exception
        help_text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        sections.append(f"## {' '.join(['lensmith', *path])}\n\n```\n{help_text}\n```\n")
    return "\n".join(sections)


def main(arguments: list[str], path: Path = PAGE) -> int:
    """0 where the page is written or up to date, 1 where `--check` finds it stale, 2 for bad usage."""
    text = page()
    if arguments == []:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return 0
    if arguments != ["--check"]:
        print("usage: cli_docs.py [--check]", file=sys.stderr)
        return 2
    if path.exists() and path.read_text(encoding="utf-8") == text:
        print(f"docs/cli.md is up to date ({text.count('## ')} commands)")
        return 0
    print("docs/cli.md is stale; type: make format", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
