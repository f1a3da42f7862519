"""One self-contained HTML page that shows targets and answers side by side, for a person to judge."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from lensmith.core.files import write_atomic
from lensmith.core.page import page, table

GOOD, FAIR = 0.85, 0.6

_STYLE = """
.title{display:flex;flex-wrap:wrap;align-items:baseline;gap:6px 18px;margin:0 0 14px}.title>*{margin:0}
.remark{color:var(--dim);flex-basis:100%;max-width:none}
.score{font-variant-numeric:tabular-nums;font-size:14px;color:var(--dim)}
.good{color:var(--good)}.fair{color:var(--open)}.bad{color:var(--bad)}
.views{display:grid;grid-template-columns:repeat(3,1fr);gap:16px;align-items:start}
.views.four{grid-template-columns:repeat(2,1fr)}.views pre{margin:0;max-height:560px}
figure{margin:0;min-width:0}figcaption{font-size:13px;color:var(--dim);margin:0 0 6px}
figure img{width:100%;display:block;border:1px solid var(--line)}
figure p{margin:0;padding:40px 12px;text-align:center;border:1px dashed var(--line);color:var(--bad)}
pre{overflow:auto;max-height:420px;background:var(--code);padding:14px;border-radius:8px;font-size:12.5px;
white-space:pre-wrap}
td{font-size:14px}
@media(max-width:760px){.views,.views.four{grid-template-columns:1fr}
thead{display:none}tr{display:block;padding:10px 0;border-bottom:1px solid var(--line)}
td{display:block;border:0;padding:1px 0}td:before{content:attr(data-name) ": ";color:var(--dim);font-weight:600}
td:first-child{font-weight:600}td:first-child:before{content:none}}
"""


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """One row of a report. `scores` lie in [0, 1]; `answer_png` is None where the answer did not render.

    `excerpt`: lines of the answer that stand beside the pictures; `file`: a path beside the report where all of it is.
    """

    name: str
    target_png: bytes
    answer_png: bytes | None
    answer_html: str
    scores: Mapping[str, float]
    remark: str = ""
    excerpt: str = ""
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A further part of a report: a title, what it shows in a sentence or two, and then rows of a table, the head
    first, or pages.

    A link is a cell's text and a path beside the report.
    """

    title: str
    lead: str
    rows: Sequence[Sequence[str]] = ()
    pages: Sequence[ReportPage] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def write_report(
    out: Path, pages: Sequence[ReportPage], *, title: str, lead: str, chapters: Sequence[Chapter] = ()
) -> None:
    """Write the report. It needs no other file and no network; only links lead to files beside it."""
    header = f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>'
    body = "".join([header, *map(_section, pages), *map(_chapter, chapters)])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page(title=title, body=body, style=_STYLE))


def difference_picture(first_png: bytes, second_png: bytes) -> bytes:
    """Where two screenshots differ: the darker, the more; white where they agree or both have ended. PNG."""
    first, second = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int16) for png in (first_png, second_png)
    )
    height, width = max(first.shape[0], second.shape[0]), max(first.shape[1], second.shape[1])
    levels = np.zeros((height, width), np.int16)
    both = (min(first.shape[0], second.shape[0]), min(first.shape[1], second.shape[1]))
    levels[:] = 120  # where only one of them has a page
    levels[: both[0], : both[1]] = np.abs(first[: both[0], : both[1]] - second[: both[0], : both[1]]).max(2)
    return picture_png(Image.fromarray((255 - levels).astype(np.uint8)))


def _section(shown: ReportPage) -> str:
    scores = "".join(
        f'<span class="score">{escape(name)} <b class="{_grade(value)}">{value:.2f}</b></span>'
        for name, value in shown.scores.items()
    )
    remark = f'<p class="remark">{escape(shown.remark)}</p>' if shown.remark else ""
    if shown.answer_png is None:
        answer = difference = "<p>did not render</p>"
    else:
        answer = _image(shown.answer_png, f"rendering of the answer to {shown.name}")
        difference = _image(difference_picture(shown.target_png, shown.answer_png), "difference")
    views = [
        ("Screenshot given", _image(shown.target_png, f"screenshot of {shown.name}")),
        ("The HTML written, rendered", answer),
        ("Difference", difference),
    ]
    if shown.excerpt:
        views.append((f"The HTML, its first lines{_link(shown.file)}", f"<pre>{escape(shown.excerpt)}</pre>"))
    figures = "".join(f"<figure><figcaption>{caption}</figcaption>{view}</figure>" for caption, view in views)
    return (
        f'<section><div class="title"><h2>{escape(shown.name)}</h2>{scores}{remark}</div>'
        f'<div class="views{" four" if shown.excerpt else ""}">{figures}</div>'
        f"<details><summary>The HTML</summary><pre>{escape(shown.answer_html)}</pre></details></section>"
    )


def _chapter(chapter: Chapter) -> str:
    links = {text: f'<a href="{escape(path)}">{escape(text)}</a>' for text, path in chapter.links.items()}
    heads, *rows = chapter.rows or [[]]
    linked = [[links.get(text, escape(text)) for text in row] for row in rows]
    title = f'<h2>{escape(chapter.title)}</h2><p class="remark">{escape(chapter.lead)}</p>'
    cells = table(heads, linked) if rows else ""
    pages = "".join(map(_section, chapter.pages))
    return f'<section><div class="title">{title}</div>{cells}</section>{pages}'


def _link(file: str) -> str:
    return f' (<a href="{escape(file)}">{escape(file)}</a>)' if file else ""


def _grade(value: float) -> str:
    return "good" if value >= GOOD else "fair" if value >= FAIR else "bad"


def _image(png: bytes, alternative: str) -> str:
    small = min(
        picture_png(Image.open(io.BytesIO(png))), png, key=len
    )  # the renderer's PNGs are made quickly, not small
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{base64.b64encode(small).decode()}">'


def picture_png(image: Image.Image) -> bytes:
    """A small PNG."""
    encoded = io.BytesIO()
    image.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()
