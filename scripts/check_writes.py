"""Checks that src writes files through `core.files`, where links, pipes, devices and full disks are thought of.

Not covered, because they are something else: logs that grow (mode "a"), and libraries that write into a new folder.
"""

import ast
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
ALLOWED = {"lensmith/core/files.py"}
WRITERS = {"write_text", "write_bytes", "mkstemp", "NamedTemporaryFile"}


def writes(source: str) -> list[tuple[int, str]]:
    """Line and name of every call that writes a file by itself."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        # A mode is "w", "xb" and the like; `open` has it first or second, or by name.
        arguments = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [word.value for word in arguments if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        opens = name == "open" and any(set(mode) <= set("rwxabt+") and set(mode) & set("wx") for mode in modes)
        if name in WRITERS or opens:
            found.append((node.lineno, name))
    return found


def main() -> int:
    """0 where nothing else writes, 1 otherwise (or where `core.files` was not found to write)."""
    by_file = {str(path.relative_to(SOURCE)): writes(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}
    wrong = [
        f"src/{path}:{line}: {name} writes a file: use core.files"
        for path, found in sorted(by_file.items())
        for line, name in found
        if path not in ALLOWED
    ]
    print("\n".join(wrong) or f"{len(by_file)} modules write files through core.files")
    return 1 if wrong or not any(by_file[path] for path in ALLOWED) else 0


if __name__ == "__main__":
    sys.exit(main())
