"""Where the browser is looked for, in which order, and what a person is told when there is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from lensmith.core.errors import BrowserNotFoundError
from lensmith.render import browser


def make_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with no browser at all: empty PATH, empty caches, nothing at the fixed places."""
    monkeypatch.delenv("LENSMITH_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    if any(Path(path).exists() for path in browser.SYSTEM_PATHS):
        pytest.skip("A BROWSER STANDS AT A FIXED PLACE: a machine without one cannot be tried here")
    return tmp_path


def test_order_is_variable_then_system_then_playwright(bare, monkeypatch):
    of_playwright = make_program(bare / "playwright/chromium_headless_shell-1200/chrome-linux/headless_shell")
    assert browser.find_chromium() == of_playwright
    full = make_program(bare / "bin/chromium")
    assert browser.find_chromium() == full
    shell = make_program(bare / "bin/chromium-headless-shell")
    assert browser.find_chromium() == shell
    chosen = make_program(bare / "elsewhere/my-chromium")
    monkeypatch.setenv("LENSMITH_CHROMIUM", str(chosen))
    assert browser.find_chromium() == chosen


def test_newest_of_playwrights_browsers(bare):
    make_program(bare / "playwright/chromium_headless_shell-1100/chrome-linux/headless_shell")
    newest = make_program(bare / "playwright/chromium_headless_shell-1200/chrome-linux64/headless_shell")
    assert browser.find_chromium() == newest


def test_variable_that_names_no_program_is_not_passed_over(bare, monkeypatch):
    make_program(bare / "bin/chromium")
    monkeypatch.setenv("LENSMITH_CHROMIUM", str(bare / "missing"))
    with pytest.raises(BrowserNotFoundError, match="LENSMITH_CHROMIUM") as caught:
        browser.find_chromium()
    assert str(bare / "missing") in str(caught.value)
    with pytest.raises(BrowserNotFoundError, match="LENSMITH_CHROMIUM"):
        browser.install_chromium()


def test_none_found_says_what_to_type(bare):
    with pytest.raises(BrowserNotFoundError) as caught:
        browser.find_chromium()
    assert caught.value.hint == "python -m playwright install --with-deps chromium-headless-shell"
    make_program(bare / "bin/apt-get")
    with pytest.raises(BrowserNotFoundError) as caught:
        browser.find_chromium()
    assert caught.value.hint == "sudo apt-get install chromium-headless-shell fonts-liberation"


def test_install_that_fails_says_what_was_tried(bare):
    (bare / "bin").mkdir()
    (bare / "bin/sh").symlink_to("/bin/sh")
    with pytest.raises(BrowserNotFoundError) as caught:
        browser.install_chromium([["false"], ["sh", "-c", "echo no luck >&2; exit 3"]])
    assert "no luck" in str(caught.value.actual)
    assert caught.value.hint


def test_install_ends_with_the_first_way_that_works(bare, monkeypatch):
    target = bare / "bin/chromium"
    script = f"printf '#!/bin/sh\\n' > {target}; /bin/chmod 755 {target}"
    commands = [["false"], ["/bin/sh", "-c", script], ["/bin/sh", "-c", "echo not reached > reached"]]
    monkeypatch.chdir(bare)
    (bare / "bin").mkdir()
    assert browser.install_chromium(commands) == target
    assert not (bare / "reached").exists()


def test_module_prints_the_path():
    command = [sys.executable, "-m", "lensmith.render.browser", "--install"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.strip() == str(browser.find_chromium())


def test_module_reports_a_missing_browser(monkeypatch):
    monkeypatch.setenv("LENSMITH_CHROMIUM", "/nowhere")
    done = subprocess.run(
        [sys.executable, "-m", "lensmith.render.browser"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert "/nowhere" in done.stderr
    assert "Traceback" not in done.stderr
