"""The command line answers at once, and no mistake of a person's ends in a traceback."""

import ast
import errno
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import lensmith
from lensmith.cli.app import run
from lensmith.cli.console.extras import OPTIONAL_MODULES, needs
from lensmith.core.errors import BrowserNotFoundError, ImageError, LensmithError, NotExposedError

SOURCES = Path(lensmith.__file__).parent
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
HEAVY = (
    "torch",
    "transformers",
    "fastapi",
    "nicegui",
    "starlette",
    "uvicorn",
    "playwright",
    "pyarrow",
    "numpy",
    "PIL",
    "scipy",
    "rich",
    "httpx",
)

COMMANDS = [
    [],
    ["html"],
    ["app"],
    ["render"],
    ["train"],
    ["serve"],
    ["demo"],
    ["guard"],
    ["defences"],
    ["audit"],
    ["audit", "run"],
    ["audit", "snapshot"],
    ["audit", "diff"],
    ["audit", "signature"],
    ["eval"],
    ["eval", "html"],
    ["data"],
    ["data", "pages"],
]

# Runs a command in a fresh process and tells on stderr which heavy modules it loaded.
LOADED = f"""
import sys
from lensmith.cli import main
try:
    main()
finally:
    print("loaded:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""

# The same, with some modules that cannot be imported.
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from lensmith.cli import main
main()
"""


def python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_loads_nothing_heavy(command):
    done = python(LOADED, *command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: lensmith{''.join(f' {word}' for word in command)} [OPTIONS]")
    assert done.stderr.splitlines()[-1].strip() == "loaded:"


def test_help_is_quick():
    # Processor time: on an idle machine it is the time that passes, and on a busy one it stays what it was.
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "lensmith.cli", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.3


def test_version():
    done = python(LOADED, "--version")
    assert done.stdout == f"lensmith {lensmith.__version__}\n"


@pytest.mark.parametrize("arguments", [["nope"], ["html"], ["render", "--widht", "3", "a.html"], ["data", "nope"]])
def test_bad_usage_is_2_on_stderr(arguments):
    done = python(LOADED, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


# --- errors -------------------------------------------------------------------------------------------------------


def outcome(monkeypatch: pytest.MonkeyPatch, command: Callable[[], None]) -> int:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    monkeypatch.setattr(sys, "argv", ["lensmith"])
    with pytest.raises(SystemExit) as caught:
        run(app)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LensmithError("broken", expected="a", actual="b", hint="do this"), 2),
        (ImageError("broken"), 2),
        (NotExposedError("broken"), 3),
        (BrowserNotFoundError("broken"), 3),
        (FileNotFoundError(2, "No such file", "page.broken"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "page.broken"), 2),
        (FileExistsError(errno.EEXIST, "File exists", "page.broken"), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "page.broken"), 2),
        (IsADirectoryError(errno.EISDIR, "Is a directory", ".page.tmp", None, "page.broken"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "page.broken"), 2),
        (OSError(errno.EROFS, "Read-only file system", "page.broken"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "page.broken"), 2),
    ],
)
def test_an_error_ends_as_a_message_and_its_status(monkeypatch, capsys, error, status):
    assert outcome(monkeypatch, raising(error)) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lensmith: ")
    assert "broken" in captured.err
    assert "Traceback" not in captured.err


def test_a_full_disk_is_said_even_where_the_system_names_no_path(monkeypatch, capsys):
    assert outcome(monkeypatch, raising(OSError(errno.ENOSPC, "No space left on device"))) == 2
    assert "no space left on device" in capsys.readouterr().err


def test_another_error_of_the_system_stays_a_traceback(monkeypatch):
    with pytest.raises(OSError, match="Bad file"):
        outcome(monkeypatch, raising(OSError(errno.EBADF, "Bad file descriptor")))


def test_an_interrupt_is_130(monkeypatch):
    assert outcome(monkeypatch, raising(KeyboardInterrupt())) == 130


def test_success_is_0(monkeypatch):
    assert outcome(monkeypatch, lambda: None) == 0


def test_a_mistake_in_lensmith_stays_a_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        outcome(monkeypatch, raising(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "pages", "--count", "1", "--out", "FILE"], "FILE"),
        (["data", "pages", "--count", "1", "--out", "FILE/below"], "FILE"),
        (["render", "FILE", "--out", "FILE"], "FILE"),
        (["render", "FILE", "--out", "FILE/below"], "FILE"),
        (["guard", "--upstream", "http://127.0.0.1:9/v1", "--keys-file", "FOLDER"], "FOLDER"),
    ],
)
def test_a_path_of_the_wrong_kind_is_a_message(tmp_path, arguments, said):
    paths = {"FILE": tmp_path / "page.html", "FOLDER": tmp_path / "folder"}
    paths["FILE"].write_text("<p>hello")
    paths["FOLDER"].mkdir()
    for name, path in paths.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    done = python("from lensmith.cli import main; main()", *arguments)
    assert done.returncode == 2, done.stderr
    assert str(paths[said]) in done.stderr
    assert "Traceback" not in done.stderr


# --- missing extras -----------------------------------------------------------------------------------------------


def test_every_module_that_only_an_extra_brings_is_known_as_one():
    needed = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    base = {"PIL", *(re.split(r"[>\[]", name)[0] for name in needed)}
    hosts = {"lm_eval", "lmms_eval", "vlmeval"}  # adapters run within these
    imported = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names - base - hosts - {"lensmith"} <= OPTIONAL_MODULES


@pytest.mark.parametrize("module", ["torch", "torch.nn.functional"])
def test_a_missing_extra_gives_the_line_that_installs_it(monkeypatch, capsys, module):
    command = needs("html")(raising(ModuleNotFoundError(f"No module named {module!r}", name=module)))
    assert outcome(monkeypatch, command) == 2
    captured = capsys.readouterr().err
    assert "needs torch, which is not installed" in captured
    assert "pip install 'lensmith[html]'" in captured


@pytest.mark.parametrize("module", ["lensmith.nowhere", "nowhere", None])
def test_another_missing_module_is_a_mistake_in_lensmith(monkeypatch, module):
    with pytest.raises(ModuleNotFoundError):
        outcome(monkeypatch, needs("html")(raising(ModuleNotFoundError("No module", name=module))))


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["html", "page.png", "-o", "page.html"], "html"),
        (["eval", "html", "--pages", "grammar:1"], "html"),
        (["train", "sightseer_nano"], "train"),
        (["demo"], "html,serve"),
    ],
)
def test_a_base_install_says_what_each_command_needs(tmp_path, monkeypatch, arguments, extra):
    monkeypatch.chdir(tmp_path)
    done = python(BLOCKED.format(blocked=sorted(OPTIONAL_MODULES)), *arguments)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'lensmith[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
