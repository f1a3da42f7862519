"""Draws for docs/studies/captions.md what a run of `mm1_captions` learnt: its curve, and what it wrote of pictures.

`python scripts/captions_study.py runs/mm1_captions`, after `lensmith train mm1_captions`. It prints the last numbers.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lensmith.core.files import open_output, write_atomic
from lensmith.core.images import open_picture
from lensmith.data.documents import PictureRef
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import PretrainingRecipe
from lensmith.train.log import read
from lensmith.workflows.training.held_out import SAMPLES_FILE, captioned

OUT = Path(__file__).parent.parent / "docs" / "studies"
PREFIX = "validate/held_out_"
WIDE, HIGH, LEFT, BOTTOM, TOP = 760, 300, 46, 34, 16
LINES = {
    "named": ("#0b6e4f", "its picture"),
    "named_other_picture": ("#b45309", "another picture"),
    "named_blank_picture": ("#6b7280", "a white picture"),
    "named_without_picture": ("#1d4ed8", "no picture"),
}
COLUMNS, SIDE_PX, TEXT_PX = 6, 112, 46


def curve_svg(records: Sequence[Mapping[str, float]]) -> str:
    """How often the right name of ten was the likeliest, by step and by what the model was shown; chance dashed."""
    last = records[-1]["step"]

    def place(step: float, share: float) -> str:
        x = LEFT + (WIDE - LEFT - 130) * step / last
        return f"{x:.1f},{HIGH - BOTTOM - (HIGH - BOTTOM - TOP) * share:.1f}"

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        (x, y), (end, _) = (point.split(",") for point in (place(0, share), place(last, share)))
        parts.append(f'<path d="M{x} {y}H{end}" stroke="#e5e7eb"/><text x="6" y="{y}" dy="4">{share:.0%}</text>')
    parts.append(f'<path d="M{place(0, 0.1)}L{place(last, 0.1)}" stroke="#9ca3af" stroke-dasharray="4 4"/>')
    for name, (colour, words) in LINES.items():
        points = [(record["step"], record[PREFIX + name]) for record in records]
        path = "L".join(place(*point) for point in points)
        x, y = place(*points[-1]).split(",")
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x}" y="{y}" dx="6" dy="4" fill="{colour}">{escape(words)}</text>')
    x = (WIDE - 130) // 2
    parts.append(f'<text x="{x}" y="{HIGH - 8}">{last:,.0f} steps</text>')
    style = "font:13px sans-serif;background:#fff"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" style="{style}">{"".join(parts)}</svg>\n'
    )


def sheet(recipe: PretrainingRecipe, samples: Sequence[Mapping[str, str]]) -> Image.Image:
    """Pictures with what the model wrote (green where it is the name) and, in grey, their name."""
    assert recipe.held_out is not None
    source = recipe.held_out.source.open()
    places: dict[str, PictureRef] = {one.key: one.picture for one in captioned(source, len(source))}
    rows = -(-len(samples) // COLUMNS)
    paper = Image.new("RGB", (COLUMNS * (SIDE_PX + 24), rows * (SIDE_PX + TEXT_PX)), "white")
    brush, font = ImageDraw.Draw(paper), ImageFont.load_default(11)
    for number, sample in enumerate(samples):
        row, column = divmod(number, COLUMNS)
        x, y = column * (SIDE_PX + 24), row * (SIDE_PX + TEXT_PX)
        picture = open_picture(source.picture(places[sample["key"]])).resize(
            (SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS
        )
        paper.paste(picture, (x + 12, y))
        is_right = sample["written"] == sample["caption"]
        brush.text((x + 4, y + SIDE_PX + 2), sample["written"][:26], "#0b6e4f" if is_right else "#b91c1c", font)
        brush.text((x + 4, y + SIDE_PX + 18), sample["caption"][:26], "#6b7280", font)
    return paper


def main(folder: Path) -> int:
    """Writes both pictures. 1 where the run has measured nothing yet."""
    recipe = recipe_named("mm1_captions")
    assert isinstance(recipe, PretrainingRecipe)
    stage = folder / recipe.stages[-1].name
    records = [record for record in read(stage) if f"{PREFIX}named" in record]
    if not records:
        print(f"{folder} has measured nothing yet", file=sys.stderr)
        return 1
    write_atomic(OUT / "captions.svg", curve_svg(records))
    lines = [json.loads(line) for line in (stage / SAMPLES_FILE).read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if line["step"] == lines[-1]["step"]]
    with open_output(OUT / "captions.png") as file:
        sheet(recipe, last[:: max(1, len(last) // 30)][:30]).save(file, "PNG", optimize=True)
    print("\n".join(f"{name:<40} {value:.4f}" for name, value in records[-1].items() if name.startswith(PREFIX)))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
