"""What a model says once it has thought: its text without thoughts, without what follows its turn, unformatted.

Models that reason write their thoughts first, each family between marks of its own (`words.toml` lists them). Some
begin inside the prompt, so that a text holds only the end of them. Thoughts that never end leave no answer.
"""

import functools
import re
import unicodedata

from lensmith.evaluate.choice.answers.words import tables, tag_names
from lensmith.evaluate.choice.question import LETTERS


def spoken_part(text: str) -> str | None:
    """The text outside of thoughts, up to the end of the turn; None where thoughts do not end."""
    spoken, begin, awaited = "", 0, ""
    for match in _thinking().finditer(text):
        name = match["begins"] or match["ends"]
        if name is not None:
            kind, is_end = name.casefold(), match["begins"] is None
        else:
            kind, part = next(group for group, found in match.groupdict().items() if found is not None).rsplit("_", 1)
            is_end = part == "end"
        if not awaited:
            # An end without a beginning: the thoughts began in the prompt.
            spoken = "" if is_end else f"{spoken}{text[begin : match.start()]} "
            awaited, begin = "" if is_end else kind, match.end()
        elif is_end and kind == awaited:
            awaited, begin = "", match.end()
    return None if awaited else _first_turn(spoken + text[begin:])


def _first_turn(text: str) -> str:
    """Without what a model writes behind the end of its turn: marks of the end, then another question, and so on."""
    ends, next_turn, speaker = _turns()
    found = ends.split(text, maxsplit=1)
    text = speaker.sub("", found[0] if found[0].strip() else text, count=1)
    again = next_turn.search(text, len(text) - len(text.lstrip()) + 1)
    return text[: again.start()] if again else text


@functools.cache
def _thinking() -> re.Pattern[str]:
    names = tag_names("thinking")
    parts = [rf"<\s*(?P<begins>{names})(?:\s[^<>]*)?>", rf"<\s*/\s*(?P<ends>{names})\s*>"]
    for number, mark in enumerate(tables()["thinking"]):
        parts += [f"(?P<m{number}_begin>{mark['begin']})", f"(?P<m{number}_end>{mark['end']})"]
    # What begins no line of its own must be written exactly so; tags come in any case.
    return re.compile("|".join([*(f"(?i:{part})" for part in parts[:2]), *parts[2:]]))


@functools.cache
def _turns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    return (
        re.compile(tag_names("ends")),
        re.compile(rf"(?i)\n[ \t]*(?:#+[ \t]*)?(?:\*\*)?{tag_names('next_turns')}(?:[ \t]*\d+)?(?:\*\*)?[ \t]*[:：]"),
        re.compile(
            rf"(?i)\A\s*(?:<\|(?!begin_of_(?:box|solution))[^|<>]*\|>\s*|<s>\s*)*(?:{tag_names('speakers')}[ \t]*:)?"
        ),
    )


# --- Formatting -------------------------------------------------------------------------------------------------------

_LOOKS = str.maketrans(
    {chr(0xFF01 + n): chr(0x21 + n) for n in range(94)}  # fullwidth
    | {chr(0x24B6 + n): f"({letter})" for n, letter in enumerate(LETTERS)}  # circled, in brackets, in squares
    | {
        chr(first + n): f"({letter})"
        for first in (0x1F110, 0x1F130, 0x1F150, 0x1F170)
        for n, letter in enumerate(LETTERS)
    }
    | {chr(first + n): letter for first in (0x1D400, 0x1D5A0, 0x1D5D4) for n, letter in enumerate(LETTERS)}  # bold
    | dict.fromkeys(map(ord, "\u2063\u200b\u200c\u200d\u2060\ufe0f\ufeff\u200e\u200f"), None)
    | {"\u2212": "-", "\u3000": " ", "\u00a0": " "}
)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathbb|operatorname|bm|bf|rm)\s*\{([^{}]*)\}")
_LATEX_LETTER = re.compile(
    r"\$+\s*(\(?[A-Za-z]\)?[.)]?)\s*\$+|\\[(\[]\s*(\(?[A-Za-z]\)?)\s*\\[)\]]|\$+(?=[A-Z](?![\w$]))"
)
_STRUCK = re.compile(r"~~.*?~~|<(del|s|strike)>.*?</\1>", re.DOTALL)
_EMPHASIS = re.compile(
    r"\*\*|__|`+|(?<![\w*])\*(?=[^\s*])|(?<=[^\s*])\*(?![\w*])|(?<!\w)_(?=\S)|(?<=\S)_(?!\w)|^[ \t]*#+[ \t]+",
    re.MULTILINE,
)
_HTML = re.compile(
    r"</?(?:b|strong|i|em|u|p|span|div|code|mark|big|center|font|sup|sub)(?:\s[^<>]*)?>|<br\s*/?>", re.IGNORECASE
)


def plain_format(text: str) -> str:
    """The text without what only shows how it looks: emphasis, LaTeX's and HTML's too, widths, what is struck out."""
    text = unicodedata.normalize("NFC", text).translate(_LOOKS)
    if "</" in text or "<br" in text.lower():  # else <B> is a letter in brackets
        text = _HTML.sub(
            lambda tag: "\n" if tag[0].lower().startswith(("<br", "<p", "</p", "<div", "</div")) else "", text
        )
    text = _STRUCK.sub(" ", text)
    for _ in range(3):  # text in text in text
        text = _LATEX_TEXT.sub(r"\1", text)
    text = _LATEX_LETTER.sub(lambda found: found[1] or found[2] or "", text)
    return _EMPHASIS.sub("", text)
