"""A plan as a page for a person to check: what came of the mixture, and one sequence of each source, drawn.

A sequence is a bar as long as its room: a block a document, its pictures darker. Below it stands what the blocks hold,
as the model will read it; what of a conversation is not learnt is pale.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from lensmith.core.images import open_picture
from lensmith.core.page import page, table
from lensmith.data.documents import Document, Source
from lensmith.data.plan.reading import Plan, PlannedDocument, PlannedSequence
from lensmith.data.plan.tokens import Tokens, encode

_HUES = (212, 32, 150, 278, 96, 350, 186, 58)
_THUMBNAIL_PX = 96
_MOST_CHARACTERS = 600

_STYLE = """
.bar{display:flex;height:30px;background:var(--code);border-radius:6px;overflow:hidden;margin:6px 0 14px}
.bar div{display:flex;min-width:0;border-right:1px solid var(--paper);background:hsl(var(--hue) 60% 62%)}
.bar i{background:hsl(var(--hue) 60% 38%);height:100%}
.documents{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:12px}
.document{border-left:4px solid hsl(var(--hue) 60% 50%);padding:2px 0 2px 10px;font-size:14px}
.document img{max-width:96px;max-height:96px;vertical-align:middle;border:1px solid var(--line);background:#fff}
.document p{white-space:pre-line;margin:2px 0}
.document .given{opacity:.55}
td,th{font-variant-numeric:tabular-nums}
"""


def plan_page(
    plan: Plan, sources: Mapping[str, Source], tokens: Tokens, decode: Callable[[Sequence[int]], str], *, title: str
) -> str:
    """The page. It reads as far into the plan as it needs to meet each source, and the documents of what it draws."""
    report, packings = plan.report, [stage.packing for stage in plan.config.stages]
    most_tokens, most_pictures = (
        max(getattr(one, name) for one in packings) for name in ("max_tokens", "max_pictures")
    )
    head = (
        f'<header><p class="kicker">Plan</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{report.sequences:,} sequences of up to {most_tokens:,} tokens and '
        f"{most_pictures} pictures: {report.efficiency:.1%} of their room is filled.</p>"
        f'<p class="dim">{report.tokens:,} tokens, {report.pictures:,} pictures; {report.unused} spans read and not '
        f"used; hash <code>{report.hash[:16]}</code></p></header>"
    )
    shares = f"<section><h2>Sources</h2>{_shares(plan)}</section>"
    drawer = _Drawer(sources=sources, tokens=tokens, decode=decode)
    drawn = "".join(
        drawer.sequence(number, sequence, room=plan.stage_of(number).packing.max_tokens)
        for number, sequence in _one_of_each(plan)
    )
    return page(title=f"Plan: {title}", body=head + shares + _language(plan) + drawn, style=_STYLE)


def _shares(plan: Plan) -> str:
    report = plan.report
    rows = []
    for name, share in report.sources.items():
        bad = "; ".join(f"{count} {escape(cause)}" for cause, count in share.bad.items())
        rows.append(
            (
                escape(name),
                f"{share.wanted:.1%}",
                f"{share.sequences / report.sequences:.1%}",
                f"{share.tokens / report.tokens:.1%}",
                f"{share.pictures / report.pictures:.1%}" if report.pictures else "",
                f"{share.documents:,} of {share.records:,}",
                f"{share.passes:.2f}",
                f"{share.cut:,}",
                bad or "none",
            )
        )
    heads = ("source", "wanted", "sequences", "tokens", "pictures", "documents", "passes", "cut", "bad records")
    return f'<div class="scroll">{table(heads, rows)}</div>'


def _language(plan: Plan) -> str:
    """How often sequences were of language alone, over time, for each stage that has a schedule of it."""
    sections = []
    for number, stage in enumerate(plan.report.stages, start=1):
        rows = [
            (f"{part.first_step:,}-{part.first_step + part.steps - 1:,}", f"{part.wanted:.1%}", f"{part.real:.1%}")
            for part in stage.language
        ]
        if rows:
            drawn = table(("steps", "wanted", "sequences"), rows)
            sections.append(f"<section><h2>Language alone, stage {number}</h2>{drawn}</section>")
    return "".join(sections)


def _one_of_each(plan: Plan) -> Iterator[tuple[int, PlannedSequence]]:
    left = set(plan.report.sources)
    for number in range(len(plan)):
        if not left:
            return
        sequence = plan.sequence(number)
        if sequence.source in left:
            left.remove(sequence.source)
            yield number, sequence


@dataclass(frozen=True, kw_only=True)
class _Drawer:
    """Draws sequences."""

    sources: Mapping[str, Source]
    tokens: Tokens
    decode: Callable[[Sequence[int]], str]

    def sequence(self, number: int, sequence: PlannedSequence, *, room: int) -> str:
        """One with room for `room` tokens."""
        source = self.sources[sequence.source]
        blocks, documents = [], []
        for place, planned in enumerate(sequence.documents):
            hue, count = f"--hue:{_HUES[place % len(_HUES)]}", planned.span.tokens
            pictures = planned.span.pictures * self.tokens.per_picture
            inside = f'<i style="width:{pictures / count:.1%}"></i>' if pictures else ""
            blocks.append(f'<div style="{hue};width:{count / room:.3%}" title="{count} tokens">{inside}</div>')
            documents.append(f'<div class="document" style="{hue}">{self._document(planned, source)}</div>')
        many = "document" if len(documents) == 1 else "documents"
        return (
            f"<section><h2>{escape(sequence.source)}: sequence {number:,}</h2>"
            f'<p class="dim">{len(documents)} {many}, {sequence.tokens:,} of {room:,} tokens</p>'
            f'<div class="bar">{"".join(blocks)}</div><div class="documents">{"".join(documents)}</div></section>'
        )

    def _document(self, planned: PlannedDocument, source: Source) -> str:
        document, span = source.document(planned.record), planned.span
        encoded = encode(document, self.tokens)
        starts = zip(document.pictures, encoded.picture_starts, strict=True)
        pictures = iter([ref for ref, start in starts if span.start <= start < span.stop])
        parts = []
        ids_T = encoded.ids_T[span.start : span.stop].tolist()
        learnt_T = encoded.learnt_T[span.start : span.stop].tolist()
        if isinstance(document, Document):  # its begin token needs no telling apart
            learnt_T = [True] * len(ids_T)
        for (is_picture, is_learnt), group in groupby(
            zip(ids_T, learnt_T, strict=True), key=lambda one: (one[0] == self.tokens.image, one[1])
        ):
            ids = [one for one, _ in group]
            if is_picture:
                count = len(ids) // self.tokens.per_picture
                parts += [_thumbnail(source.picture(next(pictures))) for _ in range(count)]
            else:
                given = "" if is_learnt else ' class="given"'
                parts.append(f"<p{given}>{escape(_shortened(self.decode(ids)))}</p>")
        whole = "" if span.tokens == len(encoded.ids_T) else f", {span.start}-{span.stop} of {len(encoded.ids_T)}"
        return f'<span class="dim">{escape(document.key)}: {span.tokens} tokens{whole}</span>{"".join(parts)}'


def _shortened(text: str) -> str:
    half = _MOST_CHARACTERS // 2
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:half]} [...] {text[-half:]}"


def _thumbnail(content: bytes) -> str:
    picture = open_picture(content)
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
