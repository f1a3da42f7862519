"""Checks the shape of the code: lengths, folders, names, what nothing uses, and what tests may not reach for.

CONTRIBUTING.md gives each rule in words. An exception stands here with its reason; one that excuses nothing any more
is a complaint too, so the lists can only shrink.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

MAX_FUNCTION_LINES = 80
MAX_MODULES = 15
FEWEST_LINES, MOST_LINES = 80, 600
FAMILY_FILES = ("config", "processor", "convert", "loading")
"""Modules that every model family has, however short."""


@dataclass(frozen=True, kw_only=True)
class Exceptions:
    """What a rule lets pass, with the reason. `sizes`: modules; `classes`, `unused`: names; `reaches`: test files."""

    sizes: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    reaches: Mapping[str, str] = field(default_factory=dict)


OURS = Exceptions(
    sizes={
        "lensmith.adapters.vlmevalkit": "one framework, one adapter",
        "lensmith.audit.stages.whole_cost": "what the whole attack costs, for run and stages alike",
        "lensmith.data.plan.order": "a permutation that is never held, tested on its own",
        "lensmith.endpoints.fake.columns": "the columns of a wide fake head, made on demand",
        "lensmith.endpoints.fake.tokens": "the fake's tokenizer",
        "lensmith.guard.metrics": "what the guard counts",
        "lensmith.render.fonts": "which fonts a rendering depends on",
        "lensmith.render.strips": "pictures joined without a browser, tested on their own",
        "lensmith.serve.fetching": "the one place of the server that fetches from the network",
        "lensmith.train.prefetch": "a thread of its own, tested on its own",
    },
    classes={
        "Reply": "what the server sends; what a chat shows",
    },
    unused={
        "LensmithLM": "lm-evaluation-harness, which registers it",
        "SERVERS": "the servers that a cure is known for",
        "is_well_formed": "the promise of `repair`, for whoever keeps pages",
    },
)


@dataclass(frozen=True)
class Module:
    """A module of `src`. `name` is dotted, a package's own name for its `__init__`."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_door(self) -> bool:
        return self.path.name in ("__init__.py", "__main__.py")


class Code:
    """The files of a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = {module.name: module for module in map(self._module, sorted((root / "src").rglob("*.py")))}

    def _module(self, path: Path) -> Module:
        name = ".".join(path.relative_to(self.root / "src").with_suffix("").parts).removesuffix(".__init__")
        return Module(name, path, path.read_text(encoding="utf-8"))

    @cached_property
    def importers(self) -> dict[str, set[str]]:
        """Which modules import each module."""
        found: dict[str, set[str]] = {name: set() for name in self.modules}
        for module in self.modules.values():
            for imported in _imports(module.tree):
                name = imported if imported in found else imported.rpartition(".")[0]
                found.get(name, set()).add(module.name)
        return found

    @cached_property
    def other_words(self) -> frozenset[str]:
        """Words of the benchmarks, scripts, documents and pyproject.toml: a name that stands there has a reader."""
        patterns = ("benchmarks/*.py", "scripts/*.py", "*.md", "docs/*.md", "src/**/*.md", "pyproject.toml")
        paths = [path for pattern in patterns for path in self.root.glob(pattern) if path.name != Path(__file__).name]
        return frozenset(word for path in paths for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))

    def place(self, path: Path, line: int = 1) -> str:
        return f"{path.relative_to(self.root)}:{line}"


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported; of `from a import b` it is a.b, which may be a module or a name in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """Name, first line and number of lines of every function, decorators and nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield node.name, first, (node.end_lineno or first) - first + 1


def long_functions(code: Code, _: Exceptions) -> Iterator[str]:
    for module in code.modules.values():
        for name, line, lines in functions(module.tree):
            if lines > MAX_FUNCTION_LINES:
                yield f"{code.place(module.path, line)}: {name} has {lines} lines, over {MAX_FUNCTION_LINES}"


