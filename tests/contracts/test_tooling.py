"""The project's own checks see what they are for, and what people are told to type is what runs."""

import ast
import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Extras whose packages the development environment does not hold.
NOT_INSTALLED = {"serve", "guard", "cluster", "all"}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().split()
    pairs = [line.split("==") for line in lines]
    return {normal(name): Version(version) for name, version in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(extra: str | None) -> list[Requirement]:
    texts = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def needed_by(extra: str | None) -> set[str]:
    """Every package that an extra brings, those of extras that it names included."""
    names: set[str] = set()
    for requirement in requirements(extra):
        if requirement.name == "lensmith":
            names |= set().union(*map(needed_by, requirement.extras))
        else:
            names.add(normal(requirement.name))
    return names


@pytest.mark.parametrize("extra", [None, *sorted(PROJECT["optional-dependencies"].keys() - NOT_INSTALLED)])
def test_every_requirement_is_pinned_within_its_range(extra):
    for requirement in requirements(extra):
        if requirement.name != "lensmith":
            assert pins()[normal(requirement.name)] in requirement.specifier, requirement


def test_torch_is_pinned_without_a_local_tag():
    assert str(pins()["torch"]) == "2.13.0"


def test_base_audit_and_guard_bring_no_torch():
    for extra in (None, "audit", "guard"):
        assert needed_by(extra).isdisjoint({"torch", "transformers"})
    assert "torch" in needed_by("all")


def test_all_holds_every_extra_but_the_tools():
    (everything,) = requirements("all")
    assert everything.extras == PROJECT["optional-dependencies"].keys() - {"all", "dev"}


def test_function_lengths_are_counted_with_decorators_and_nesting():
    functions = script("check_shape").functions
    source = "@decorated\ndef outer():\n    async def inner():\n        pass\n\n    return inner\n"
    assert sorted(functions(ast.parse(source))) == [("inner", 3, 2), ("outer", 1, 6)]


LONG = "# a line\n" * 80
SHAPELY = {
    "src/house/__init__.py": '"""A house."""\n',
    "src/house/room.py": f'"""A room."""\nfrom house.cellar import Shelf\nSHELF = Shelf()\n{LONG}',
    "src/house/cellar.py": f'"""A cellar."""\nclass Shelf:\n    """A shelf."""\n{LONG}',
    "src/house/cli/__init__.py": '"""A door bell."""\nfrom house.room import SHELF\nprint(SHELF)\n',
    "tests/test_room.py": "from house.room import SHELF\n",
}
UNSHAPELY = {
    "a long function": ({"src/house/room.py": "def long():\n" + "    x = 1\n" * 80}, "long has 81 lines"),
    "a package that says nothing": ({"src/house/__init__.py": ""}, "does not say"),
    "a folder without a door": ({"src/house/attic/box.py": LONG}, "does not say"),
    "three files with one prefix": (
        {f"src/house/{name}.py": LONG for name in ("bed", "bed_side", "bed_room")},
        "3 modules begin with 'bed'",
    ),
    "sixteen modules": ({f"src/house/a{number}.py": LONG for number in range(14)}, "16 modules, over 15"),
    "a long module": ({"src/house/hall.py": "# a line\n" * 601}, "601 lines"),
    "a short module with one reader": (
        {"src/house/nail.py": "", "src/house/hall.py": f"import house.nail\n{LONG}"},
        "nail.py:1: 0 lines",
    ),
    "two classes of one name": ({"src/house/hall.py": f"class Shelf:\n    pass\nprint(Shelf)\n{LONG}"}, "class Shelf"),
    "a function that nothing uses": ({"src/house/hall.py": f"def spare(): spare()\n{LONG}"}, "spare is used by tests"),
    "a constant that nothing uses": ({"src/house/hall.py": f"SPARE = 1\n{LONG}"}, "SPARE is used by tests alone"),
    "a method that nothing uses": (
        {"src/house/hall.py": f"class Hall:\n    def spare(self): pass\nprint(Hall)\n{LONG}"},
        "Hall.spare is used by tests alone",
    ),
    "an import of a private name": ({"tests/test_a.py": "from lensmith.a import _b\n"}, "imports _b"),
    "a reach for a private name": (
        {"src/house/hall.py": f"def _inner(): pass\n{LONG}", "tests/test_a.py": "hall._inner()\n"},
        "reaches for _inner",
    ),
    "a private attribute that is set": (
        {
            "src/house/hall.py": f"class Hall:\n    _size = 1\nprint(Hall)\n{LONG}",
            "tests/test_a.py": "hall._size = 2\n",
        },
        "reaches for _size",
    ),
    "a patch by name": ({"tests/test_a.py": "monkeypatch.setattr('lensmith.a.B', 1)\n"}, "patches 'lensmith.a.B'"),
    "a patch of a module": (
        {"tests/test_a.py": "from lensmith import a as b\nmonkeypatch.setattr(b, 'B', 1)\n"},
        "patches b",
    ),
    "a patch of a module by another name": (
        {"tests/test_a.py": "import lensmith.a as b\nsetattr(b, 'B', 1)\n"},
        "patches b",
    ),
    "a patch without a fixture": ({"tests/test_a.py": "with patch('lensmith.a.B'): pass\n"}, "patches 'lensmith.a.B'"),
    "a patch of a table": (
        {"tests/test_a.py": "from lensmith.a import B\nmonkeypatch.setitem(B, 'key', 1)\n"},
        "patches B",
    ),
}


def shape_of(folder: Path, files: dict[str, str], **exceptions: dict[str, str]) -> list[str]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    check = script("check_shape")
    return check.complaints(folder, check.Exceptions(**exceptions))


def test_a_house_in_shape_passes_and_an_empty_one_does_not(tmp_path):
    assert shape_of(tmp_path, {}) == [f"{tmp_path}: no module below src"]
    assert shape_of(tmp_path, SHAPELY) == []


@pytest.mark.parametrize("fault", UNSHAPELY)
def test_each_fault_of_shape_is_seen(tmp_path, fault):
    files, complaint = UNSHAPELY[fault]
    found = shape_of(tmp_path, {**SHAPELY, **files})
    assert len([each for each in found if complaint in each]) == 1, found


def test_what_a_document_or_a_benchmark_names_is_used(tmp_path):
    files = {**SHAPELY, "src/house/hall.py": f"def spare(): pass\n{LONG}"}
    for reader in ("README.md", "docs/a.md", "benchmarks/a.py", "scripts/a.py"):
        assert shape_of(tmp_path / reader, {**files, reader: "spare"}) == []


def test_an_exception_needs_a_case(tmp_path):
    hall = {"src/house/hall.py": f"def spare(): pass\n{LONG}"}
    assert shape_of(tmp_path, {**SHAPELY, **hall}, unused={"spare": "a reader"}) == []
    for rule in ("sizes", "classes", "unused", "reaches"):
        (idle,) = shape_of(tmp_path / rule, SHAPELY, **{rule: {"nothing": "a reason"}})
        assert idle.startswith(f"scripts/check_shape.py: {rule}: nothing needs no exception")


def test_writing_a_file_by_oneself_is_an_error(tmp_path, monkeypatch, capsys):
    check = script("check_writes")
    own = ["p.write_text(x)", "Path(a).write_bytes(b)", "open(p, 'w')", "p.open('xb')", "open(p, mode='r+w')"]
    others = ["p.open('rb')", "p.open('a')", "open('w.txt')", "write_atomic(p, x)", "Image.open(file)"]
    assert [bool(check.writes(line)) for line in own + others] == [True] * len(own) + [False] * len(others)
    monkeypatch.setattr(check, "SOURCE", tmp_path)
    (tmp_path / "lensmith/core").mkdir(parents=True)
    (tmp_path / "lensmith/core/files.py").write_text("p.open('xb')")
    assert check.main() == 0
    (tmp_path / "lensmith/a.py").write_text("\np.write_text(x)")
    assert check.main() == 1
    assert "lensmith/a.py:2: write_text writes a file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "page", "least"),
    [
        ("cli_docs", "cli.md", "## lensmith"),
        ("field_docs", "api.md", "| `"),
        ("architecture_picture", "a.svg", "<path"),
    ],
)
def test_stale_docs_are_noticed(name, page, least, tmp_path):
    docs, page = script(name), tmp_path / page
    assert docs.main(["--check"], page) == 1
    assert docs.main([], page) == 0
    assert docs.main(["--check"], page) == 0
    assert page.read_text().count(least) >= 9
    page.write_text("old")
    assert docs.main(["--check"], page) == 1


