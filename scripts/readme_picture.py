"""Draws docs/picture.png: a page by others as a screenshot, what is made of that, in a browser, and its HTML.

The page is the demonstration's, fetched by npm.
"""

import base64
import sys
from html import escape
from pathlib import Path

from lensmith.core.files import write_atomic
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.demo.rebuilt import first_lines, page_by_others, rebuild_given
from lensmith.workflows.html.gallery import picture_png

OUT = Path(__file__).parent.parent / "docs" / "picture.png"
LINES = 60
STYLE = """
body{margin:0;padding:24px;background:#eef1f5;font:17px "Liberation Sans",Arial,sans-serif;color:#16202c}
main{display:grid;grid-template-columns:1fr 1fr 1fr;gap:20px;align-items:start}
h2{font-size:17px;margin:0 0 8px;color:#334155;font-weight:400}
img{display:block;width:100%;box-sizing:border-box;border:1px solid #cbd5e1}
figure{margin:0;position:relative}
pre{position:absolute;inset:0;margin:0;padding:14px;background:#0f1720;color:#d7e0ea;
font:13px/1.45 "Liberation Mono",monospace;white-space:pre;overflow:hidden}
pre::after{content:"";position:absolute;inset:0 0 0 auto;width:80px;
background:linear-gradient(to right,transparent,#0f1720)}
"""


def main() -> None:
    given = page_by_others(instead="")
    if given.missing:
        sys.exit(given.missing)
    conversion = rebuild_given(given)
    best = conversion.best
    if best.page is None:
        sys.exit(best.error)
    screenshot = _image(picture_png(conversion.picture))
    code = f"<pre>{escape(first_lines(best.html, LINES))}</pre>"
    figures = (
        ("A screenshot", screenshot),
        ("The page made of it, in a browser", _image(best.page.png)),
        ("Its HTML", f"<div style='visibility:hidden'>{screenshot}</div>{code}"),
    )
    columns = "".join(f"<div><h2>{title}</h2><figure>{figure}</figure></div>" for title, figure in figures)
    document = f"<!doctype html><style>{STYLE}</style><main>{columns}</main>"
    with Renderer(RenderConfig(viewport_width_px=1760, viewport_height_px=200)) as renderer:
        write_atomic(OUT, renderer.render(document, Capture.PICTURE).png)
    print(OUT)


def _image(png: bytes) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'


if __name__ == "__main__":
    main()
