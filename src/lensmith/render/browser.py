"""Finds a Chromium, or installs one.

Order: the path in `LENSMITH_CHROMIUM`, one installed on the system, Playwright's own. The headless shell is preferred
to the full browser because it starts twice as fast; their pictures are equal.

`python -m lensmith.render.browser [--install]` prints the path found.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lensmith.core.errors import BrowserNotFoundError

SYSTEM_NAMES = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
SYSTEM_PATHS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PLAYWRIGHT_PATTERNS = (
    "chromium_headless_shell-*/*/chrome-headless-shell",
    "chromium_headless_shell-*/*/headless_shell",
    "chromium-*/*/chrome",
    "chromium-*/*/*.app/Contents/MacOS/*",
)
INSTALL_LIMIT_S = 900
SHORTEST_INSTALL = "python -m playwright install --with-deps chromium-headless-shell"


def find_chromium() -> Path:
    """The executable to use. Raises BrowserNotFoundError."""
    chosen = os.environ.get("LENSMITH_CHROMIUM")
    if chosen:
        path = Path(chosen).expanduser()
        if not _is_executable(path):
            raise BrowserNotFoundError(
                "LENSMITH_CHROMIUM does not name a program",
                expected="the path of a Chromium executable",
                actual=chosen,
                hint="correct the variable, or unset it to search the system",
            )
        return path
    found = _on_system() or _of_playwright()
    if found is None:
        raise BrowserNotFoundError(
            "no Chromium was found",
            expected=f"LENSMITH_CHROMIUM, one of {', '.join(SYSTEM_NAMES)} on PATH, or Playwright's",
            hint=_command_to_type(),
        )
    return found


def install_chromium(ways: Sequence[list[str]] | None = None) -> Path:
    """The executable to use, installed first where there is none: by Playwright, else by the system's packages.

    `ways`: the commands to try, in order, in place of these.
    Raises BrowserNotFoundError, whose hint is the command to type.
    """
    try:
        return find_chromium()
    except BrowserNotFoundError:
        if os.environ.get("LENSMITH_CHROMIUM"):
            raise  # the person chose a path: installing another browser would not give them that one
    failures = []
    for command in _install_commands() if ways is None else ways:
        failure = _run(command)
        if failure is None:
            found = _on_system() or _of_playwright()
            if found is not None:
                return found
            failure = "it ended well but left no browser"
        failures.append(f"{' '.join(command)}: {failure}")
    raise BrowserNotFoundError(
        "no Chromium was found and none could be installed",
        actual="; ".join(failures) or "no way to install one is at hand",
        hint=_command_to_type(),
    )


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _on_system() -> Path | None:
    for name in SYSTEM_NAMES:
        path = shutil.which(name)
        if path is not None:
            return Path(path)
    return next((path for path in map(Path, SYSTEM_PATHS) if _is_executable(path)), None)


def _playwright_folder() -> Path:
    chosen = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    if chosen and chosen != "0":
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/ms-playwright"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "ms-playwright"


def _of_playwright() -> Path | None:
    for pattern in PLAYWRIGHT_PATTERNS:
        # The newest revision last: revisions are numbers of equal length for years to come.
        for path in sorted(_playwright_folder().glob(pattern), reverse=True):
            if _is_executable(path):
                return path
    return None


def _install_commands() -> list[list[str]]:
    commands = []
    if importlib.util.find_spec("playwright") is not None:
        commands.append([sys.executable, "-m", "playwright", "install", "chromium-headless-shell"])
    if shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0:
        commands.append(["apt-get", "update"])  # a new machine has no lists of packages yet
        packages = ["apt-get", "install", "-y", "--no-install-recommends"]
        commands.append([*packages, "chromium-headless-shell", "fonts-liberation"])
        commands.append([*packages, "chromium", "fonts-liberation"])
    return commands


def _run(command: list[str]) -> str | None:
    """None, or what went wrong in one line."""
    print(f"$ {' '.join(command)}", file=sys.stderr, flush=True)  # noqa: T201 - a person waits on this
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands, no shell
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _command_to_type() -> str:
    if shutil.which("apt-get") is not None:
        return "sudo apt-get install chromium-headless-shell fonts-liberation"
    if shutil.which("dnf") is not None:
        return "sudo dnf install chromium-headless liberation-fonts"
    if shutil.which("brew") is not None:
        return "brew install --cask chromium"
    return SHORTEST_INSTALL


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lensmith.render.browser", description="Prints the Chromium found.")
    parser.add_argument("--install", action="store_true", help="install one where there is none")
    options = parser.parse_args(arguments)
    try:
        path = install_chromium() if options.install else find_chromium()
    except BrowserNotFoundError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's output
        return error.exit_code
    print(path)  # noqa: T201 - a command's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