@pytest.mark.parametrize("name", ["field_docs", "architecture_picture"])
def test_what_is_made_from_the_code_is_up_to_date(name):
    assert script(name).main(["--check"]) == 0


LAYERS = """
[[tool.importlinter.contracts]]
containers = ["lensmith"]
layers = ["top", "one | other", "base"]
"""


def test_the_picture_shows_packages_by_layer_and_what_imports_what(tmp_path):
    (tmp_path / "pyproject.toml").write_text(LAYERS)
    for name in ("top", "one", "other", "base"):
        (tmp_path / "src/lensmith" / name).mkdir(parents=True)
        (tmp_path / "src/lensmith" / name / "__init__.py").write_text(f'"""The {name} <room>. And more."""\n')
    draw = script("architecture_picture").picture
    assert "marker-end" not in draw(tmp_path)
    (tmp_path / "src/lensmith/top/a.py").write_text("from lensmith.other import a\nfrom lensmith.top import b\n")
    (tmp_path / "src/lensmith/other/a.py").write_text("import lensmith.base.a\n")
    drawn = draw(tmp_path)
    assert drawn.count("marker-end") == 2
    nodes = ElementTree.fromstring(drawn).iter()  # noqa: S314 - drawn right here
    texts = {each.text: float(each.get("y")) for each in nodes if each.get("class") == "name"}
    assert texts["top"] < texts["one"] == texts["other"] < texts["base"]
    assert "The one &lt;room&gt;." in drawn and "more" not in drawn


