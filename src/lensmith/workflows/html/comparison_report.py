"""Targets and answers side by side as one HTML file, the worst first, with marks where likeness was lost.

On the target, what its answer lacks; on the answer, what the target does not have. Pictures are scaled down, so that a
report of many pages can be opened; `lensmith render` shows a page at its full size.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw

from lensmith.core.files import write_atomic
from lensmith.core.page import page, table
from lensmith.evaluate.visual.losses import Loss, Losses, find_losses
from lensmith.workflows.html.answers import Answered, ScoredPage
from lensmith.workflows.html.comparison import TERMS, AnswerScores, PageScores, SideBySide, worst_first
from lensmith.workflows.html.gallery import FAIR, GOOD, difference_picture

_WIDEST_PX = 720
_QUALITY = 80
_LACKING, _ELSEWHERE, _SURFACE = (214, 40, 40), (222, 140, 0), (38, 84, 214)
_CODE_CHARS = 20_000

_STYLE = """
.scores{font-variant-numeric:tabular-nums}.scores td,.scores th{padding:6px 14px 6px 0;font-size:14px}
.scores td,.scores th{overflow-wrap:normal}
.good{color:var(--good)}.fair{color:var(--open)}.bad{color:var(--bad)}
.answer{border-top:1px solid var(--line);padding-top:16px;margin-top:16px}
.views{display:grid;grid-template-columns:repeat(3,1fr);gap:16px;align-items:start}
figure{margin:0;min-width:0}figcaption{font-size:13px;color:var(--dim);margin:0 0 6px}
figure img{width:100%;display:block;border:1px solid var(--line)}
figure p{margin:0;padding:40px 12px;text-align:center;border:1px dashed var(--line);color:var(--bad)}
pre{overflow:auto;max-height:420px;background:var(--code);padding:14px;border-radius:8px;font-size:12.5px;
white-space:pre-wrap}
.key b{padding:0 6px;border:2px solid}.key .lacking{border-color:#d62828}.key .elsewhere{border-color:#de8c00}
.key .surface{border-color:#2654d6}
@media(max-width:760px){.views{grid-template-columns:1fr}}
"""
_KEY = (
    '<p class="key"><b class="lacking">text</b> missing, or not on the page &nbsp; <b class="elsewhere">text</b> '
    'elsewhere in the answer &nbsp; <b class="surface">surface</b> missing, or not on the page</p>'
)


def write_comparison(
    out: Path, comparison: SideBySide, columns: Mapping[str, Answered], names: Sequence[str], *, title: str, lead: str
) -> None:
    """Write the report of the named columns; the first decides which page is the worst. It needs no other file."""
    places = {each.name: place for place, each in enumerate(comparison.per_page)}
    heads = ["", *(column.title for column in comparison.columns.values())]
    means = [column.geometry.metrics for column in comparison.columns.values()]
    rows = [[escape(name), *(f"{each[name].mean:.3f}" if name in each else "-" for each in means)] for name in means[0]]
    header = (
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{_KEY}'
        f'<div class="scroll">{table(heads, rows, name="scores")}</div></header>'
    )
    sections = []
    for each in worst_first(comparison.per_page, names[0]):
        answers = [columns[name].pages[places[each.name]] for name in names]
        titles = [comparison.columns[name].title for name in names]
        sections.append(_section(each, [each.answers[name] for name in names], answers, titles))
    write_atomic(out, page(title=title, body="".join([header, *sections]), style=_STYLE))


def _section(
    scores: PageScores, answers: Sequence[AnswerScores], pages: Sequence[ScoredPage], titles: Sequence[str]
) -> str:
    shown = [name for name, term in TERMS.items() if any(term(answer) is not None for answer in answers)]
    rows = [
        [escape(title), *(_graded(TERMS[name](answer), name) for name in shown), escape(_narrow(answer))]
        for title, answer in zip(titles, answers, strict=True)
    ]
    own = ", ".join(map(str, scores.target.reflow))
    parts = [
        f'<section><h2>{escape(scores.name)}</h2><div class="scroll">',
        table(["", *shown, "narrower windows"], rows, name="scores"),
        f'</div><p class="dim">The page itself: {escape(own)}</p>',
        *_answers(pages, titles),
        "</section>",
    ]
    return "".join(parts)


def _narrow(answer: AnswerScores) -> str:
    faults = [
        f'{one.width_px} px: "{first}" lies on "{second}"'
        for one in answer.editability.reflow
        for first, second in one.examples[:1]
    ]
    return "; ".join([*map(str, answer.editability.reflow), *faults])


def _graded(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    grade = "" if name == "code" else "good" if value >= GOOD else "fair" if value >= FAIR else "bad"
    return f'<b class="{grade}">{value:.2f}</b>'


def _answers(pages: Sequence[ScoredPage], titles: Sequence[str]) -> Iterator[str]:
    """Each answer; where two gave the same page, the second says so."""
    shown: dict[str, str] = {}
    for scored, title in zip(pages, titles, strict=True):
        html = scored.prediction.html
        if scored.prediction.page is not None and html in shown:
            words = f"the same page as {shown[html]}"
            yield f'<div class="answer"><h3>{escape(title)}</h3><p class="dim">{escape(words)}</p></div>'
        else:
            shown[html] = title
            yield _answer(scored, title)


def _answer(scored: ScoredPage, title: str) -> str:
    target, answer = scored.target.page, scored.prediction.page
    if answer is None:
        wanted, made = _picture(target.png, "screenshot"), f"<p>{escape(scored.prediction.error or 'no page')}</p>"
        difference, words = made, ""
    else:
        losses = find_losses(target, answer)
        wanted = _picture(_marked_target(target.png, losses), f"screenshot of {scored.target.name}, losses marked")
        made = _picture(_marked_answer(answer.png, losses), f"{title}: its rendering, inventions marked")
        difference = _picture(difference_picture(target.png, answer.png), "difference")
        words = str(losses)
    made_by = f" ({scored.prediction.engine})" if scored.prediction.engine != title else ""
    views = (("Target, what is lost", wanted), (f"{title}{made_by}", made), ("Difference", difference))
    figures = "".join(f"<figure><figcaption>{escape(caption)}</figcaption>{view}</figure>" for caption, view in views)
    html = scored.prediction.html
    code = html if len(html) <= _CODE_CHARS else f"{html[:_CODE_CHARS]}\n... {len(html) - _CODE_CHARS:,} more"
    return (
        f'<div class="answer"><h3>{escape(title)}{escape(made_by)}</h3><p class="dim">{escape(words)}</p>'
        f'<div class="views">{figures}</div>'
        f"<details><summary>The HTML</summary><pre>{escape(code)}</pre></details></div>"
    )


def _marked_target(png: bytes, losses: Losses) -> Image.Image:
    picture = _opened(png)
    _mark(picture, losses.missing_surfaces, _SURFACE)
    _mark(picture, losses.moved, _ELSEWHERE)
    _mark(picture, losses.missing, _LACKING)
    return picture


def _marked_answer(png: bytes, losses: Losses) -> Image.Image:
    picture = _opened(png)
    _mark(picture, losses.invented_surfaces, _SURFACE)
    _mark(picture, losses.invented, _LACKING)
    return picture


def _mark(picture: Image.Image, losses: Sequence[Loss], colour: tuple[int, int, int]) -> None:
    """Frames around what was lost, thick enough to be seen when the picture is scaled down."""
    draw = ImageDraw.Draw(picture)
    thick = max(2, round(2 * picture.width / _WIDEST_PX))
    for loss in losses:
        box = loss.box
        corners = (box.left_px - thick, box.top_px - thick, box.right_px + thick, box.bottom_px + thick)
        draw.rectangle(corners, outline=colour, width=thick)


def _opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def _picture(picture: Image.Image | bytes, alternative: str) -> str:
    image = _opened(picture) if isinstance(picture, bytes) else picture
    if image.width > _WIDEST_PX:
        height = max(1, round(image.height * _WIDEST_PX / image.width))
        image = image.resize((_WIDEST_PX, height), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY, optimize=True)
    data = base64.b64encode(encoded.getvalue()).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/jpeg;base64,{data}">'
