"""The shell of every report: one page with one style sheet, light and dark, for screens of any width and for paper.

A page needs no other file, no network and no script, and forbids itself all of them (a content security policy): even
text that slipped through the escaping could load nothing. A new report is its body in `page`:

    page(title="Scores", body=f"<header><h1>Scores</h1></header><section>{table(('page', 'score'), rows)}</section>")

A `header` and each `section` in `body` is a card; `.scroll` holds what is wider than a phone, `.dim` what is said in
passing, `.kicker` and `.lead` the lines above and below a title, `.plot` an SVG.
"""

from collections.abc import Iterable, Sequence
from html import escape

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root{color-scheme:light dark;--ink:#17202b;--dim:#5b6877;--line:#dfe5ec;--paper:#fff;--ground:#f4f6f9;--code:#eef2f6;
--accent:#2456c8;--noise:#9aa7b5;--good:#147a3f;--bad:#b42318;--open:#8a5a00;
--critical:#8f1239;--high:#b42318;--medium:#a35200;--low:#2456c8;--info:#5b6877}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--dim:#9aa7b6;--line:#2a3441;--paper:#161d26;--ground:#0e141b;
--code:#222c38;--accent:#7ea6ff;--noise:#66758a;--good:#4ac582;--bad:#ff8a7a;--open:#e6b255;
--critical:#ff7fa3;--high:#ff8a7a;--medium:#f0a85a;--low:#7ea6ff;--info:#9aa7b6}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);overflow-wrap:anywhere;
font:15px/1.55 system-ui,"Segoe UI","Liberation Sans",Arial,sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 20px 56px}
header,section{background:var(--paper);border:1px solid var(--line);border-radius:14px;margin:0 0 20px;
padding:24px 28px}
header{border-top:6px solid var(--tone,var(--accent));padding-top:20px}
.kicker{margin:0;color:var(--dim);font-size:13px;letter-spacing:.06em;text-transform:uppercase}
.lead{font-size:17px;white-space:pre-line}
h1{font-size:30px;line-height:1.2;margin:2px 0 8px;color:var(--tone,var(--ink))}
h2{font-size:19px;margin:0 0 12px}
h3{font-size:16px;line-height:1.35;margin:0 0 4px}
p{margin:0 0 10px;max-width:82ch}
a{color:var(--accent)}
.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%}
th{text-align:left;font-weight:600;font-size:13px;color:var(--dim)}
th,td{vertical-align:top;padding:12px 18px 12px 0;border-bottom:1px solid var(--line)}
tbody:last-child tr:last-child>*{border-bottom:0}
code{font:13px/1.5 ui-monospace,"Liberation Mono",Menlo,Consolas,monospace;background:var(--code);border-radius:5px;
padding:1px 5px;-webkit-box-decoration-break:clone;box-decoration-break:clone}
code.line{display:block;padding:6px 10px;margin-top:2px}
details{margin:8px 0 0}summary{cursor:pointer;color:var(--dim);font-size:14px}
figure{margin:8px 0 0}
ul{margin:0;padding-left:20px}li{margin:0 0 6px}
.plot{width:100%;height:auto;display:block;font:12px system-ui,"Liberation Sans",Arial,sans-serif}
.plot text{fill:var(--dim)}.plot .grid{stroke:var(--line)}
footer{color:var(--dim);font-size:13px;padding:0 6px}
.scroll{overflow-x:auto}
@media(max-width:760px){.scroll .plot{min-width:640px}
main{padding:16px 10px 40px}header,section{padding:18px}h1{font-size:24px}}
@media print{body{background:#fff}header,section{break-inside:avoid-page;border-color:#bbb}}
"""


def page(*, title: str, body: str, style: str = "") -> str:
    """A whole page. `title` is text and is escaped here; `body` is HTML, and `style` CSS for what only it has."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, name: str = "") -> str:
    """A table of the class `name`. `heads` are text and are escaped here; the cells of `rows` are HTML.

    Each cell carries its column's name (`data-name`), for a style that breaks rows into blocks on narrow screens.
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = (
        "".join(f'<td data-name="{escape(text)}">{cell}</td>' for text, cell in zip(heads, row, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table class="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
