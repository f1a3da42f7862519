"""When two texts are the same prompt: hashes that are coarse on purpose, and one spelling of each text."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from lensmith.core.wire import WireError

_ROLE_NAMES = "system|developer|user|assistant|tool|function|model|ipython"
_MARK = re.compile(rf"(?:^|<[^<>]{{1,64}}+>|\[/?[A-Z_]{{3,32}}+\])(?:{_ROLE_NAMES})*")
"""What stands between turns, as most chat templates write it, without white space."""

_SPECIAL = re.compile(
    r"<[|\uff5c][^<>\s]{1,64}+>|<</?SYS>>|\[/?[A-Z_]{3,32}+\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|cls|sep|think|image|image_soft_token|tool_call|tool_response"
    r"|(?:start|end)_of_(?:turn|image))>"
)
"""What servers read as one token in a text that a client wrote: turns of a conversation can be forged with it."""

_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]+"
)
_LONG_TEXT = 1 << 16
"""Form NFKC makes some texts 18 times as long; form NFC at most three times, and so it does for longer texts."""

COMBINING_RANGES = (
    (0x300, 0x3100),
    (0xA600, 0xAC00),
    (0xFB00, 0xFE30),
    (0x10000, 0x12000),
    (0x16A00, 0x17000),
    (0x1BC00, 0x1BD00),
    (0x1D100, 0x1D300),
    (0x1E000, 0x1EA00),
)
"""Where all marks stand that combine with the letter before them."""

_MOST_MARKS = 30  # Unicode's stream-safe form (UAX 15, section 13) has no more on one letter
_COMBINING = [
    point for start, end in COMBINING_RANGES for point in range(start, end) if unicodedata.combining(chr(point))
]


def _char_class(points: Sequence[int]) -> str:
    """The points as ranges: to look through single ones beyond U+FFFF is slow."""
    firsts = [point for before, point in zip([-1, *points], points, strict=False) if point != before + 1]
    lasts = [point for point, after in zip(points, [*points[1:], -1], strict=True) if after != point + 1]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(firsts, lasts, strict=True))


_TOO_MANY_MARKS = re.compile(f"[{_char_class(_COMBINING)}]{{{_MOST_MARKS + 1},}}")
"""To put marks in order takes time that grows as the square of their number."""


def text_hash(texts: Sequence[str], *, pictures: int = 0) -> bytes:
    """A hash of a prompt's turns that does not see what can be varied without changing the prompt.

    Neither white space, nor what Unicode's form NFKC makes equal, nor the marks between turns with the role that
    follows: a client can write a template's marks into a text, or the whole of it into a completion. Two prompts with
    one hash share one budget, so that to be too coarse is safe, and to be too fine renews a budget for free.
    """
    text = "".join("<|>".join(["", *texts]).split())
    if not text.isascii():
        text = _TOO_MANY_MARKS.sub("", text)
        text = unicodedata.normalize("NFKC" if len(text) <= _LONG_TEXT else "NFC", text)
        text = _INVISIBLE.sub("", text)
    return hashlib.sha256(b"%d:%s" % (pictures, _MARK.sub("", text).encode())).digest()


def one_form(text: str) -> str:
    """The text in Unicode's form NFC. Raises WireError for more marks on one letter than any script has."""
    if text.isascii():
        return text
    if _TOO_MANY_MARKS.search(text):
        raise WireError("too many combining marks on one letter", expected=f"at most {_MOST_MARKS}")
    return unicodedata.normalize("NFC", text)


def has_special_token(text: str) -> bool:
    """Whether a server may read a part of the text as a token that no text is made of."""
    return _SPECIAL.search(text) is not None