def folders(code: Code, _: Exceptions) -> Iterator[str]:
    """At most so many modules, no three with one prefix, and a door that says what lives behind it."""
    for folder in sorted({module.path.parent for module in code.modules.values()} - {code.root / "src"}):
        names = [path.stem for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        door = code.modules.get(".".join(folder.relative_to(code.root / "src").parts))
        if door is None or not ast.get_docstring(door.tree):
            yield f"{code.place(folder / '__init__.py')}: does not say in a docstring what lives here"
        if len(names) > MAX_MODULES:
            yield f"{code.place(folder)}: {len(names)} modules, over {MAX_MODULES}: what belongs together is a package"
        for prefix, count in Counter(name.split("_")[0] for name in names).items():
            if count >= 3:
                yield f"{code.place(folder)}: {count} modules begin with {prefix!r}: they are a package"


def sizes(code: Code, exceptions: Exceptions) -> Iterator[str]:
    excused = set()
    for module in code.modules.values():
        lines = len(module.text.splitlines())
        has_reason = module.is_door or len(code.importers[module.name]) > 1 or _is_fixed(module)
        if lines > MOST_LINES or (lines < FEWEST_LINES and not has_reason):
            excused.add(module.name)
            if module.name not in exceptions.sizes:
                yield f"{code.place(module.path)}: {lines} lines: one subject in {FEWEST_LINES} to {MOST_LINES} lines"
    yield from _idle("sizes", exceptions.sizes, excused)


def _is_fixed(module: Module) -> bool:
    """Whether a convention fixes what the module holds: a command's file, or a file that every family has."""
    parts = module.name.split(".")
    return parts[1:2] == ["cli"] or ("families" in parts and parts[-1] in FAMILY_FILES)


def shared_classes(code: Code, exceptions: Exceptions) -> Iterator[str]:
    """One meaning a name: two public classes with the same name are an exception."""
    places: dict[str, list[str]] = {}
    for module in code.modules.values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(code.place(module.path, node.lineno))
    shared = {name: found for name, found in places.items() if len(found) > 1}
    for name in shared.keys() - exceptions.classes.keys():
        yield f"{shared[name][0]}: class {name} stands in {', '.join(shared[name][1:])} too"
    yield from _idle("classes", exceptions.classes, shared)


def unused(code: Code, exceptions: Exceptions) -> Iterator[str]:
    """Public names that no code, benchmark or document uses: what only tests use goes."""
    used = Counter[str]()
    for module in code.modules.values():
        used += _identifiers(module.tree)
    found = set()
    for module in code.modules.values():
        for name, node in _definitions(module.tree):
            last = name.rpartition(".")[2]
            elsewhere = used[last] - _identifiers(node)[last]
            if elsewhere < 1 and last not in code.other_words:
                found.add(name)
                if name not in exceptions.unused:
                    yield f"{code.place(module.path, node.lineno)}: {name} is used by tests alone"
    yield from _idle("unused", exceptions.unused, found)


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Public functions, classes, constants, methods of classes without bases; what a decorator registers is used."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.name.startswith("_") and (isinstance(node, ast.ClassDef) or not node.decorator_list):
                yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((one.id, node) for one in targets if isinstance(one, ast.Name) and not one.id.startswith("_"))
        if isinstance(node, ast.ClassDef) and not node.bases:
            for below in node.body:
                if isinstance(below, ast.FunctionDef | ast.AsyncFunctionDef) and not below.name.startswith("_"):
                    yield f"{node.name}.{below.name}", below


def _identifiers(node: ast.AST) -> Counter[str]:
    """Names and attributes that are read or called below `node`."""
    found = Counter[str]()
    for below in ast.walk(node):
        if isinstance(below, ast.Name) and isinstance(below.ctx, ast.Load):
            found[below.id] += 1
        elif isinstance(below, ast.Attribute):
            found[below.attr] += 1
    return found


def reaches(code: Code, exceptions: Exceptions) -> Iterator[str]:
    """Tests use what users use: no test imports or reaches for a `_name` of ours, or patches a module of ours."""
    private = {name for module in code.modules.values() for name in _private_names(module.tree)}
    found = set()
    for path in sorted((code.root / "tests").rglob("*.py")):
        for line, problem in _reaches(ast.parse(path.read_text(encoding="utf-8")), private):
            name = path.relative_to(code.root / "tests").as_posix()
            found.add(name)
            if name not in exceptions.reaches:
                yield f"{code.place(path, line)}: {problem}: pass it as an argument, or test what shows"
    yield from _idle("reaches", exceptions.reaches, found)


def _private_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.attr if isinstance(node, ast.Attribute) else node.id]
        else:
            continue
        yield from (name for name in names if _is_private(name))


def _reaches(tree: ast.Module, private: set[str]) -> Iterator[tuple[int, str]]:
    ours = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".", maxsplit=1)[0] == "lensmith":
            ours |= {alias.asname or alias.name for alias in node.names}
            yield from ((node.lineno, f"imports {alias.name}") for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.Import):
            ours |= {alias.asname for alias in node.names if alias.asname and alias.name.startswith("lensmith.")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in private:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, f"reaches for {node.attr}"
        elif isinstance(node, ast.Call) and node.args:
            called, first = ast.unparse(node.func).rpartition(".")[2], ast.unparse(node.args[0])
            is_ours = first in ours or first.startswith(("lensmith.", "'lensmith."))
            if called in ("setattr", "setitem", "patch", "object") and is_ours:
                yield node.lineno, f"patches {first}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _idle(rule: str, excused: Mapping[str, str], needed: object) -> Iterator[str]:
    for name in excused:
        if name not in needed:  # type: ignore[operator]
            yield f"scripts/check_shape.py: {rule}: {name} needs no exception any more: take it out"


RULES = (long_functions, folders, sizes, shared_classes, unused, reaches)


def complaints(root: Path, exceptions: Exceptions = OURS) -> list[str]:
    """Every place in the checkout at `root` that breaks a rule, and every exception that is not needed."""
    code = Code(root)
    if not code.modules:
        return [f"{root}: no module below src"]
    return [complaint for rule in RULES for complaint in rule(code, exceptions)]


def main(root: Path) -> int:
    """0 where every rule holds, 1 otherwise (or where there is nothing to check)."""
    found = complaints(root)
    print("\n".join(found) or f"the shape is right: {len(Code(root).modules)} modules, {len(RULES)} rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
