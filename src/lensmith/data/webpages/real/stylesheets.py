"""A package's stylesheets, made to stand alone: imports put in, fonts inside, pictures replaced, the outside gone.

Imports are followed within the package (CSS Cascade, W3C, level 5, section 2), each in its `@media`, `@supports` or
`@layer`. A font of the package is kept as data where it is small; of several formats the smallest. Pictures that a
stylesheet carries within itself stay where they are small: arrows and ticks of controls. What is left of the outside is
dropped (`css_without_outside`).
"""

import base64
import re
from collections.abc import Mapping

from lensmith.data.webpages.markup.outside import css_without_outside
from lensmith.data.webpages.real.archives import FONT_KINDS, PackageFiles
from lensmith.data.webpages.real.pictures import UNKNOWN_SIZE, PictureSize, size_in_address, size_of_data_address
from lensmith.data.webpages.real.unfit import Cause, UnfitPageError

MOST_CSS_CHARS = 4_000_000
MOST_IMPORTS = 100
MOST_MARK_CHARS = 2_000
"""The longest picture inside a stylesheet that counts as the mark of a control."""

_STRING = r"""(?:"(?:\\.|[^"\\\n])*(?:"|\Z|(?=\n))|'(?:\\.|[^'\\\n])*(?:'|\Z|(?=\n)))"""
# Possessive, so that what does not end costs no more than reading it.
_ADDRESS = rf"""url\(\s*+(?P<{{0}}>{_STRING}|(?:\\.|[^"'()\\\s])*+)\s*+\)"""
_TOKEN = re.compile(
    rf"""(?P<comment>/\*.*?(?:\*/|\Z)|<!--|-->)
      | (?P<charset>@charset\s++{_STRING}\s*;)
      | (?P<import>@import\s*+(?:{_ADDRESS.format("import_url")}|(?P<import_name>{_STRING}))
          (?P<condition>[^;{{}}"']*)(?:;|\Z))
      | (?P<font>@font-face\s*\{{(?P<font_body>(?:{_STRING}|[^"'{{}}])*)\}})
      | {_ADDRESS.format("url")}
      | {_STRING}
      | \\.""",
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)
_IN_FONT = re.compile(_ADDRESS.format("url"), re.DOTALL | re.IGNORECASE)
_FONT_DECLARATION = re.compile(rf"""(?:{_ADDRESS.format("url")}|{_STRING}|[^;"'])+""", re.DOTALL | re.IGNORECASE)
_BRACE = re.compile(rf"{_STRING}|\\.|[{{}}]", re.DOTALL)
_CONDITION = re.compile(
    r"\s*(?P<layer>layer(?:\((?P<name>[^()]*)\))?)?\s*(?:supports\((?P<supports>(?:[^()]|\([^()]*\))*)\))?"
)


class Stylesheets:
    """The stylesheets of one package. What was read once is kept."""

    def __init__(self, files: PackageFiles) -> None:
        self._files = files
        self._alone: dict[str, str] = {}

    def linked(self, path: str) -> str:
        """The stylesheet at `path` in the package, standing alone; "" where there is none.

        Raises UnfitPageError for one that is too large once its imports are in it.
        """
        if path not in self._alone:
            self._alone[path] = css_without_outside(_Reading(self._files).file(path))
        return self._alone[path]

    def written(self, css: str, page: str) -> str:
        """CSS that stands on the page at `page`, a stylesheet or declarations, standing alone. Raises as `linked`."""
        return css_without_outside(_Reading(self._files).text(css, page))


