"""The real evaluation frameworks, each in an environment of its own, and tiny models and tasks for them.

An environment sees the packages of the one that runs the tests (torch, transformers, lensmith's own code) and adds the
framework. lmms-eval comes without its dependencies, since it asks for torchvision, whose builds do not fit every torch;
what it truly imports is named here. The environments are made at first use and kept in lensmith's cache folder.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lensmith.core.files import default_cache_dir

ROOT = Path(__file__).resolve().parents[2]
LM_EVAL = ("lm-eval==0.4.13",)
LMMS_EVAL = ("loguru", "sacrebleu", "evaluate", "tenacity", "pytablewriter", "sqlitedict", "sympy")
LMMS_EVAL_ALONE = ("lmms-eval==0.7.3",)
_LIMIT_S = 900


def environment(name: str, *, with_needs: tuple[str, ...], alone: tuple[str, ...] = ()) -> Path:
    """The Python of the environment; skips the test, saying why, where it cannot be made."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    entry_points = pyproject.partition("[project.entry-points")[2].partition("[tool")[0]
    content = json.dumps([with_needs, alone, sys.version, sys.prefix, entry_points])
    folder = default_cache_dir() / "adapters" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder, python, with_needs, alone)
        ready.touch()
    return python


def _make(folder: Path, python: Path, with_needs: tuple[str, ...], alone: tuple[str, ...]) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    _run([sys.executable, "-m", "venv", str(folder)])
    packages = sysconfig.get_path("purelib")
    own = next((folder / "lib").glob("python*")) / "site-packages"
    (own / "host.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
    _run([*pip, *with_needs])
    if alone:
        _run([*pip, "--no-deps", *alone])
    # For its entry points; the code is the one under test, wherever it is imported from.
    _run([*pip, "--no-deps", "--editable", str(ROOT)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    if done.returncode:
        pytest.skip(f"the framework cannot be installed: {' '.join(command[1:])}: {done.stderr.strip()[-400:]}")


def run_python(python: Path, *arguments: str, cwd: Path) -> str:
    """Runs the environment's Python in `cwd`, offline; its stdout. Fails the test with stderr where it fails."""
    done = subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
        cwd=cwd,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(cwd),
            "HF_HOME": str(cwd / "hf"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "LMMS_EVAL_DISABLE_VERSION_CHECK": "1",
        },
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stdout
