"""Draws docs/picture.png: a screenshot that the model has never seen, the HTML it writes, and that HTML rendered."""

import base64
import re
from html import escape
from pathlib import Path

from lensmith.core.files import write_atomic
from lensmith.core.images import open_picture
from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.html.convert import Converter
from lensmith.workflows.html.evaluate import HELD_OUT_SEED

OUT = Path(__file__).parent.parent / "docs" / "picture.png"
PAGE = 11
STYLE = """
body{margin:0;padding:28px;background:#eef1f5;font:15px "Liberation Sans",Arial,sans-serif;color:#16202c}
main{display:grid;grid-template-columns:384px 1fr 384px;gap:24px;align-items:start}
h2{font-size:15px;margin:0 0 10px;color:#475569;font-weight:400}
img{display:block;border:1px solid #cbd5e1}
pre{margin:0;padding:16px;background:#0f1720;color:#d7e0ea;font:12.5px/1.5 "Liberation Mono",monospace;
white-space:pre-wrap;overflow-wrap:anywhere;overflow:hidden;box-sizing:border-box}
"""


def main() -> None:
    with Converter.load() as converter:
        target = converter.renderer.render(stand_alone(generate_page(HELD_OUT_SEED, PAGE).html), Capture.PICTURE)
        best = converter.convert(open_picture(target.png)).best
    assert best.page is not None
    body = re.sub(r"(</(?:header|section|main|footer|nav|div|article|h\d|p|li|tr|figure|form|ul)>)", r"\1\n", best.html)
    body = body[body.index("<body") :]
    figures = (
        ("A screenshot it has never seen", _image(target.png)),
        ("The HTML it writes", f'<pre style="height:{target.height_px + 2}px">{escape(body)}</pre>'),
        ("That HTML in a browser", _image(best.page.png)),
    )
    columns = "".join(f"<div><h2>{title}</h2>{figure}</div>" for title, figure in figures)
    document = f"<!doctype html><style>{STYLE}</style><main>{columns}</main>"
    with Renderer(RenderConfig(viewport_width_px=1320, viewport_height_px=200)) as renderer:
        write_atomic(OUT, renderer.render(document, Capture.PICTURE).png)
    print(OUT)


def _image(png: bytes) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'


if __name__ == "__main__":
    main()
