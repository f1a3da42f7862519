"""The pinned sets, as they stand; and their pages, fetched as users fetch them, or the test says that it skips."""

import re

import pytest

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_bytes
from lensmith.data.webpages.real.likeness import likeness, shape_of
from lensmith.data.webpages.real.pinned import Split, mixed, pinned_packages, real_page, real_pages

SMALL_SET = 4


def fetched(split, count=None):
    try:
        return real_pages(split, count=count)
    except InputError as error:
        if "is not prepared as it was" in str(error) or "is not the package" in str(error):
            raise
        pytest.skip(f"REAL PAGES WERE NOT TESTED: {error}")


def test_the_sets_are_large_and_share_no_package():
    tune, test = (pinned_packages(split) for split in Split)
    counts = [sum(len(package.pages) for package in packages) for packages in (tune, test)]
    assert sum(counts) >= 60 and min(counts) >= 25
    assert len(tune) + len(test) >= 8
    assert not {package.name for package in tune} & {package.name for package in test}
    for package in (*tune, *test):
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)
        assert package.license
        assert 1 <= len(package.pages) <= 12
        assert all(re.fullmatch(r"[0-9a-f]{64}", page.sha256) for page in package.pages)
    files = [page.file for package in (*tune, *test) for page in package.pages]
    assert len(files) == len(set(files))


def test_an_order_takes_one_of_each_in_turn():
    assert mixed(["abc", "", "de", "f"]) == list("adfbec")
    assert mixed([]) == []


@pytest.mark.parametrize("split", Split)
def test_the_first_pages_are_as_they_were_pinned(split):
    pages = fetched(split, SMALL_SET)
    assert [page.package for page in pages] == [package.name for package in pinned_packages(split)][:SMALL_SET]
    for package, page in zip(pinned_packages(split), pages, strict=False):
        assert page.file == default_cache_dir() / "pages" / split.value / package.pages[0].file
        assert sha256_of_bytes(page.file.read_bytes()) == package.pages[0].sha256


def test_the_cache_is_enough_the_second_time(monkeypatch):
    pages = fetched(Split.TUNE, SMALL_SET)
    monkeypatch.setenv("PATH", "")
    assert real_pages(Split.TUNE, count=SMALL_SET) == pages


def test_a_damaged_page_is_made_again():
    (page,) = fetched(Split.TUNE, 1)
    whole = page.file.read_bytes()
    page.file.write_bytes(whole[:100])
    fetched(Split.TUNE, 1)
    assert page.file.read_bytes() == whole


def test_a_package_that_cannot_be_fetched_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    first = pinned_packages(Split.TEST)[0]
    with pytest.raises(InputError, match="cannot be fetched") as caught:
        real_pages(Split.TEST, cache_dir=tmp_path)
    assert f"{first.name}@{first.version}" in caught.value.problem


def test_a_page_outside_the_sets_can_be_had_too():
    fetched(Split.TUNE, 1)
    try:
        html = real_page("startbootstrap-sb-admin-2", "login.html")
    except InputError as error:
        pytest.skip(f"REAL PAGES WERE NOT TESTED: {error}")
    assert "Forgot Password?" in html
    with pytest.raises(InputError, match="does not hold a file"):
        real_page("startbootstrap-sb-admin-2", "nothing.html")
    with pytest.raises(InputError, match="no such package is pinned"):
        real_page("nothing", "login.html")


@pytest.mark.slow
def test_every_page_is_as_it_was_pinned_and_no_two_are_near():
    shapes = [shape_of(page.file.read_text("utf-8")) for split in Split for page in fetched(split)]
    for index, shape in enumerate(shapes):
        assert max((likeness(shape, other) for other in shapes[:index]), default=0) <= 0.7
