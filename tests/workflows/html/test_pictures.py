"""A page's pictures inside it, in files beside it, or as boxes: the same page, and nobody's file is lost."""

import base64
import io
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.core.files import STANDARD_OUTPUT
from lensmith.data.webpages.markup.repair import is_well_formed
from lensmith.render import Assets
from lensmith.workflows.html.batch import convert_folder
from lensmith.workflows.html.convert import Converter, convert_file
from lensmith.workflows.html.engines import EngineName
from lensmith.workflows.html.pictures import PictureMode, check_place, with_pictures, write_page
from tests.support.screenshots import renderer_of, screenshot


def png(colour: str, size: tuple[int, int] = (40, 20)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


RED, BLUE = png("#c02020"), png("#2020c0", (30, 30))
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="50" height="25"><rect width="50" height="25" fill="green"/></svg>'
# One candidate in srcset: Chromium takes a data URL for loaded, and so prefers a finer one, which a file is not.
PAGE = f"""<!doctype html>
<html lang="en"><head><title>Pictures</title><style>
/* url({url(RED)}) is only spoken of */
.band{{height:60px;background:#eee url("{url(BLUE)}") no-repeat 5px 5px}}
.said:before{{content:"url({url(BLUE)})";font-size:3px}}
</style></head><body style="margin:0;background:url({url(png("#fafafa", (4, 4)))})">
<img src="{url(RED)}" width="80" height="40" alt="A red &quot;flag&quot;"><img src='{url(RED)}' alt="">
<div class="band"></div><img src="data:image/svg+xml,{quote(SVG)}" alt="">
<p>An address looks like src="{url(RED)[:40]}".</p><a href="{url(RED)}">A link</a>
<img srcset="{url(BLUE)} 1x" alt=""></body></html>
"""


def shown(html: str, assets: Assets | None = None) -> np.ndarray:
    page = renderer_of(500).render(html, assets=assets)
    return np.asarray(Image.open(io.BytesIO(page.png)).convert("RGB"))


def test_inside_it_nothing_changes():
    kept = with_pictures(PAGE, PictureMode.EMBED, "x_files")
    assert (kept.html, kept.files, kept.pictures) == (PAGE, {}, 0)


def test_files_beside_it_give_the_same_pixels(tmp_path):
    out = tmp_path / "my page (1).html"
    kept = write_page(out, PAGE, PictureMode.FILES)
    html = out.read_text()
    assert html == kept.html
    assert kept.pictures == 4  # red comes three times, and is one file
    assert sorted(kept.files) == sorted(
        f"my page (1)_files/{path.name}" for path in (out.parent / "my page (1)_files").iterdir()
    )
    assert [Path(name).name[:10] for name in kept.files] == ["picture-01", "picture-02", "picture-03", "picture-04"]
    assert {path.suffix for path in (out.parent / "my page (1)_files").iterdir()} == {".png", ".svg"}
    assert is_well_formed(html)
    assert np.array_equal(shown(html, Assets.beside(out)), shown(PAGE))
    assert not np.array_equal(shown(html), shown(PAGE))  # without its files it looks otherwise


def test_what_only_looks_like_a_picture_stays():
    html = with_pictures(PAGE, PictureMode.FILES, "x_files").html
    assert f"/* url({url(RED)}) is only spoken of */" in html
    assert f'content:"url({url(BLUE)})"' in html
    assert f'looks like src="{url(RED)[:40]}"' in html
    assert f'<a href="{url(RED)}">' in html
    assert html.count("data:image/") == 4
    for broken in (
        '<img src="data:image/png;base64,@@@">',
        '<img src="data:image/pdf,x">',
        '<img src="data:image/png">',
    ):
        assert with_pictures(broken, PictureMode.FILES, "x_files").html == broken


def test_boxes_stand_in_their_places_in_their_sizes():
    kept = with_pictures(PAGE, PictureMode.NONE, "x_files")
    assert kept.files == {}
    assert kept.pictures == 6
    assert is_well_formed(kept.html)
    assert kept.html.count(url(RED)) == 2  # in a comment and behind a link
    before, after = renderer_of(500).render(PAGE), renderer_of(500).render(kept.html)
    assert (after.width_px, after.height_px) == (before.width_px, before.height_px)
    assert [block.box for block in after.texts] == [block.box for block in before.texts]
    pixels = shown(kept.html)
    assert tuple(pixels[3, 3]) == (0xD5, 0xDA, 0xE1)
    assert len(kept.html) < len(PAGE) + 4000
    # The words of the first picture stand in its middle, in another colour.
    assert pixels[10:30, 5:75].min() < 150
    assert "flag" in kept.html


def test_a_strangers_file_is_not_overwritten(tmp_path):
    out = tmp_path / "page.html"
    first = write_page(out, PAGE, PictureMode.FILES)
    write_page(out, PAGE, PictureMode.FILES)  # the same pictures: nothing to overwrite
    place = tmp_path / next(iter(first.files))
    place.write_bytes(b"drawn by hand")
    stranger = place.parent / "notes.txt"
    stranger.write_text("keep")
    out.write_text("the page as it was")
    with pytest.raises(InputError, match="would be overwritten"):
        write_page(out, PAGE, PictureMode.FILES)
    assert place.read_bytes() == b"drawn by hand"
    assert out.read_text() == "the page as it was"
    place.unlink()
    write_page(out, PAGE, PictureMode.FILES)
    assert stranger.read_text() == "keep"


def test_there_is_no_place_beside_a_stream(tmp_path):
    with pytest.raises(InputError, match="beside a stream"):
        convert_file(tmp_path / "none.png", STANDARD_OUTPUT, assets=PictureMode.FILES)
    check_place(STANDARD_OUTPUT, PictureMode.NONE)


@pytest.fixture(scope="module")
def with_photograph(tmp_path_factory) -> Path:
    """A screenshot with a picture on it."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    rgb, _ = screenshot(
        f'<body style="margin:0;font:16px Arial"><h1>A photograph of sand</h1><img src="{url(data.getvalue())}" alt="">'
        "<p>It was taken on a beach, early in the morning.</p></body>",
        width_px=600,
    )
    path = tmp_path_factory.mktemp("shots") / "sand.png"
    Image.fromarray(rgb).save(path)
    return path


def test_a_converted_page_says_where_its_pictures_are(with_photograph, tmp_path):
    results = {
        mode: convert_file(with_photograph, tmp_path / f"{mode}.html", engine=EngineName.LAYOUT, assets=mode)
        for mode in PictureMode
    }
    assert results[PictureMode.EMBED].notes == ()
    assert results[PictureMode.FILES].overall == results[PictureMode.EMBED].overall
    assert "1 picture beside it in files_files" in str(results[PictureMode.FILES])
    assert len(list((tmp_path / "files_files").iterdir())) == 1
    # What is said is of the page that was written: without its picture it is less alike.
    assert results[PictureMode.NONE].overall < results[PictureMode.EMBED].overall - 0.02
    assert "grey boxes" in str(results[PictureMode.NONE])
    embedded, beside = (tmp_path / f"{mode}.html" for mode in (PictureMode.EMBED, PictureMode.FILES))
    assert np.array_equal(
        shown(beside.read_text(), Assets.beside(beside)), shown(embedded.read_text(), Assets.beside(embedded))
    )


def test_pages_of_a_folder_have_a_folder_each_and_a_kept_one_is_shown_with_it(with_photograph, tmp_path):
    with Converter.load(engine=EngineName.LAYOUT) as converter:
        report = tmp_path / "report.html"
        first = convert_folder(with_photograph.parent, tmp_path / "out", converter, assets=PictureMode.FILES)
        again = convert_folder(with_photograph.parent, tmp_path / "out", converter, report=report)
    assert len(list((tmp_path / "out" / "sand_files").iterdir())) == 1
    assert "in sand_files" in str(first[0])
    assert again[0].status.value == "kept"
    likeness = re.search(r"likeness <b[^>]*>([0-9.]+)", report.read_text())
    assert likeness is not None
    assert float(likeness[1]) == pytest.approx(first[0].overall, abs=0.006)
