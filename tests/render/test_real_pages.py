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
from lensmith.data.webpages.real import SB_ADMIN_2, NpmPackage, fetch_real_pages
from lensmith.render import Assets, Capture, RenderConfig, Renderer
from tests.support.opened import decoded, file_browser

pytestmark = pytest.mark.slow

UIKIT = NpmPackage(
    name="uikit",
    version="3.25.29",
    sha256="",
    stylesheet="dist/css/uikit.min.css",
    pages=(),
)
MATERIAL_KIT = NpmPackage(
    name="material-kit",
    version="2.0.4",
    sha256="",
    stylesheet="assets/css/material-kit.css",
    pages=(),
)
PAGES = {
    SB_ADMIN_2: (
        "index.html", "buttons.html", "cards.html", "charts.html", "login.html", "register.html", "404.html",
        "utilities-color.html", "tables.html",
    ),
    UIKIT: (),
    MATERIAL_KIT: (),
}  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The packages, unpacked."""
    folders = {}
    for package in PAGES:
        try:
            fetch_real_pages(package=package)
        except InputError as error:
            pytest.skip(f"REAL PAGES WERE NOT TESTED: {error}")
        folder = tmp_path_factory.mktemp(package.name)
        with tarfile.open(default_cache_dir() / "npm" / f"{package.name}-{package.version}.tgz") as archive:
            archive.extractall(folder, filter="data")
        folders[package.name] = folder / "package"
    return folders
