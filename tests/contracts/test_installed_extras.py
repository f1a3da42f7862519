"""lensmith as a stranger installs it: the wheel of `make dist` in a fresh environment, alone, with small extras, whole.

Who operates a server audits and guards it without torch, transformers or a web framework beyond the guard's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2000)]
ROOT = Path(__file__).resolve().parents[2]
WIDTH = 32
SAFE = "top-logprobs=5,no-logit-bias,no-metadata"
HEAVY = ("torch", "transformers", "fastapi", "playwright")
LIMIT_S = 300
INSTALL_LIMIT_S = DEMO_LIMIT_S = 900
SERVE_A_FAKE = f"""
import threading
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer

with FakeServer(FakeEndpoint(vocabulary=257, width={WIDTH}), dialect="vllm") as url:
    print(url, flush=True)
    threading.Event().wait()
"""
FIND = "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))"
# What a command prints where its extra is missing. `html` and the like look for their extra before they look for files.
MISSING = [
    (["serve", "sightseer_nano"], "serve"),
    (["html", "page.png", "-o", "page.html"], "html"),
    (["html", "page.png", "-o", "page.html", "--endpoint", "http://127.0.0.1:9/v1"], "html"),
    (["eval", "html", "--pages", "grammar:1"], "html"),
    (["app", "--no-open"], "app"),
    (["defences", "sightseer_nano"], "audit,models"),
    (["chat", "Hi", "--model", "sightseer_nano"], "models"),
    (["demo"], "html,serve"),
    (["train", "sightseer_nano"], "train"),
]


class Installed:
    """An environment of its own, outside the checkout, and the commands in it."""

    def __init__(self, folder, requirement):
        self.folder = folder
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        # Nothing of the developer's environment shines through.
        hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden}
        checked([sys.executable, "-m", "venv", str(folder / "venv")])
        pip = [
            str(self.bin / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--constraint",
            str(ROOT / "constraints.txt"),
        ]
        checked([*pip, requirement], limit_s=INSTALL_LIMIT_S, cwd=folder, env=self.environment)

    def python(self, *arguments):
        return checked([str(self.bin / "python"), *arguments], cwd=self.folder, env=self.environment)

    def lensmith(self, *arguments, limit_s=LIMIT_S):
        command, options = [str(self.bin / "lensmith"), *arguments], {"cwd": self.folder, "env": self.environment}
        return subprocess.run(command, **options, capture_output=True, text=True, timeout=limit_s, check=False)

    def start(self, program, *arguments):
        command = [str(self.bin / program), *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def checked(command, limit_s=LIMIT_S, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def first_line(process, word):
    """The word after `word` in the first line that a process prints."""
    line = process.stdout.readline()
    assert word in line, line
    return line.partition(word)[2].split()[0]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # Asked for on its own, so that only a package index that cannot be reached is a reason to skip.
    download = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder / "probe"), "hatchling"]
    if subprocess.run([sys.executable, *download], capture_output=True, timeout=LIMIT_S, check=False).returncode:
        pytest.skip("THE INSTALLED PACKAGE WAS NOT TESTED: pip reaches no package index")
    # The environment of these tests is set up: nothing is left to do for `make setup`.
    made = [f"BIN={Path(sys.executable).parent}", "READY=/dev/null", f"PIP_LOG={folder / 'log'}", f"DIST={folder}"]
    told = checked(["make", "--silent", "dist", *made], cwd=ROOT)
    (found,) = folder.glob("lensmith-*.whl")
    assert told == f"{found}\n"
    return found


@pytest.fixture(scope="module")
def base(wheel, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("base"), str(wheel))


@pytest.fixture(scope="module")
def small(wheel, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("small"), f"{wheel}[audit,guard]")


@pytest.fixture(scope="module")
def whole(wheel, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("whole"), f"{wheel}[audit,html,serve]")


@pytest.fixture(scope="module")
def fake(small):
    with small.start("python", "-c", SERVE_A_FAKE) as process:
        try:
            line = process.stdout.readline().strip()
            assert line.startswith("http://127.0.0.1:"), line
            yield line
        finally:
            process.terminate()


def test_what_runs_here_is_the_wheel_and_holds_its_data(small):
    told = small.python("-c", "import lensmith; print(lensmith.__file__)").strip()
    assert Path(told).is_relative_to(small.folder / "venv")
    files = {path.relative_to(Path(told).parent).as_posix() for path in Path(told).parent.rglob("*") if path.is_file()}
    missing = {path.relative_to(ROOT / "src" / "lensmith").as_posix() for path in data_files()} - files
    assert missing == set()


def data_files():
    """What the package needs beside its code."""
    found = [path for path in (ROOT / "src" / "lensmith").rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert len(found) >= 8
    return found


@pytest.mark.parametrize("extras", ["base", "small"])
def test_nothing_heavy_comes_along(extras, request):
    installed = request.getfixturevalue(extras)
    smaller = ("gguf", "scipy", "starlette", "uvicorn", "prometheus_client")
    assert json.loads(installed.python("-c", FIND, "numpy", *HEAVY)) == ["numpy"]
    assert json.loads(installed.python("-c", FIND, *smaller)) == (list(smaller) if extras == "small" else [])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["audit", "--help"], ["audit", "run", "--help"]])
def test_a_base_install_helps(base, arguments):
    done = base.lensmith(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lensmith" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        *MISSING,
        (["guard", "--upstream", "http://127.0.0.1:9/v1"], "guard"),
        (["audit", "http://127.0.0.1:9/v1"], "audit"),
    ],
)
def test_a_base_install_tells_what_to_install(base, arguments, extra):
    done = base.lensmith(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"  try:      pip install 'lensmith[{extra}]'"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "extra"), MISSING)
def test_beside_the_guard_the_others_tell_what_to_install(small, arguments, extra):
    done = small.lensmith(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"  try:      pip install 'lensmith[{extra}]'"


def test_behind_the_guard_the_audit_is_clean(small, fake):
    with small.start("lensmith", "guard", "--upstream", fake, "--expose", SAFE, "--port", "0") as process:
        try:
            url = first_line(process, "guard on ")
            done = small.lensmith("audit", url, "--rate", "10000", "--out", "guarded", "--json")
        finally:
            process.terminate()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["verdict"], told["width"], told["findings"]) == ("clean", None, [])


def test_the_whole_package_shows_what_it_can_do(whole):
    done = whole.lensmith("demo", "--out", "demo", limit_s=DEMO_LIMIT_S)
    assert done.returncode == 0, done.stderr
    report = (whole.folder / "demo" / "report.html").read_text()
    assert report.count("<figure>") >= 9 and "did not render" not in report
    for name in ("open", "guarded"):
        (found,) = (whole.folder / "demo").rglob(f"{name}/report.html")
        assert found.stat().st_size > 0


@pytest.mark.parametrize("extras", ["small", "whole"])
def test_an_audit_finds_the_width(extras, fake, request):
    installed = request.getfixturevalue(extras)
    done = installed.lensmith("audit", fake, "--rate", "10000", "--out", "open", "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["width"] == WIDTH
    for name in ("events.jsonl", "report.json", "report.html", "report.junit.xml", "report.sarif"):
        assert (installed.folder / "open" / name).stat().st_size > 0
