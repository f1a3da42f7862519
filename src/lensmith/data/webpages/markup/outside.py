"""What in a page reaches outside it: addresses that load or lead elsewhere, and CSS that does.

CSS is cut into its tokens as CSS Syntax (W3C, level 3, section 4) has them, as far as needed to know where a
declaration ends: strings, comments, escapes and brackets. In doubt more is dropped, never less.
"""

import re
from urllib.parse import urlsplit

_IGNORED_IN_URLS = re.compile(r"[\x00-\x20\x7f]+")  # browsers drop tabs and line ends inside, and blanks around
_LOCAL_SCHEMES = frozenset({"mailto", "tel"})

_CSS_TOKEN = re.compile(
    r"""/\*.*?(?:\*/|\Z)             # comment
      | "(?:\\.|[^"\\\n])*(?:"|\Z|(?=\n))  # string; a line end breaks it off
      | '(?:\\.|[^'\\\n])*(?:'|\Z|(?=\n))
      | \\.                          # escaped character
      | [^"'\\/()\[\]{};]+
      | .""",
    re.DOTALL | re.VERBOSE,
)
_CSS_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_CSS_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})[ \t\n\f]?|(.))", re.DOTALL)
_CSS_ADDRESS = re.compile(r"(?:url|src)\(\s*[\"']?\s*(.{0,40})", re.DOTALL)
_CSS_REACHES_OUT = re.compile(r"@import|@namespace|image-set\(|image\(|expression\(|-moz-binding|behavior\s*:|</")
_CSS_INSIDE = ("#", "data:image/", "data:font/")


def is_inline_picture(address: str) -> bool:
    """Whether an address carries its picture within itself."""
    return _plain(address).lower().startswith("data:image/")


def is_place_on_page(address: str) -> bool:
    """Whether an address names a place on the same page."""
    return _plain(address).startswith("#")


def is_local_link(address: str) -> bool:
    """Whether a link stays with the page: a place on it, a path beside it, a mail address or a telephone number."""
    plain = _plain(address).replace("\\", "/")  # browsers read \ as /
    try:
        parts = urlsplit(plain)
    except ValueError:
        return False
    if parts.scheme:
        return parts.scheme.lower() in _LOCAL_SCHEMES
    return not parts.netloc and not plain.startswith("//")


def css_without_outside(css: str) -> str:
    """CSS (a stylesheet, or the declarations of a `style` attribute) without the declarations and rules that load
    anything. CSS that loads nothing comes back unchanged."""
    kept, open_in_dropped = [], 0
    for piece in _css_pieces(css):
        if open_in_dropped:  # inside a rule whose head was dropped, up to the brace that closes it
            open_in_dropped += int(piece.endswith("{")) - int(piece == "}")
        elif not css_reaches_out(piece):
            kept.append(piece)
        elif piece.endswith("{"):
            open_in_dropped = 1
    return "".join(kept)


def css_reaches_out(css: str) -> bool:
    """Whether CSS names an address other than an inline picture or a place on the page, or may run code."""
    plain = _CSS_ESCAPE.sub(_unescaped, _CSS_COMMENT.sub("", css)).lower()
    addresses = (_plain(match) for match in _CSS_ADDRESS.findall(plain))
    return bool(_CSS_REACHES_OUT.search(plain)) or any(not address.startswith(_CSS_INSIDE) for address in addresses)


def _css_pieces(css: str) -> list[str]:
    """CSS cut after each `;` and `{`, and on both sides of each `}`, that stands in no brackets."""
    pieces: list[str] = []
    piece: list[str] = []
    depth = 0
    for match in _CSS_TOKEN.finditer(css):
        part = match.group()
        if part == "}" and depth == 0:  # it ends a last declaration that has no `;`, and the rule besides
            pieces += ["".join(piece), part]
            piece = []
            continue
        piece.append(part)
        if part in ("(", "["):
            depth += 1
        elif part in (")", "]"):
            depth = max(0, depth - 1)
        elif part in (";", "{") and depth == 0:
            pieces.append("".join(piece))
            piece = []
    return [*pieces, "".join(piece)]


def _plain(address: str) -> str:
    return _IGNORED_IN_URLS.sub("", address)


def _unescaped(match: re.Match[str]) -> str:
    code, character = match.groups()
    if code is None:
        return str(character)
    number = int(code, 16)
    return chr(number) if 0 < number < 0x110000 else "�"
