"""The layers hold, and the linter that says so would notice if they did not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Imports every module of four packages, then looks for torch: the linter does not see what other libraries load.
IMPORT_ALL = """
import importlib, pkgutil, sys
names = []
for package in ("lensmith.core", "lensmith.audit", "lensmith.evaluate", "lensmith.layout"):
    root = importlib.import_module(package)
    names += [package, *(module.name for module in pkgutil.walk_packages(root.__path__, package + "."))]
for name in names:
    importlib.import_module(name)
print(len(names), *sorted(name for name in ("torch", "transformers", "playwright") if name in sys.modules))
"""
FEWEST_MODULES = 12

VIOLATIONS = {
    "core/bad.py": "import torch\n",
    "evaluate/bad.py": "from lensmith.models import bad\n",
    "models/bad.py": "from lensmith.data import bad\n",
    "data/bad.py": "from lensmith.workflows import bad\n",
    "workflows/bad.py": "",
    "hosting/bad.py": "import torch\n",
    "layout/bad.py": "import torch\n",
    "guard/bad.py": "from lensmith.serve import bad\n",
    "serve/bad.py": "",
    "audit/findings/bad.py": "from lensmith.audit.stages import bad\n",
    "audit/stages/bad.py": "",
}


def test_core_audit_evaluate_and_layout_load_without_torch():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, *heavy = done.stdout.split()
    assert int(count) >= FEWEST_MODULES
    assert not heavy


@pytest.fixture
def copied_package(tmp_path):
    shutil.copytree(ROOT / "src" / "lensmith", tmp_path / "lensmith", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as lint; lint()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_contracts_are_kept(copied_package):
    done = lint(copied_package)
    assert done.returncode == 0, done.stdout
    assert "Contracts: 6 kept, 0 broken." in done.stdout


def test_the_linter_notices_each_kind_of_violation(copied_package):
    for path, text in VIOLATIONS.items():
        (copied_package / "lensmith" / path).write_text(text)
    done = lint(copied_package)
    assert done.returncode == 1
    assert "Contracts: 0 kept, 6 broken." in done.stdout
    for forbidden in (
        "lensmith.core is not allowed to import torch",
        "lensmith.layout is not allowed to import torch",
        "lensmith.evaluate is not allowed to import lensmith.models",
        "lensmith.models is not allowed to import lensmith.data",
        "lensmith.data is not allowed to import lensmith.workflows",
        "lensmith.hosting is not allowed to import torch",
        "lensmith.guard is not allowed to import lensmith.serve",
        "lensmith.audit.findings is not allowed to import lensmith.audit.stages",
    ):
        assert forbidden in done.stdout


def test_a_package_outside_the_layers_is_noticed(copied_package):
    (copied_package / "lensmith" / "stray").mkdir()
    (copied_package / "lensmith" / "stray" / "__init__.py").touch()
    done = lint(copied_package)
    assert done.returncode == 1
    assert "stray" in done.stdout
