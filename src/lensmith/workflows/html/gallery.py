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

GOOD, FAIR = 0.85, 0.6

STYLE = """
:root{--ink:#16202c;--dim:#5d6b7a;--line:#dde3ea;--paper:#fff;--ground:#f3f5f8;--good:#15803d;--fair:#a16207;--bad:#b91c1c}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,"Liberation Sans",Arial,sans-serif}
main{max-width:1240px;margin:0 auto;padding:40px 24px 80px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px}
.lead{color:var(--dim);max-width:75ch;margin:0 0 28px;white-space:pre-line}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:20px;margin:0 0 24px}
section>header{display:flex;flex-wrap:wrap;align-items:baseline;gap:6px 18px;margin:0 0 14px}
h2{font-size:18px;margin:0}
.remark{color:var(--dim);flex-basis:100%;margin:0}
.score{font-variant-numeric:tabular-nums;font-size:14px;color:var(--dim)}
.score b{font-weight:600}.good{color:var(--good)}.fair{color:var(--fair)}.bad{color:var(--bad)}
.views{display:grid;grid-template-columns:repeat(3,1fr);gap:16px;align-items:start}
figure{margin:0;min-width:0}figcaption{font-size:13px;color:var(--dim);margin:0 0 6px}
figure img{width:100%;display:block;border:1px solid var(--line)}
figure p{margin:0;padding:40px 12px;text-align:center;border:1px dashed var(--line);color:var(--bad)}
details{margin:14px 0 0}summary{cursor:pointer;color:var(--dim);font-size:14px}
pre{overflow:auto;max-height:420px;background:#0f1720;color:#d7e0ea;padding:14px;border-radius:8px;font-size:12.5px;
white-space:pre-wrap;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:8px 12px 8px 0;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--dim);font-weight:600}
td{overflow-wrap:anywhere}
@media(max-width:760px){.views{grid-template-columns:1fr}
main{padding:28px 12px 60px}section{padding:16px}
thead{display:none}tr{display:block;padding:10px 0;border-bottom:1px solid var(--line)}
td{display:block;border:0;padding:1px 0}td:before{content:attr(data-name) ": ";color:var(--dim);font-weight:600}
td:first-child{font-weight:600}td:first-child:before{content:none}}
"""


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """One row of a report. `scores` lie in [0, 1]; `answer_png` is None where the answer did not render."""

    name: str
    target_png: bytes
    answer_png: bytes | None
    answer_html: str
    scores: Mapping[str, float]
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A further part of a report: a title, what it shows in a sentence or two, and rows of a table, the head first.

    A link is a cell's text and a path beside the report.
    """

    title: str
    lead: str
    rows: Sequence[Sequence[str]]
    links: Mapping[str, str] = field(default_factory=dict)


def write_report(
    out: Path, pages: Sequence[ReportPage], *, title: str, lead: str, chapters: Sequence[Chapter] = ()
) -> None:
    """Write the report. It needs no other file and no network; only the links of chapters lead to files beside it."""
    sections = "".join([*map(_section, pages), *map(_chapter, chapters)])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(
        out,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{sections}</main></body></html>\n',
    )


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
    return _png(Image.fromarray((255 - levels).astype(np.uint8)))


def _section(page: ReportPage) -> str:
    scores = "".join(
        f'<span class="score">{escape(name)} <b class="{_grade(value)}">{value:.2f}</b></span>'
        for name, value in page.scores.items()
    )
    remark = f'<p class="remark">{escape(page.remark)}</p>' if page.remark else ""
    if page.answer_png is None:
        answer = difference = "<p>did not render</p>"
    else:
        answer = _image(page.answer_png, f"rendering of the answer to {page.name}")
        difference = _image(difference_picture(page.target_png, page.answer_png), "difference")
    views = (
        ("Screenshot given", _image(page.target_png, f"screenshot of {page.name}")),
        ("The HTML written, rendered", answer),
        ("Difference", difference),
    )
    figures = "".join(f"<figure><figcaption>{caption}</figcaption>{view}</figure>" for caption, view in views)
    return (
        f"<section><header><h2>{escape(page.name)}</h2>{scores}{remark}</header>"
        f'<div class="views">{figures}</div>'
        f"<details><summary>The HTML</summary><pre>{escape(page.answer_html)}</pre></details></section>"
    )


def _chapter(chapter: Chapter) -> str:
    head, *rows = [[escape(cell) for cell in row] for row in chapter.rows]
    # On a narrow screen the head is hidden, each row is a block and each cell has its column's name before it.
    links = {escape(text): escape(path) for text, path in chapter.links.items()}
    linked = [[f'<a href="{links[cell]}">{cell}</a>' if cell in links else cell for cell in row] for row in rows]
    cells = "".join(
        "<tr>" + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in zip(head, row, strict=True)) + "</tr>"
        for row in linked
    )
    names = "".join(f"<th>{cell}</th>" for cell in head)
    return (
        f'<section><header><h2>{escape(chapter.title)}</h2><p class="remark">{escape(chapter.lead)}</p></header>'
        f"<table><thead><tr>{names}</tr></thead><tbody>{cells}</tbody></table></section>"
    )


def _grade(value: float) -> str:
    return "good" if value >= GOOD else "fair" if value >= FAIR else "bad"


def _image(png: bytes, alternative: str) -> str:
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{base64.b64encode(_compact(png)).decode()}">'


def _compact(png: bytes) -> bytes:
    """The same picture in fewer bytes: the renderer's PNGs are made quickly, not small."""
    small = _png(Image.open(io.BytesIO(png)))
    return small if len(small) < len(png) else png


def _png(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()
