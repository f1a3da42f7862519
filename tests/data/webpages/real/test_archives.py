"""Archives of packages, which anyone may have made: nothing of them is unpacked, and nothing outside them is named."""

import shutil
import subprocess
import tarfile

import pytest
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.data.packages import Package, PackageName, fetch_package
from lensmith.data.webpages.real.archives import PackageFiles, read_package
from lensmith.data.webpages.real.pictures import PictureSize, size_of_picture
from tests.support.packages import make_npm_package, png


def opened(tmp_path, files, members=()):
    name = make_npm_package(tmp_path, files, members=members)
    return read_package(fetch_package(PackageName.parse(name), tmp_path))


def test_pages_stylesheets_and_fonts_are_read_and_pictures_measured(tmp_path):
    files = opened(
        tmp_path,
        {
            "a.html": "<p>",
            "css/b.CSS": "p{}",
            "f.woff2": b"font",
            "big.woff2": b"0" * 300_000,
            "dot.png": png(4, 2),
            "d.svg": '<?xml version="1.0"?><svg viewBox="0 0 8 4" width="2em">',
            "broken.png": b"no picture",
            "run.js": "run()",
            "readme.md": "#",
        },
    )
    assert dict(files.content) == {"a.html": b"<p>", "css/b.CSS": b"p{}", "f.woff2": b"font"}
    assert dict(files.picture_sizes) == {
        "dot.png": PictureSize.of_pixels(4, 2), "d.svg": PictureSize(width="2em", view_box="0 0 8 4")
    }  # fmt: skip
    assert files.pages == ("a.html",)
    assert files.license == "MIT"


@pytest.mark.parametrize("name", ["../escaped.html", "/etc/escaped.html", "package/../../escaped.html", ".."])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    member = tarfile.TarInfo(name)
    with pytest.raises(InputError, match="names a file outside itself") as caught:
        opened(tmp_path / "cache", {"a.html": "<p>"}, [member])
    assert caught.value.actual == name
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["themes-1.0.0.tgz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_not_read(tmp_path, kind):
    member = tarfile.TarInfo("package/link.html")
    member.type, member.linkname = kind, "/etc/passwd"
    files = opened(tmp_path, {"a.html": "<p>"}, [member])
    assert files.pages == ("a.html",)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"package.json": '{"license": "ISC"}', "LICENSE": "MIT License"}, "ISC"),
        ({"package.json": '{"license": {"type": "BSD"}}'}, "BSD"),
        ({"package.json": "{}", "LICENSE": "\n# MIT License\n\nCopyright"}, "MIT License"),
        ({"package.json": "[", "license.md": "MIT"}, "MIT"),
        ({"package.json": '{"license": 7}'}, ""),
    ],
)
def test_the_license_is_what_the_package_says(tmp_path, files, said):
    assert opened(tmp_path, files).license == said


def test_an_archive_that_grows_without_end_is_given_up(tmp_path):
    member = tarfile.TarInfo("package/zeros.bin")
    member.size = 3 << 30  # said by its head, as the many zeros that a kilobyte unpacks to
    with pytest.raises(InputError, match="it holds too much"):
        opened(tmp_path, {"a.html": "<p>"}, [member])


def test_a_damaged_archive_is_named(tmp_path):
    name = PackageName.parse(make_npm_package(tmp_path, {"a.html": "<p>" * 9000}))
    path = tmp_path / "npm" / "themes-1.0.0.tgz"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(InputError, match=r"npm:themes@1\.0\.0 cannot be read: its archive is damaged") as caught:
        read_package(fetch_package(name, tmp_path))
    assert "themes-1.0.0.tgz" in caught.value.hint


def test_a_debian_package_is_read_with_its_links(tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("DEBIAN PACKAGES WERE NOT TESTED: dpkg-deb is not installed")
    root = tmp_path / "root"
    documents = root / "usr/share/doc/manual"
    (documents / "html").mkdir(parents=True)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        "Package: manual\nVersion: 1:2-3\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a manual\n"
    )
    (documents / "copyright").write_text("Files: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: CC-BY-4.0\n")
    (documents / "html" / "index.html").write_text("<p>")
    (root / "usr/share/css").mkdir()
    (root / "usr/share/css/a.css").write_text("p{}")
    (documents / "html" / "css").symlink_to("../../../css")
    (documents / "html" / "out.css").symlink_to("/etc/passwd")
    (documents / "html" / "loop.css").symlink_to("loop.css")
    path = tmp_path / "manual.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, path], check=True, capture_output=True)
    files = read_package(Package(name=PackageName.parse("deb:manual"), path=path, sha256=""))
    assert sorted(files.content) == [
        "usr/share/css/a.css", "usr/share/doc/manual/html/css/a.css", "usr/share/doc/manual/html/index.html"
    ]  # fmt: skip
    assert files.license == "GPL-2+, CC-BY-4.0"
    path.write_bytes(b"!<arch>\n")
    with pytest.raises(InputError, match="deb:manual cannot be read"):
        read_package(Package(name=PackageName.parse("deb:manual"), path=path, sha256=""))


@pytest.mark.parametrize(
    ("address", "base", "found"),
    [
        ("b.css", "site/a.html", "site/b.css"),
        ("../top.css", "site/a.html", "top.css"),
        ("%62.css?v=1#x", "site/a.html", "site/b.css"),
        ("/b.css", "site/deep/a.html", "site/b.css"),
        ("/top.css", "site/deep/a.html", "top.css"),
        ("../../top.css", "site/a.html", ""),
        ("//top.css", "a.html", ""),
        ("https://example.org/top.css", "a.html", ""),
        ("file:///top.css", "a.html", ""),
        ("http://[", "a.html", ""),
        ("", "a.html", ""),
    ],
)
def test_an_address_names_a_file_of_the_package_or_none(address, base, found):
    assert PackageFiles(content={"site/b.css": b"", "top.css": b""}).found(address, base) == found


def test_a_photograph_lies_as_its_camera_says(tmp_path):
    image = Image.new("RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert size_of_picture((tmp_path / "a.jpg").read_bytes()) == PictureSize.of_pixels(20, 30)
