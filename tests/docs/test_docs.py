"""What the documents name exists: links, paths, and in the tour every name of the code."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "lensmith"
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *SOURCE.rglob("*.md"))
)
TOUR = "docs/architecture.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+/?")
FOLDERS = {path.name for path in SOURCE.iterdir() if path.is_dir()} | {"benchmarks", "docs", "scripts", "src", "tests"}


def missing_links(page: Path) -> list[str]:
    """Targets of links to files that are not there."""
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    return [target for target in targets if not (page.parent / target.partition("#")[0]).exists()]


def missing_paths(page: Path) -> list[str]:
    """Paths between backticks that begin with a folder of the project and are not there."""
    named = [code for code in CODE.findall(page.read_text(encoding="utf-8")) if PATH.fullmatch(code)]
    ours = [path for path in named if path.split("/")[0] in FOLDERS]
    return [path for path in ours if not any((base / path).exists() for base in (ROOT, SOURCE))]


def unknown_names(page: Path) -> list[str]:
    """Names between backticks that neither a module nor a test has (but these, which make some up)."""
    tests = (path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (*SOURCE.rglob("*.py"), *tests))
    words = set(re.findall(r"\w+", code)) | FOLDERS
    return [
        name for name in CODE.findall(page.read_text(encoding="utf-8")) if name.isidentifier() and name not in words
    ]


def test_there_are_pages_to_check():
    assert len(PAGES) >= 8 and TOUR in PAGES


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    assert (missing_links(ROOT / page), missing_paths(ROOT / page)) == ([], [])


def test_every_name_of_the_tour_stands_in_the_code():
    assert unknown_names(ROOT / TOUR) == []
    links = LINK.findall((ROOT / TOUR).read_text(encoding="utf-8"))
    assert len({link for link in links if link.endswith(".py")}) >= 30


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_layers_are_those_of_the_import_contract(page):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["lensmith"]]
    named = iter(CODE.findall((ROOT / page).read_text(encoding="utf-8")))
    assert all(layer in named for layer in layers), "each layer is named, in their order"


def test_what_is_not_there_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "[a](nothing.md), [b](page.md#part), `core/nothing.py`, `core/files.py`, `no_such_name`, `Endpoint`, `a/b`"
    )
    assert missing_links(page) == ["nothing.md"]
    assert missing_paths(page) == ["core/nothing.py"]
    assert unknown_names(page) == ["no_such_name"]
