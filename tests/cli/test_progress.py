"""The bar appears when work begins, on stderr only, and leaves other output alone."""

import pytest

from lensmith.cli.console.progress import progress_bar


def test_the_bar_counts_on_stderr(capsys):
    with progress_bar("pages") as on_progress:
        for done in range(1, 6):
            on_progress(done, 5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pages" in captured.err
    assert "5/5" in captured.err
    assert "/s" in captured.err


def test_no_bar_without_work(capsys):
    with progress_bar("pages"):
        pass
    assert capsys.readouterr().err == ""


def test_an_error_passes_through_and_ends_the_bar(capsys):
    with pytest.raises(KeyError), progress_bar("pages") as on_progress:
        on_progress(1, 5)
        raise KeyError
    assert "1/5" in capsys.readouterr().err
