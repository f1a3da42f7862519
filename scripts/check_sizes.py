"""Checks that no function in src is longer than 80 lines, decorators and docstring included."""

import ast
import sys
from pathlib import Path

MAX_LINES = 80
SOURCE = Path(__file__).resolve().parent.parent / "src"


def functions(source: str) -> list[tuple[str, int, int]]:
    """Name, first line and number of lines of every function, nested ones too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.append((node.name, first, (node.end_lineno or first) - first + 1))
    return found


def main() -> int:
    """0 where every function is short enough, 1 otherwise (or where no function was found)."""
    count, too_long = 0, []
    for path in sorted(SOURCE.rglob("*.py")):
        for name, line, lines in functions(path.read_text(encoding="utf-8")):
            count += 1
            if lines > MAX_LINES:
                too_long.append(f"{path.relative_to(SOURCE.parent)}:{line}: {name} has {lines} lines")
    print("\n".join(too_long) or f"{count} functions, none over {MAX_LINES} lines")
    return 1 if too_long or not count else 0


if __name__ == "__main__":
    sys.exit(main())