class _Reading:
    """One stylesheet being read, with what it imports."""

    def __init__(self, files: PackageFiles) -> None:
        self._files = files
        self._chain: list[str] = []
        self._imports = 0

    def file(self, path: str) -> str:
        content = self._files.content.get(path)
        if content is None or path in self._chain:
            return ""
        self._chain.append(path)
        css = self.text(content.decode("utf-8-sig", "replace"), path)
        self._chain.pop()
        return css

    def text(self, css: str, base: str) -> str:
        written = _TOKEN.sub(lambda match: self._token(match, base), css)
        if len(written) > MOST_CSS_CHARS:
            raise UnfitPageError(
                f"{base}: its stylesheets are too large",
                cause=Cause.TOO_LARGE,
                expected=f"at most {MOST_CSS_CHARS:,} characters",
                actual=f"{len(written):,}",
            )
        return written

    def _token(self, match: re.Match[str], base: str) -> str:
        parts = match.groupdict()
        if parts["comment"] or parts["charset"]:
            return " "
        if parts["import"]:
            return self._imported(
                _unquoted(parts["import_url"] or parts["import_name"] or ""), parts["condition"], base
            )
        if parts["font"]:
            return self._font_face(parts["font_body"], base)
        if parts["url"] is not None:
            return f'url("{self._picture(_unquoted(parts["url"]), base)}")'
        return match.group()

    def _imported(self, address: str, condition: str, base: str) -> str:
        self._imports += 1
        if self._imports > MOST_IMPORTS:
            raise UnfitPageError(
                f"{base}: its stylesheets import too many others",
                cause=Cause.TOO_LARGE,
                expected=f"at most {MOST_IMPORTS} imports",
            )
        path = self._files.found(address, base)
        css = _closed(self.file(path)) if path else ""
        said = _CONDITION.match(condition)
        assert said is not None  # every part of it may be missing
        media = condition[said.end() :].strip()
        css = f"@media {media}{{{css}}}" if media else css
        css = f"@supports ({said['supports']}){{{css}}}" if said["supports"] else css
        return f"@layer {said['name'] or ''}{{{css}}}" if said["layer"] else css

    def _font_face(self, body: str, base: str) -> str:
        """The rule with the one font that is kept; "" without any, so that the next family of the list is taken."""
        addresses = [_unquoted(match["url"]) for match in _IN_FONT.finditer(body)]
        fonts = [font for address in addresses if (font := self._font(address, base))]
        if not fonts:
            return ""
        declarations = [part.group().strip() for part in _FONT_DECLARATION.finditer(body)]
        kept = [part for part in declarations if part and not part.lower().startswith("src")]
        return f"@font-face{{{';'.join([*kept, f'src:url({min(fonts, key=len)})'])}}}"

    def _font(self, address: str, base: str) -> str | None:
        if address.lower().startswith("data:"):
            _, _, encoded = address.partition(";base64,")
            return f"data:font/woff2;base64,{encoded}" if encoded else None  # browsers look at the bytes, not the name
        path = self._files.found(address, base)
        kind = FONT_KINDS.get(path.rpartition(".")[2].lower()) if path else None
        content = self._files.content.get(path) if path else None
        return f"data:{kind};base64,{base64.b64encode(content).decode()}" if kind and content else None

    def _picture(self, address: str, base: str) -> str:
        if address.startswith("#") or not address:
            return address
        if address.lower().startswith("data:"):
            size = size_of_data_address(address)
            return (
                address.replace('"', "%22") if len(address) <= MOST_MARK_CHARS or size is None else size.placeholder()
            )
        return picture_size(address, base, self._files).placeholder()


def picture_size(address: str, base: str, files: PackageFiles, said: Mapping[str, str] | None = None) -> PictureSize:
    """The size of the picture at an address that stands in the file `base` of a package.

    Where it is not in the package: what `said` (an element's own `width` and `height`), or its address, tells.
    """
    if address.startswith("data:"):
        return size_of_data_address(address) or UNKNOWN_SIZE
    path = files.found(address, base)
    if path in files.picture_sizes:
        return files.picture_sizes[path]
    sides = [value for name in ("width", "height") if (value := (said or {}).get(name, "").strip()).isdecimal()]
    return PictureSize.of_pixels(int(sides[0]), int(sides[1])) if len(sides) == 2 else size_in_address(address)


def _unquoted(address: str) -> str:
    address = address.strip()
    if address[:1] in ("'", '"'):
        address = address[1:].removesuffix(address[0])
    return re.sub(r"\\(.)", r"\1", address)


def _closed(css: str) -> str:
    """CSS with every block closed, as a file's end closes it."""
    depth = 0
    for match in _BRACE.finditer(css):
        depth = max(0, depth + {"{": 1, "}": -1}.get(match.group(), 0))
    return css + "}" * depth
