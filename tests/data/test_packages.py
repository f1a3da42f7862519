"""Packages by name, from the cache or their registry.

Where a registry cannot be reached, what needs it skips and says so.
"""

import shutil
import zipfile

import pytest

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_bytes
from lensmith.data.packages import Package, PackageName, Registry, fetch_package, files_in
from tests.support.packages import make_npm_package

SMALL = PackageName.parse("npm:startbootstrap-shop-item@5.0.6")
SMALL_SHA256 = "a60dcb82fcbeb4dc9e589c3262e889a6682f753ae3b96fe5d74cc721cfd3b1f4"


@pytest.mark.parametrize(
    ("text", "registry", "name", "version", "slug"),
    [
        ("npm:uikit", Registry.NPM, "uikit", None, "uikit"),
        ("npm:uikit@3.25.29", Registry.NPM, "uikit", "3.25.29", "uikit"),
        ("npm:@scope/kit@1.0.0-rc.1", Registry.NPM, "@scope/kit", "1.0.0-rc.1", "scope-kit"),
        ("npm:@scope/kit", Registry.NPM, "@scope/kit", None, "scope-kit"),
        ("deb:libjs-x-doc=1:5.2.3+dfsg-8~deb12", Registry.DEB, "libjs-x-doc", "1:5.2.3+dfsg-8~deb12", "libjs-x-doc"),
        ("pypi:easy-vqa", Registry.PYPI, "easy-vqa", None, "easy-vqa"),
        ("pypi:Some_Kit.x==1!2.0rc1+local", Registry.PYPI, "Some_Kit.x", "1!2.0rc1+local", "Some-Kit.x"),
    ],
)
def test_a_name_says_registry_package_and_version(text, registry, name, version, slug):
    parsed = PackageName.parse(text)
    assert (parsed.registry, parsed.name, parsed.version, parsed.slug) == (registry, name, version, slug)
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    ["uikit", "pip:uikit", "npm:", "npm:--help", "npm:../x", "npm:a b", "npm:x@--y", "npm:x@file:y", "npm:http://a/b.tgz",
     "deb:-o", "deb:A", "deb:x=-y", "npm:./x", "npm:@a", "npm:x@1 2", "npm:x/y", "pypi:x=1", "pypi:-r", "pypi:x[y]",
     "pypi:x==-y", "pypi:x @ http://a/b.whl", "pypi:../x", "pypi:x==1;y"],
)  # fmt: skip
def test_what_names_no_package_is_refused(text):
    with pytest.raises(InputError, match="names no package") as caught:
        PackageName.parse(text)
    assert caught.value.actual == text


@pytest.fixture(scope="module")
def fetched():
    try:
        return fetch_package(SMALL, default_cache_dir(), sha256=SMALL_SHA256)
    except InputError as error:
        pytest.skip(f"FETCHING WAS NOT TESTED: {error}")


def test_a_package_is_what_was_published(fetched):
    assert fetched.name == SMALL
    assert sha256_of_bytes(fetched.path.read_bytes()) == fetched.sha256 == SMALL_SHA256


def test_the_cache_is_enough_the_second_time(fetched, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert fetch_package(SMALL, default_cache_dir(), sha256=SMALL_SHA256) == fetched


def test_a_damaged_cache_is_fetched_again(fetched, tmp_path):
    place = tmp_path / "npm" / fetched.path.name
    place.parent.mkdir()
    place.write_bytes(b"cut short")
    assert fetch_package(SMALL, tmp_path, sha256=SMALL_SHA256).path.read_bytes() == fetched.path.read_bytes()


def test_another_content_is_refused_and_not_kept(fetched, tmp_path):
    with pytest.raises(InputError, match="is not the package that is expected") as caught:
        fetch_package(SMALL, tmp_path, sha256="0" * 64)
    assert "npm:startbootstrap-shop-item@5.0.6" in caught.value.problem
    assert SMALL_SHA256 in caught.value.actual
    assert not list(tmp_path.iterdir())


def test_without_a_version_the_registry_says_which(fetched, tmp_path):
    package = fetch_package(PackageName.parse("npm:startbootstrap-shop-item"), tmp_path)
    assert package.name.version
    assert package.path.name == f"startbootstrap-shop-item-{package.name.version}.tgz"


def test_a_version_that_is_not_there_is_said_by_the_client(fetched, tmp_path):
    with pytest.raises(InputError, match="cannot be fetched: npm pack failed") as caught:
        fetch_package(PackageName.parse("npm:startbootstrap-shop-item@99.0.0"), tmp_path)
    assert "npm pack startbootstrap-shop-item@99.0.0" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "client"), [("npm:x@1.0.0", "npm"), ("deb:manual=1", "apt-get"), ("pypi:x==1.0.0", "pip")]
)
def test_without_its_client_a_person_is_told_what_to_install(tmp_path, monkeypatch, name, client):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=f"{name} cannot be fetched: {client} is not installed") as caught:
        fetch_package(PackageName.parse(name), tmp_path / "cache")
    assert caught.value.hint


def test_without_a_network_a_person_is_told_what_to_try(tmp_path, monkeypatch):
    if shutil.which("npm") is None:
        pytest.skip("FETCHING WAS NOT TESTED: npm is not installed")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    with pytest.raises(InputError, match="npm pack failed") as caught:
        fetch_package(SMALL, tmp_path / "cache")
    assert "ECONNREFUSED" in caught.value.actual
    assert "npm pack startbootstrap-shop-item@5.0.6" in caught.value.hint
    assert not (tmp_path / "cache").exists()


def test_without_a_network_pip_says_so_too(tmp_path, monkeypatch):
    if shutil.which("pip") is None:
        pytest.skip("FETCHING WAS NOT TESTED: pip is not installed")
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/", "RETRIES": "0", "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(InputError, match="pip download failed") as caught:
        fetch_package(PackageName.parse("pypi:x==1.0.0"), tmp_path)
    assert "x==1.0.0" in caught.value.actual
    assert not list(tmp_path.iterdir())


def test_a_wheel_is_read_without_being_unpacked(tmp_path):
    package = wheel(tmp_path, {"kit/weights.pth": b"abc", "kit/__init__.py": b"", "kit-1.0.dist-info/LICENSE": b"MIT"})
    assert list(files_in(package, lambda path, size_bytes: path.endswith(".pth") and size_bytes == 3)) == [
        ("kit/weights.pth", b"abc")
    ]


def test_a_wheel_that_is_damaged_or_names_a_file_outside_itself_is_refused(tmp_path):
    whole = wheel(tmp_path, {"kit/a": bytes(range(256)) * 9})
    whole.path.write_bytes(whole.path.read_bytes()[:-40])
    with pytest.raises(InputError, match="its archive is damaged"):
        list(files_in(whole, lambda *_: True))
    for name in ("../kit", "/kit"):
        with pytest.raises(InputError, match="a file outside itself"):
            list(files_in(wheel(tmp_path, {name: b""}), lambda *_: True))


def wheel(folder, files):
    path = folder / "kit-1.0.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Package(name=PackageName.parse("pypi:kit==1.0"), path=path, sha256="")


def test_what_is_in_the_cache_needs_no_client(tmp_path, monkeypatch):
    name = make_npm_package(tmp_path, {"a.html": "<p>"})
    monkeypatch.setenv("PATH", "")
    package = fetch_package(PackageName.parse(name), tmp_path)
    assert package.sha256 == sha256_of_bytes(package.path.read_bytes())
