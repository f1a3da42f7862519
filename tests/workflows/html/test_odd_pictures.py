"""Odd and hostile pictures: a page or a clear answer, exit 0 or 2, never a traceback, within a minute each."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lensmith.core.errors import InputError
from lensmith.data.webpages.markup.repair import is_well_formed
from lensmith.workflows.html.convert import Converter
from lensmith.workflows.html.engines import NO_TEXT, EngineName
from tests.support.odd_pictures import PAGES, REFUSED, made_photograph, page

LIMIT_S = 60
WITHOUT_TEXT = {"made-photograph.jpg", "blank.png", "black.png", "gradient.png", "transparent.png", "one-pixel.png"}


def converted(name: str, content: bytes, folder: Path) -> "subprocess.CompletedProcess[str]":
    (folder / name).write_bytes(content)
    command = [sys.executable, "-m", "lensmith.cli", "html", name, "-o", "out.html"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=4 * LIMIT_S, check=False)


def test_there_are_enough_of_them():
    assert len(PAGES) + len(REFUSED) >= 40


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("name", PAGES)
def test_it_becomes_a_page(name, tmp_path):
    try:
        content = PAGES[name]()
    except InputError as error:
        pytest.skip(str(error))
    began = time.monotonic()
    done = converted(name, content, tmp_path)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    html = (tmp_path / "out.html").read_text()
    assert is_well_formed(html)
    assert "looks" in done.stdout or "rendering failed: " in done.stdout
    assert NO_TEXT in done.stdout or name not in WITHOUT_TEXT
    assert seconds <= LIMIT_S


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_a_reason(name, tmp_path):
    done = converted(name, REFUSED[name](), tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert name in done.stderr
    assert not (tmp_path / "out.html").exists()


def test_a_photograph_is_answered_honestly():
    with Converter.load(engine=EngineName.LAYOUT) as converter:
        best = converter.convert(made_photograph()).best
        assert best.notes == (NO_TEXT,)
        assert "<img" in best.html
        assert best.page is not None
        assert converter.convert(page()).best.notes == ()
