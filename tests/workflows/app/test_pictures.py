"""Pictures leave a page as files and come back as they were."""

import base64
import io
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from lensmith.workflows.app.pictures import joined, parted, zipped
from tests.support.packages import png

RED, OTHER = png(2, 2), png(3, 1)


def address(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


PAGE = (
    f'<style>.a{{background:url("{address(RED)}")}}.b{{background:url({address(OTHER)})}}</style>'
    f'<img src="{address(RED)}" alt="pictures"><p>data:image/png is no picture</p>'
)


def test_each_picture_has_one_name_however_often_it_stands():
    page = parted(PAGE)
    assert page.addresses == {"pictures/1.png": address(RED), "pictures/2.png": address(OTHER)}
    assert page.html == (
        '<style>.a{background:url("pictures/1.png")}.b{background:url(pictures/2.png)}</style>'
        '<img src="pictures/1.png" alt="pictures"><p>data:image/png is no picture</p>'
    )


@given(st.lists(st.one_of(st.binary(max_size=40).map(address), st.text("<p>ab1/.\"' ", max_size=20)), max_size=12))
def test_what_was_taken_out_is_put_back(parts):
    html = "|".join(parts)
    page = parted(html)
    assert joined(page.html, page.addresses) == html


def test_many_pictures_keep_their_own_names():
    html = "".join(f'<img src="{address(bytes([number]))}">' for number in range(12))
    page = parted(html)
    assert list(page.addresses.values()) == [address(bytes([number])) for number in range(12)]
    assert joined(page.html, page.addresses) == html


def test_what_is_no_picture_stays():
    for html in ("data:text/html;base64,PGI+", "data:image/png;base64,=", "data:image/png,%89PNG", "", "data:"):
        page = parted(html)
        assert joined(page.html, page.addresses) == html
    assert parted("data:text/html;base64,PGI+").addresses == {}


def test_the_zip_is_a_page_that_opens_and_always_the_same():
    drawn = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='4' height='4'/%3E"
    page = f'{PAGE}<img src="{drawn}">'
    with zipfile.ZipFile(io.BytesIO(zipped(page))) as archive:
        index, *pictures = archive.namelist()
        assert index == "index.html"
        assert [name.partition("/")[0] for name in pictures] == ["pictures"] * 3
        assert [archive.read(name) for name in pictures[:2]] == [RED, OTHER]
        written = archive.read("index.html").decode()
        assert "data:image" not in written.replace("data:image/png is no picture", "")
        assert all(name in written for name in pictures)
        assert archive.testzip() is None
    assert zipped(page) == zipped(page)
