"""Screenshot to HTML with the model that ships, on pages it was not trained on."""

import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.data.webpages.markup.repair import is_well_formed
from lensmith.evaluate.visual.ways import ScoreWay
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.html.convert import Converter, convert_file
from lensmith.workflows.html.evaluate import HtmlScores, run, target_pages
from lensmith.workflows.html.gallery import Chapter, ReportPage, difference_picture, write_report


@pytest.fixture(scope="module")
def converter() -> Iterator[Converter]:
    with Converter.load() as converter:
        yield converter


@pytest.fixture(scope="module")
def screenshots(converter: Converter) -> list[Image.Image]:
    targets = target_pages("grammar:3", converter.renderer)
    return [Image.open(io.BytesIO(target.page.png)).convert("RGB") for target in targets]


def test_the_streamed_text_is_the_answer_and_the_answer_stands_alone(
    converter: Converter, screenshots: list[Image.Image]
) -> None:
    pieces: list[str] = []
    best = converter.convert(screenshots[0], on_text=pieces.append).best
    assert len(pieces) > 20
    assert "".join(pieces).startswith("<body")
    assert is_well_formed(best.html)
    assert "http" not in best.html
    assert best.score is not None
    assert best.score.overall > 0.6


def test_of_several_candidates_the_closest_is_kept(converter: Converter, screenshots: list[Image.Image]) -> None:
    conversion = converter.convert(screenshots[1], samples=4, seed=1)
    ranks = [candidate.rank for candidate in conversion.candidates]
    assert len(ranks) == 4
    assert conversion.best.rank == max(ranks)
    again = converter.convert(screenshots[1], samples=4, seed=1)
    assert [candidate.html for candidate in again.candidates] == [c.html for c in conversion.candidates]
    other = converter.convert(screenshots[1], samples=4, seed=2)
    assert [candidate.html for candidate in other.candidates][1:] != [c.html for c in conversion.candidates][1:]
    assert other.candidates[0].html == conversion.candidates[0].html  # the first is greedy


def test_in_a_batch_each_picture_gives_what_it_gives_alone(
    converter: Converter, screenshots: list[Image.Image]
) -> None:
    together = list(converter.convert_many(screenshots))
    alone = [converter.convert(picture).candidates[0] for picture in screenshots]
    assert [candidate.html for candidate in together] == [candidate.html for candidate in alone]


def test_a_picture_of_no_page_still_gives_well_formed_html(converter: Converter) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 700, 3), dtype=np.uint8)
    conversion = converter.convert(Image.fromarray(noise))
    assert is_well_formed(conversion.best.html)


def test_a_file_is_written_whole(screenshots: list[Image.Image], tmp_path: Path) -> None:
    screenshots[2].save(tmp_path / "page.png")
    result = convert_file(tmp_path / "page.png", tmp_path / "out.html", samples=2)
    assert is_well_formed((tmp_path / "out.html").read_text())
    assert result.overall == max(score for score in result.scores if score is not None)
    assert "looks" in str(result)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model"):
        Converter.load(tmp_path)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> HtmlScores:
    return run("grammar:12", nearest_among=60, report=tmp_path_factory.mktemp("report") / "report.html")


def test_the_model_is_far_above_both_baselines(scores: HtmlScores) -> None:
    means = {name: estimate.mean for name, estimate in scores.model.metrics.items()}
    assert means["block_match"] > 0.8
    assert means["text"] > 0.8
    assert scores.nearest is not None
    assert means["overall"] > scores.nearest.metrics["overall"].mean + 0.3
    assert scores.blank.metrics["block_match"].mean == 0
    assert "nearest" in str(scores)


def test_the_same_answers_are_scored_as_design2code_does() -> None:
    scores = run("grammar:2", nearest_among=4, way=ScoreWay.BOTH)
    compared = scores.design2code
    assert compared is not None
    assert compared.model.metrics["four_term_mean"].mean > 0.5
    assert compared.nearest is not None
    assert compared.nearest.metrics["four_term_mean"].mean < compared.model.metrics["four_term_mean"].mean
    assert compared.blank.metrics["four_term_mean"].mean == 0
    assert "overall" in str(scores)
    assert "four_term_mean" in str(scores)
    assert "overall" not in str(replace(scores, way=ScoreWay.DESIGN2CODE))


def test_unknown_pages_are_refused(tmp_path: Path) -> None:
    for pages in ("grammar:0", "grammar:x", str(tmp_path)):
        with pytest.raises(InputError, match="no pages"):
            run(pages)


def test_a_report_needs_no_other_file(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(png, "PNG")
    page = ReportPage(
        name="<b>page", target_png=png.getvalue(), answer_png=None, answer_html="<p>&amp;</p>", scores={"text": 0.5}
    )
    write_report(tmp_path / "deep" / "report.html", [page], title="T", lead="L")
    text = (tmp_path / "deep" / "report.html").read_text()
    assert is_well_formed(text)
    assert "&lt;b&gt;page" in text
    assert "did not render" in text
    assert 'src="http' not in text


@pytest.mark.parametrize("width_px", [400, 1400])
def test_a_report_with_a_wide_table_fits_its_window(tmp_path: Path, width_px: int) -> None:
    rows = [
        ("the model behind", "what the audit says", "width", "queries", "full report"),
        ("lensmith guard --expose top-logprobs=5,no-logit-bias", "critical: " + "logprobs; " * 20, "128", "1,200", "a"),
        ("an-unbroken-name-" * 6, "clean", "not found", "300", "b"),
    ]
    chapter = Chapter(title="T", lead="L", rows=rows, links={"a": "open/report.html"})
    write_report(tmp_path / "report.html", [], title="T", lead="L", chapters=[chapter])
    with Renderer(RenderConfig(viewport_width_px=width_px)) as renderer:
        page = renderer.render((tmp_path / "report.html").read_text(), Capture.ELEMENTS)
    cells = [element.box for element in page.elements if element.tag in ("td", "table", "section")]
    assert len(cells) == 12
    assert max(box.right_px for box in cells) <= width_px


def test_the_difference_shows_where_and_how_much() -> None:
    def png(image: Image.Image) -> bytes:
        data = io.BytesIO()
        image.save(data, "PNG")
        return data.getvalue()

    first = Image.new("RGB", (4, 3), "white")
    second = first.copy()
    second.putpixel((1, 2), (255, 155, 255))
    taller = Image.new("RGB", (4, 5), "white")
    levels = np.asarray(Image.open(io.BytesIO(difference_picture(png(first), png(second)))))
    assert levels[2, 1] == 155
    assert (np.delete(levels.ravel(), 9) == 255).all()
    grown = np.asarray(Image.open(io.BytesIO(difference_picture(png(first), png(taller)))))
    assert (grown[:3] == 255).all()
    assert (grown[3:] < 255).all()


def test_who_asks_an_endpoint_waits_for_no_torch() -> None:
    code = (
        "import sys, lensmith.workflows.html.convert, lensmith.workflows.html.writers\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
