"""Real web pages that somebody else made, for a look at how far a model is from them.

They come from an npm package that is pinned by version and SHA-256, through the ordinary `npm` client, into a cache
folder; nothing of it is kept in this repository. Each page is made to stand alone: the package's own stylesheet and
pictures are put into it, everything else from outside and everything that runs is removed.

Where this falls short of the page as its maker sees it: its web fonts (text is set in the machine's own) and its icon
font are outside, so they are gone; and so is what its scripts would draw.
"""

import base64
import mimetypes
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element  # only the type: html5lib parses

import html5lib

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_bytes, sha256_of_file, write_atomic
from lensmith.data.webpages.markup.outside import css_without_outside
from lensmith.data.webpages.markup.repair import repair

FETCH_LIMIT_S = 120
_TOP_FOLDER = "package/"  # of every npm tarball
_CSS_STANDS_HERE = "/*css*/"


@dataclass(frozen=True, kw_only=True)
class NpmPackage:
    """A published package, pinned: `sha256` is its tarball's. `pages` and `stylesheet` are paths within it."""

    name: str
    version: str
    sha256: str
    stylesheet: str
    pages: tuple[str, ...]


SB_ADMIN_2 = NpmPackage(  # MIT licence, by Start Bootstrap
    name="startbootstrap-sb-admin-2",
    version="4.1.4",
    sha256="5cb4d3875078a735953af3b1b12ed8271f1bcbb73ec0cb793d5ee81d22881b0f",
    stylesheet="css/sb-admin-2.min.css",
    pages=("login.html", "register.html", "forgot-password.html", "404.html"),
)


@dataclass(frozen=True, kw_only=True)
class RealPage:
    """A page that stands alone, and where it is from: `sha256` is that of the file at `path` in the package."""

    name: str
    package: str
    version: str
    path: str
    sha256: str
    html: str


def fetch_real_pages(cache_dir: Path | None = None, *, package: NpmPackage = SB_ADMIN_2) -> list[RealPage]:
    """The package's pages, from the cache or else from npm's registry.

    `cache_dir` is `$XDG_CACHE_HOME/lensmith` or `~/.cache/lensmith` by default. Raises InputError with what to do where
    npm or the network is missing, or the package is not the one that is expected.
    """
    tarball = _fetched(package, cache_dir or default_cache_dir())
    wanted = (*package.pages, package.stylesheet, "img/")
    with tarfile.open(tarball) as archive:
        # Found by name in the listing, and never unpacked: a tarball cannot write anywhere.
        files = {
            member.name.removeprefix(_TOP_FOLDER): content.read()
            for member in archive
            if member.isfile() and member.name.removeprefix(_TOP_FOLDER).startswith(wanted)
            if (content := archive.extractfile(member)) is not None
        }
    css = css_without_outside(_held(package, package.stylesheet, files).decode("utf-8", "replace"))
    return [_page(package, path, files, css) for path in package.pages]


def _fetched(package: NpmPackage, cache_dir: Path) -> Path:
    tarball = cache_dir / "npm" / f"{package.name}-{package.version}.tgz"
    if tarball.is_file() and sha256_of_file(tarball) == package.sha256:
        return tarball
    data = _packed_by_npm(package)
    if sha256_of_bytes(data) != package.sha256:
        raise InputError(
            f"{package.name}@{package.version} is not the package that is expected",
            expected=f"sha256 {package.sha256}",
            actual=f"sha256 {sha256_of_bytes(data)}",
            hint="look at which registry npm uses: npm config get registry",
        )
    write_atomic(tarball, data)
    return tarball


def _packed_by_npm(package: NpmPackage) -> bytes:
    """The tarball, byte for byte as the registry has it."""
    wanted = f"{package.name}@{package.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"{wanted} cannot be fetched: npm is not installed",
            expected="the npm client on the PATH",
            hint="install Node.js (Debian: apt install npm)",
        )
    with tempfile.TemporaryDirectory(prefix="lensmith-npm-") as folder:
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
                [npm, "pack", wanted, "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=FETCH_LIMIT_S,
                check=False,
            )
            said, failed = done.stderr, done.returncode != 0
        except subprocess.TimeoutExpired:
            said, failed = f"no answer within {FETCH_LIMIT_S} s", True
        tarballs = list(Path(folder).glob("*.tgz"))
        if failed or len(tarballs) != 1:
            raise InputError(
                f"{wanted} cannot be fetched: npm pack failed",
                actual=_reason(said),
                hint=f"look whether the network is there, then type: npm pack {wanted}",
            )
        return tarballs[0].read_bytes()


def _reason(said: str) -> str:
    """npm's first lines of error, without its decoration."""
    errors = [line.removeprefix("npm error ").removeprefix("npm ERR! ") for line in said.splitlines() if line.strip()]
    return "; ".join(errors[:2]) or "npm said nothing"


def _page(package: NpmPackage, path: str, files: Mapping[str, bytes], css: str) -> RealPage:
    content = _held(package, path, files)
    return RealPage(
        name=posixpath.basename(path),
        package=package.name,
        version=package.version,
        path=path,
        sha256=sha256_of_bytes(content),
        html=page_alone(content, path, files, stylesheet=package.stylesheet, css=css),
    )


def _held(package: NpmPackage, path: str, files: Mapping[str, bytes]) -> bytes:
    if path not in files:
        raise InputError(f"{package.name}@{package.version} does not hold a file", expected=path)
    return files[path]


def page_alone(source: str | bytes, path: str, files: Mapping[str, bytes], *, stylesheet: str, css: str) -> str:
    """The page at `path` with pictures from `files` inside it, and `css` in place of its link to `stylesheet`.

    Bytes are decoded as a renderer decodes them: by a byte order mark, else as their `meta` says, else as UTF-8.
    Nothing remains that runs or that loads anything (`repair` sees to that); `css` must be clean already.
    """
    decoding = {"likely_encoding": "utf-8", "useChardet": False} if isinstance(source, bytes) else {}
    tree = html5lib.parse(source, treebuilder="etree", namespaceHTMLElements=False, **decoding)
    for parent in tree.iter():
        for index, element in enumerate(parent):
            if element.tag == "link" and _within(path, element.get("href")) == stylesheet:
                parent[index] = Element("style")
                parent[index].text = _CSS_STANDS_HERE
            elif element.tag == "img" and (picture := _within(path, element.get("src"))) in files:
                element.set("src", _data_url(picture, files[picture]))
    text = html5lib.serialize(tree, tree="etree", omit_optional_tags=False, quote_attr_values="always")
    # A stylesheet is a hundred times as long as a page, and parsers in Python are slow: it goes in afterwards.
    return repair(f"<!doctype html>{text}").html.replace(f">{_CSS_STANDS_HERE}<", f">{css}<", 1)


def _within(path: str, address: str | None) -> str:
    """What an address on the page at `path` names within its package; "" for none."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), address.strip())) if address else ""


def _data_url(path: str, content: bytes) -> str:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
