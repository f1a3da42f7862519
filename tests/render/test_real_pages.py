"""Real pages with their stylesheets, fonts and pictures beside them, against a browser that opens the files.

The packages come from npm's registry into lensmith's cache folder, once; where they cannot be had, these tests skip and
say so.
"""

import tarfile

import numpy as np
import pytest

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir
from lensmith.core.types import NotLoaded
from lensmith.data.packages import PackageName, fetch_package
from lensmith.render import Assets, Capture, RenderConfig, Renderer
from tests.support.opened import decoded, file_browser

pytestmark = pytest.mark.slow

WIDTH_PX, HEIGHT_PX = 1280, 720
SB_ADMIN_2, UIKIT, MATERIAL_KIT = (  # all under the MIT licence
    "npm:startbootstrap-sb-admin-2@4.1.4",
    "npm:uikit@3.25.29",
    "npm:material-kit@2.0.4",
)
PACKAGES = {
    SB_ADMIN_2: "5cb4d3875078a735953af3b1b12ed8271f1bcbb73ec0cb793d5ee81d22881b0f",
    UIKIT: "d1510e125df162f473fd009692723d9ca474f3ea908db097eb8fc15baadc210c",
    MATERIAL_KIT: "543712c988b2697c61a7ef6c9527ebf850b21b56e1bdfd7258fc6d333f725602",
}
"""Each with the hash of its file."""
# The pages of the first lie beside their files, the others' in folders beside those of their files.
PAGES = {
    SB_ADMIN_2: "404 blank buttons cards charts index login register tables utilities-color utilities-other",
    UIKIT: "tests/article tests/comment tests/svg",
    MATERIAL_KIT: "index template docs/documentation examples/landing-page examples/login-page examples/profile-page",
}
NEARLY = {"register.html": 2}
"""By how many levels some pixels differ, as they do where the same page stands alone and reads no file."""
NAMES = [(package, f"{page}.html") for package, pages in PAGES.items() for page in pages.split()]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder of each package."""
    folders = {}
    for text, sha256 in PACKAGES.items():
        name = PackageName.parse(text)
        try:
            package = fetch_package(name, default_cache_dir(), sha256=sha256)
        except InputError as error:
            pytest.skip(f"REAL PAGES WERE NOT TESTED: {error}")
        folder = tmp_path_factory.mktemp(name.slug)
        with tarfile.open(package.path) as archive:
            archive.extractall(folder, filter="data")
        folders[text] = folder / "package"
    return folders


@pytest.fixture(scope="module")
def renderer():
    config = RenderConfig(viewport_width_px=WIDTH_PX, viewport_height_px=HEIGHT_PX, timeout_s=60.0)
    with Renderer(config) as warm:
        yield warm


@pytest.fixture(scope="module")
def opened():
    with file_browser(WIDTH_PX, HEIGHT_PX) as shot:
        yield shot


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_pixels_are_those_of_a_browser_that_opens_the_file(package, name, unpacked, renderer, opened):
    root = unpacked[package]
    path = root / name
    page = renderer.render(path.read_bytes(), Capture.PICTURE, assets=Assets(root=root, page=path))
    ours, theirs = decoded(page.png).astype(int), opened(path)[:, :WIDTH_PX]  # theirs is as wide as the page
    assert ours.shape == theirs.shape
    differing = np.abs(ours - theirs).max(axis=2)
    assert differing.max() <= NEARLY.get(name, 0)
    assert np.count_nonzero(differing) <= 200
    closed = renderer.render(path.read_bytes(), Capture.PICTURE)
    assert closed.png != page.png
    reasons = {note.reason for note in page.notes if isinstance(note, NotLoaded)}
    assert reasons <= {"elsewhere", "missing", "refused"}


def test_there_are_enough_pages_and_their_own_folder_is_not_enough_for_some(unpacked, renderer):
    assert len(NAMES) >= 20
    root = unpacked[MATERIAL_KIT]
    path = root / "examples/login-page.html"
    page = renderer.render(path.read_bytes(), Capture.PICTURE, assets=Assets.beside(path))
    (above,) = [note for note in page.notes if isinstance(note, NotLoaded) and note.reason == "above"]
    assert "../assets/css/material-kit.css" in above.addresses
