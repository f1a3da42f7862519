"""Several answers side by side: one table, pages worst first, and a report that shows where likeness was lost."""

import json
import sys
from dataclasses import replace

import pytest

from lensmith.cli.app import app
from lensmith.cli.app import run as run_command
from lensmith.data.webpages.markup.repair import is_well_formed
from lensmith.evaluate.visual.design2code.score import WINDOW, score_pairs
from lensmith.evaluate.visual.score import summarise
from lensmith.evaluate.visual.ways import ScoreWay
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.html.engines import EngineName
from lensmith.workflows.html.evaluate import peer_names, run

CSS = "<style>body{margin:0;font:16px Arial}p{padding:8px;border:1px solid #88a;background:#eef}</style>"
HEAD = f"<!doctype html><html><head>{CSS}</head>"
PAGES = {
    "a": f"{HEAD}<body><h1>A first page</h1><p>with some words in a box</p></body></html>",
    "b": f"{HEAD}<body><h1>Another page</h1><p>with other words</p><p>in two boxes</p></body></html>",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two pages, one tool's perfect answers, and another's: one half right, one missing."""
    root = tmp_path_factory.mktemp("pages")
    for name in ("targets", "perfect", "poor"):
        (root / name).mkdir()
    for name, html in PAGES.items():
        (root / "targets" / f"{name}.html").write_text(html)
        (root / "perfect" / f"{name}.html").write_text(html)
    (root / "poor" / "a.html").write_text("<h1 style='position:absolute;width:900px'>A first page</h1><b>and more</b>")
    return root


@pytest.fixture(scope="module")
def scores(folders):
    return run(
        str(folders / "targets"),
        engines=[],
        peers=[folders / "perfect", folders / "poor"],
        nearest_among=3,
        width_px=1280,
        way=ScoreWay.BOTH,
        report=folders / "report.html",
    )


def test_every_column_is_named_by_who_answers(scores):
    assert list(scores.comparison.columns) == ["peer perfect", "peer poor", "blank", "nearest"]
    assert scores.answering == ("peer perfect", "peer poor")
    lines = str(scores).splitlines()
    heads = [line for line in lines if "peer perfect" in line and "peer poor" in line]
    assert len(heads) == 3  # geometry, Design2Code, code
    assert all("blank page" in head and "nearest of 3" in head for head in heads)
    assert "the pages themselves" in heads[2]


def test_a_perfect_answer_has_the_best_of_everything(scores):
    column = scores.comparison.columns["peer perfect"]
    assert column.geometry.metrics["overall"].mean == pytest.approx(1)
    assert column.geometry.metrics["ssim"].mean == 1
    assert column.geometry.metrics["surface_match"].mean == pytest.approx(1)
    assert column.design2code.metrics["four_term_mean"].mean == pytest.approx(1)
    assert column.editability.means["tree_bleu"].mean == 1
    assert column.editability.medians["markup_ratio"].median == 1
    assert column.editability.shares == scores.comparison.targets.shares
    assert column.failed == 0


def test_a_missing_answer_counts_as_a_failure(scores):
    column = scores.comparison.columns["peer poor"]
    assert column.failed == 1
    assert column.geometry.n == 2
    assert column.editability.shares["no_absolute"].hits == 0
    assert column.editability.shares["reflow_1024"].hits == 1  # the other is missing
    assert column.editability.shares["reflow_768"].hits == 0  # and sticks out here
    assert "1 failed" in str(scores)


def test_blank_pages_have_no_text_and_no_structure(scores):
    blank = scores.comparison.columns["blank"]
    assert blank.design2code.metrics["four_term_mean"].mean == 0
    assert blank.editability.means["tree_bleu"].mean == 0
    assert blank.geometry.metrics["surface_recall"].mean == 0


def test_the_first_who_answers_stands_where_the_model_stood(scores):
    assert scores.model == scores.comparison.columns["peer perfect"].geometry
    assert scores.blank == scores.comparison.columns["blank"].geometry
    assert scores.design2code.model == scores.comparison.columns["peer perfect"].design2code


def test_the_table_of_pages_begins_with_the_worst(scores):
    poor_first = replace(scores, answering=("peer poor", "peer perfect"))
    rows = [line.split()[0] for line in poor_first.by_page().splitlines()]
    assert rows == ["page", "b.html", "b.html", "a.html", "a.html"]
    assert "there is no answer" in poor_first.by_page()
    assert "1024 --- ---" in poor_first.by_page()


def test_design2code_sees_what_lies_beside_a_page(tmp_path):
    targets, answers = tmp_path / "targets", tmp_path / "answers"
    for folder in (targets, answers):
        folder.mkdir()
        (folder / "look.css").write_text("p{margin:0;color:#0a0;font:40px Arial}")
        (folder / "a.html").write_text(
            "<html><link rel=stylesheet href=look.css><body><p>large green words</body></html>"
        )
    plain = "<html><body><p>large green words</body></html>"
    beside = run(str(targets), engines=[], peers=[answers], nearest_among=0, way=ScoreWay.DESIGN2CODE)
    (terms,) = [page.answers["peer answers"].design2code for page in beside.comparison.per_page]
    assert terms.four_term_mean == pytest.approx(1)
    (answers / "a.html").write_text(plain)
    without = run(str(targets), engines=[], peers=[answers], nearest_among=0, way=ScoreWay.DESIGN2CODE)
    (terms,) = [page.answers["peer answers"].design2code for page in without.comparison.per_page]
    assert terms.colour < 0.9


def test_pages_that_stand_alone_have_the_terms_of_score_pairs(scores):
    with Renderer(WINDOW) as renderer:
        pairs = [(html, html) for html in PAGES.values()]
        assert summarise(list(score_pairs(pairs, renderer))) == scores.comparison.columns["peer perfect"].design2code


def test_the_report_stands_alone_and_fits_a_window(scores, folders):
    text = (folders / "report.html").read_text()
    assert is_well_formed(text)
    assert 'src="http' not in text
    assert "there is no answer" in text
    assert "2 surfaces missing" in text or "1 surface missing" in text
    for width_px in (400, 1400):
        with Renderer(RenderConfig(viewport_width_px=width_px)) as renderer:
            page = renderer.render(text, Capture.ELEMENTS)
        boxes = [element.box for element in page.elements if element.tag in ("section", "figure", "h2")]
        assert len(boxes) > 12
        assert max(box.right_px for box in boxes) <= width_px


def test_of_two_equal_answers_the_report_shows_one(folders, tmp_path):
    peers = [folders / "perfect", folders / "targets"]
    run(str(folders / "targets"), engines=[], peers=peers, nearest_among=0, report=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.count("the same page as peer perfect") == 2
    assert text.count("<img") == 2 * 3
    assert text.count("nothing was lost") == 2


def test_folders_of_one_name_keep_apart(tmp_path):
    named = peer_names([tmp_path / "x" / "out", tmp_path / "y" / "out", tmp_path / "z"])
    assert list(named) == ["peer out", "peer out (2)", "peer z"]


def test_engines_in_one_run_score_as_each_alone():
    engines = [EngineName.MODEL, EngineName.LAYOUT, EngineName.AUTO]
    together = run("grammar:2", engines=engines, nearest_among=0, width_px=384)
    assert list(together.comparison.columns) == ["model", "layout", "auto", "blank"]
    for engine in (EngineName.MODEL, EngineName.LAYOUT):
        alone = run("grammar:2", engines=[engine], nearest_among=0, width_px=384)
        column, same = (each.comparison.columns[engine.value] for each in (together, alone))
        assert column.geometry == same.geometry == alone.model
        assert column.editability == same.editability
    auto = [page.answers["auto"].overall for page in together.comparison.per_page]
    assert len(auto) == 2 and min(auto) > 0.5


def test_the_command_takes_several_and_prints_pages(folders, monkeypatch, capsys):
    arguments = ["lensmith", "eval", "html", "--pages", str(folders / "targets"), "--peer", str(folders / "perfect")]
    arguments += ["--peer", str(folders / "poor"), "--nearest-among", "0"]
    for more in (["--by-page"], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit) as caught:
            run_command(app)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        if "--json" in more:
            record = json.loads(out)
            assert record["comparison"]["columns"]["peer poor"]["failed"] == 1
            (_, second) = record["comparison"]["per_page"]
            assert second["answers"]["peer poor"]["error"] == "there is no answer"
            assert [one["passed"] for one in second["target"]["reflow"]] == [True, True, True]
            assert record["model"]["metrics"]["overall"]["mean"] == pytest.approx(1)
        else:
            assert "a.html  peer perfect" in out
