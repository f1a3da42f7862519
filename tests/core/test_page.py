"""The shell of the reports: it keeps out what is foreign, and a page in it is well formed."""

from html.parser import HTMLParser

import pytest

from lensmith.core.page import page, table
from lensmith.data.webpages.markup.repair import is_well_formed

HOSTILE = "</title></style><script>alert(1)</script>\"'&"


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_is_well_formed_and_a_hostile_title_stays_text() -> None:
    html = page(title=HOSTILE, body="<section><p>words</p></section>", style="p{color:red}")
    read = Reader(html)
    assert is_well_formed(html)
    assert HOSTILE in read.text and "p{color:red}" in read.text
    assert [tag for tag, _ in read.tags] == "html head meta meta meta meta title style body main section p".split()


def test_a_page_forbids_itself_all_that_is_not_in_it() -> None:
    metas = [attributes for tag, attributes in Reader(page(title="t", body="")).tags if tag == "meta"]
    (policy,) = [each["content"] for each in metas if each.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:" and rules["style-src"] == "'unsafe-inline'"
    assert {"name": "referrer", "content": "no-referrer"} in metas


def test_a_table_names_the_column_of_each_cell_and_escapes_the_heads() -> None:
    read = Reader(table([HOSTILE, "score"], [["<b>one</b>", "1"], ["two", "2"]], name="plain"))
    cells = [attributes["data-name"] for tag, attributes in read.tags if tag == "td"]
    assert cells == [HOSTILE, "score"] * 2
    assert [tag for tag, _ in read.tags].count("b") == 1 and "script" not in [tag for tag, _ in read.tags]
    assert read.text == HOSTILE + "scoreone1two2"


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], [["1"]])
