"""What a page's code is like to go on with, beside the code of its target: its structure, its size, its likeness.

Likeness to a screenshot says nothing of that: a page may look right and be a heap of boxes at fixed places. So each
page that is scored has these terms too, and so have the targets, for real pages have their faults.

Structure is read where a browser has laid the page out (`Page.styles`), so that a position counts whoever sets it, a
style sheet or an attribute. Elements without a box (`display: none`) do not count, nor do `html`, `body` and the parts
of drawings.

Size is counted in bytes of UTF-8 of what stands in the document, after comments, scripts and the content of `data:`
URLs are left out and each run of white space is one character: markup is all but the content of `style` elements, so
`style` attributes are markup; styles are that content. What a page links is not counted. A target's style sheet may be
a whole framework of which it uses a tenth, and then any page is small beside it: `markup_ratio` is the honest figure,
`code_ratio` the one with styles.

TreeBLEU (WebCode2M, arXiv 2404.06369): the share of the target's subtrees of height 1, an element with its child
elements in their order, that the prediction has too; a subtree counts once however often it stands there. It is made
from this definition, not from its authors' code: trees are as the HTML standard reads the pages, and begin at `body`,
without scripts and styles. (Every page has an `html` with a `head` and a `body`, by which a blank page would score.)
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser

import html5lib

from lensmith.core.types import Page
from lensmith.evaluate.stats import MeanEstimate, MedianEstimate, Share, estimate_mean, estimate_median
from lensmith.evaluate.visual.reflow import REFLOW_WINDOWS, Reflow

SEMANTIC = frozenset(
    (
        "a abbr address article aside audio blockquote button canvas caption cite code data datalist dd details dfn "
        "dialog dl dt em fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr iframe img input "
        "kbd label legend li main mark menu meter nav ol optgroup option output p picture pre progress q s samp search "
        "section select strong sub summary sup svg table tbody td textarea tfoot th thead time tr ul var video"
    ).split()
)
"""Elements that say what they hold. `div` and `span` say nothing; `b`, `br`, `font` and the like say how it looks."""

_OUT_OF_FLOW = ("absolute", "fixed")
_UNSEEN = frozenset("script style link meta noscript template".split())
_WHITE_SPACE = re.compile(r"\s+")
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DATA = r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w=.+\"-]+)*,"
_IN_QUOTES = rf"""(?P<quote>["'])\s*{_DATA}(?:(?!(?P=quote)).)*(?P=quote)"""
_IN_BRACKETS = rf"(?<=\()\s*(?:&quot;|&#39;)?{_DATA}[^)]*"
_BARE = rf"(?<==){_DATA}[^\s>]*"
_DATA_URLS = re.compile(f"{_IN_QUOTES}|{_IN_BRACKETS}|{_BARE}", re.DOTALL)

Subtree = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class CodeSize:
    """Bytes of a document as the module says."""

    markup_bytes: int
    style_bytes: int


@dataclass(frozen=True, kw_only=True)
class Editability:
    """What a page's code is like, and how it compares with its target's. None where there is no page.

    elements: those that are laid out. absolute_share: of these, how many have the position absolute or fixed.
    semantic_elements, semantic_share: how many are in `SEMANTIC`. depth: how many elements lie in each other, at most,
    below `body`. markup_ratio and code_ratio: the page's bytes over its target's, of markup and of both together.
    tree_bleu: in [0, 1], more is better. reflow: a narrower window each.
    """

    elements: int | None
    absolute_share: float
    depth: int | None
    semantic_elements: int | None
    semantic_share: float
    markup_bytes: int | None
    style_bytes: int | None
    markup_ratio: float | None
    code_ratio: float | None
    tree_bleu: float
    reflow: tuple[Reflow, ...]

    @classmethod
    def of_failure(cls) -> "Editability":
        """Of a page that is missing or was not rendered: it has nothing and passes nothing."""
        return cls(
            elements=None,
            absolute_share=1.0,
            depth=None,
            semantic_elements=None,
            semantic_share=0.0,
            markup_bytes=None,
            style_bytes=None,
            markup_ratio=None,
            code_ratio=None,
            tree_bleu=0.0,
            reflow=tuple(Reflow.of_failure(width_px) for width_px, _ in REFLOW_WINDOWS),
        )


def editability(target_html: str, html: str, page: Page, reflow: tuple[Reflow, ...]) -> Editability:
    """The terms of a document beside its target's. `page`: its rendering, with `styles`."""
    elements = [style for style in page.styles if style.depth > 1]
    wanted, size = code_size(target_html), code_size(html)
    semantic = sum(element.tag in SEMANTIC for element in elements)
    absolute = sum(element.position in _OUT_OF_FLOW for element in elements)
    both, wanted_both = size.markup_bytes + size.style_bytes, wanted.markup_bytes + wanted.style_bytes
    return Editability(
        elements=len(elements),
        absolute_share=absolute / len(elements) if elements else 0.0,
        depth=max((element.depth - 1 for element in elements), default=0),
        semantic_elements=semantic,
        semantic_share=semantic / len(elements) if elements else 0.0,
        markup_bytes=size.markup_bytes,
        style_bytes=size.style_bytes,
        markup_ratio=size.markup_bytes / wanted.markup_bytes if wanted.markup_bytes else None,
        code_ratio=both / wanted_both if wanted_both else None,
        tree_bleu=tree_bleu(target_html, html),
        reflow=reflow,
    )


@dataclass(frozen=True, kw_only=True)
class EditabilitySummary:
    """The terms of `n` pages. Pages that failed pass nothing, and are in no median.

    shares: of pages without any element out of flow (`no_absolute`), and of those that pass the test of each window
    (`reflow_1024`, ...). medians: of counts, bytes and ratios. means: of what lies in [0, 1].
    """

    n: int
    shares: dict[str, Share]
    medians: dict[str, MedianEstimate]
    means: dict[str, MeanEstimate]


def summarise_editability(pages: Sequence[Editability]) -> EditabilitySummary:
    """The summary of at least one page. Raises InputError where there is none."""
    free = sum(page.elements is not None and page.absolute_share == 0 for page in pages)
    shares = {"no_absolute": Share.of(free, len(pages))}
    for place, (width_px, _) in enumerate(REFLOW_WINDOWS):
        shares[f"reflow_{width_px}"] = Share.of(sum(page.reflow[place].passed for page in pages), len(pages))
    counted = ("markup_ratio", "code_ratio", "markup_bytes", "style_bytes", "elements", "semantic_elements", "depth")
    columns = {name: [getattr(page, name) for page in pages] for name in counted}
    known = {name: [value for value in column if value is not None] for name, column in columns.items()}
    return EditabilitySummary(
        n=len(pages),
        shares=shares,
        medians={name: estimate_median(values) for name, values in known.items() if values},
        means={
            name: estimate_mean([getattr(page, name) for page in pages])
            for name in ("tree_bleu", "semantic_share", "absolute_share")
        },
    )


def code_size(html: str) -> CodeSize:
    """The bytes of a document, markup and styles apart."""
    reader = _CodeReader()
    reader.feed(html)
    reader.close()
    styles = _CSS_COMMENT.sub("", "".join(reader.styles))
    return CodeSize(markup_bytes=_bytes("".join(reader.markup)), style_bytes=_bytes(styles))


def _bytes(code: str) -> int:
    shown = _WHITE_SPACE.sub(" ", _DATA_URLS.sub("", code)).strip()
    return len(shown.encode("utf-8", "replace"))


class _CodeReader(HTMLParser):
    """Parts a document as it stands into markup and the content of style elements; drops scripts and comments."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.markup: list[str] = []
        self.styles: list[str] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag if tag in ("script", "style") else ""
        if tag != "script":
            self.markup.append(self.get_starttag_text() or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "script":
            self.markup.append(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""
        if tag != "script":
            self.markup.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._within == "style":
            self.styles.append(data)
        elif self._within != "script":
            self.markup.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")

    def handle_decl(self, decl: str) -> None:
        self.markup.append(f"<!{decl}>")


def tree_bleu(target_html: str, html: str) -> float:
    """TreeBLEU in [0, 1]; 1 where the target has no subtree that could be found."""
    wanted = subtrees(target_html)
    return len(wanted & subtrees(html)) / len(wanted) if wanted else 1.0


@functools.lru_cache(maxsize=256)  # a target is compared with the answers of several
def subtrees(html: str) -> frozenset[Subtree]:
    """The subtrees of height 1 from `body` on: the name of each element that has child elements, and theirs."""
    body = html5lib.parse(html, namespaceHTMLElements=False).find("body")
    found = set()
    for element in () if body is None else body.iter():
        if not isinstance(element.tag, str):  # a comment
            continue
        children = tuple(name for child in element if (name := _local_name(child.tag)) and name not in _UNSEEN)
        if children:
            found.add((_local_name(element.tag), children))
    return frozenset(found)


def _local_name(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