def test_ci_runs_the_check_and_the_readmes_test_command():
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    readme = (ROOT / "README.md").read_text()
    assert ci[-2:] == ["make check", "make test"]
    for command in ("make demo", "make test"):
        assert re.search(rf"^\s*{command}\b", readme, re.MULTILINE), f"README does not show `{command}`"


def make(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """make in a folder with the Makefile and a stand-in for the environment's Python, which fails or ends well."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    return subprocess.run(["make", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_setting_up_is_quiet_unless_it_fails(tmp_path):
    program(tmp_path / ".venv/bin/python", "echo WARNING: a location is ignored >&2")
    done = make(tmp_path, "setup")
    assert (done.returncode, done.stderr) == (0, "") and "WARNING" not in done.stdout
    program(tmp_path / ".venv/bin/python", "echo ERROR: no such version >&2; exit 1")
    assert make(tmp_path, "setup").returncode == 0  # it is set up, and nothing has changed
    (tmp_path / "constraints.txt").write_text("torch==1\n")
    done = subprocess.run(["make", "setup"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "ERROR: no such version" in done.stderr


@pytest.mark.parametrize("way", ["there", "playwright", "apt", "none"])
def test_the_benchmarks_chromium_is_installed_quietly_where_there_is_none(tmp_path, way):
    said = tmp_path / "said"
    program(tmp_path / "python", f"echo python $* >> {said}; echo noise; test {way} = playwright")
    program(tmp_path / "bin/apt-get", f"echo apt-get $* >> {said}; echo noise >&2; test {way} = apt")
    program(tmp_path / "bin/id", "echo 0")
    if way == "there":
        program(tmp_path / "bin/chromium", "")
    command = ["/bin/sh", str(ROOT / "scripts/install_chromium"), str(tmp_path / "python")]
    done = subprocess.run(command, env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True, check=True)
    asked = said.read_text().splitlines() if said.exists() else []
    assert [line.split()[0] for line in asked] == {
        "there": [],
        "playwright": ["python"],
        "apt": ["python", "apt-get"],
        "none": ["python", "apt-get", "apt-get"],
    }[way]
    assert done.stdout == "" and ("apt-get install chromium" in done.stderr) == (way == "none")


def test_make_targets_exist():
    targets = ("demo", "test", "test-all", "check", "bench", "dist", "format", "help")
    subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, check=True)
