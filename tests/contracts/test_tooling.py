"""The project's own checks see what they are for, and what people are told to type is what runs."""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

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
    functions = script("check_sizes").functions
    source = "@decorated\ndef outer():\n    async def inner():\n        pass\n\n    return inner\n"
    assert sorted(functions(source)) == [("inner", 3, 2), ("outer", 1, 6)]


def test_a_long_function_is_an_error(tmp_path, monkeypatch, capsys):
    check = script("check_sizes")
    monkeypatch.setattr(check, "SOURCE", tmp_path)
    assert check.main() == 1  # finding nothing to check is a failure too
    (tmp_path / "a.py").write_text("def fits():\n" + "    x = 1\n" * 79)
    assert check.main() == 0
    (tmp_path / "a.py").write_text("def long():\n" + "    x = 1\n" * 80)
    assert check.main() == 1
    assert "long has 81 lines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "page", "least"), [("cli_docs", "cli.md", "## lensmith"), ("field_docs", "api.md", "| `")]
)
def test_stale_docs_are_noticed(name, page, least, tmp_path, monkeypatch):
    docs = script(name)
    monkeypatch.setattr(docs, "PAGE", tmp_path / page)
    assert docs.main(["--check"]) == 1
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    assert (tmp_path / page).read_text().count(least) >= 9
    (tmp_path / page).write_text("old")
    assert docs.main(["--check"]) == 1


def test_the_page_of_fields_is_up_to_date():
    assert script("field_docs").main(["--check"]) == 0


def test_ci_runs_the_check_and_the_readmes_test_command():
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    readme = (ROOT / "README.md").read_text()
    assert ci[-2:] == ["make check", "make test"]
    for command in ("make demo", "make test"):
        assert re.search(rf"^\s*{command}\b", readme, re.MULTILINE), f"README does not show `{command}`"


def test_make_targets_exist():
    targets = ("demo", "test", "test-all", "check", "bench", "format", "help")
    subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, check=True)
