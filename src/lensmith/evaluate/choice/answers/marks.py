"""Options in a text, each replaced by one character: what is said *about* them can then be read by plain patterns.

A mark says which option it is and how it was named: by a letter alone (`LETTER`), by a letter that can be nothing else
(`NAMED`: "(B)", "option B", "B. a cat"), by its text (`TEXT`), or inside something that is the answer by its form
(`FINAL`: a tag, a box, a JSON field). A letter beside the text of another option is `MIXED`.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

from lensmith.evaluate.choice.answers.spoken import plain_format
from lensmith.evaluate.choice.answers.words import any_of, tables, tag_names
from lensmith.evaluate.choice.question import LETTERS


class Naming(IntEnum):
    """How an option was named. The values are the first characters of the marks."""

    LETTER = 0xE000
    NAMED = 0xE020
    TEXT = 0xE040
    FINAL = 0xE060
    MIXED = 0xE080


_SPAN = 0x20
MARK = "[\ue000-\ue080]"
_ANY_LETTER, _ANY_NAMED, _TEXT = "[\ue000-\ue03f]", "[\ue020-\ue03f]", "[\ue040-\ue05f]"


def without_marks(text: str) -> str:
    """A text whose characters are all its own, and whose blanks are single ones."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(rf"(?:[^\S\n]|{MARK})+", " ", text))


def mark(naming: Naming, option: int = 0) -> str:
    return chr(naming + option)


def option_of(character: str) -> int | None:
    """The index of the marked option; None of a mixed mark."""
    return None if ord(character) == Naming.MIXED else (ord(character) - Naming.LETTER) % _SPAN


def naming_of(character: str) -> Naming:
    return Naming(Naming.LETTER + (ord(character) - Naming.LETTER) // _SPAN * _SPAN)


# --- What is the answer by its form -----------------------------------------------------------------------------------

_BOX = re.compile(r"\$*\\(?:boxed|fbox|framebox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}\$*")
_OWN_BOX = re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)|\[ANSWER\](.*?)(?:\[/ANSWER\]|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n?")


def mark_forms(text: str, read: Callable[[str], int | None]) -> str:
    """Tags, boxes and JSON fields that hold an answer become marks, where `read` finds one in them; else their text.

    What they hold stands on a line of its own then, so that an answer that is two is not taken for half of it.
    """

    def replaced(match: re.Match[str]) -> str:
        content = next((group for group in match.groups() if group is not None), "")
        option = read(content)
        return mark(Naming.FINAL, option) if option is not None else f"\n{content}\n"

    text = "".join(_json_marked(_FENCE.sub("\n", text), read))
    for pattern in (_BOX, _OWN_BOX, _answer_tag()):
        text = pattern.sub(replaced, text)
    return text


@functools.cache
def _answer_tag() -> re.Pattern[str]:
    names = tag_names("answer")
    return re.compile(
        rf"<\s*{names}(?:\s[^<>]*)?>((?:(?!<\s*{names}\b).)*?)(?:<\s*/\s*{names}\s*>|\Z)", re.DOTALL | re.IGNORECASE
    )


def _json_marked(text: str, read: Callable[[str], int | None]) -> Iterator[str]:
    keys, decoder, done = frozenset(tables()["tags"]["keys"]), json.JSONDecoder(), 0
    while (begin := text.find("{", done)) >= 0:
        yield text[done:begin]
        try:
            values, end = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            values, end = None, begin + 1
        found = (
            [value for key, value in values.items() if key.strip().casefold().replace("-", "_") in keys]
            if isinstance(values, dict)
            else []
        )
        if not found:
            yield text[begin:end]
        else:
            content = "\n".join(_text_of(value) for value in found)
            option = read(content)
            yield mark(Naming.FINAL, option) if option is not None else f"\n{content}\n"
        done = end
    yield text[done:]


def _text_of(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


# --- Letters and texts ------------------------------------------------------------------------------------------------

_EDGES = " .,;:!?\"'()[]*。，！？"
_POINT_FIRST = re.compile(r"(?:.*[^.])?\.[0-9]")
"""The point of ".5" is the number's."""
_WORD_BEFORE, _WORD_AFTER = r"(?<![a-z0-9])", r"(?![a-z0-9])"
# A number is no part of another (1.5, 1,500, 1/2, 1:2, 3-5), and -5 is not 5; the dash of "covid-19" is no sign.
_NUMBER_BEFORE = r"(?<![0-9][.,:/])(?<![^a-z]\.)(?<!^\.)(?<![^a-z][-–])(?<!^[-–])"
_NUMBER_AFTER = r"(?![.,:/–-][0-9])"


def plain_text(text: str) -> str:
    """A text as it is compared: without formatting, case, and punctuation around it."""
    plain = " ".join(plain_format(text).casefold().split()).rstrip(_EDGES)
    bare = plain.lstrip(_EDGES)
    return f".{bare}" if _POINT_FIRST.match(plain.removesuffix(bare) + bare[:1]) else bare


def contains(text: str, option: str) -> bool:
    """Whether one option's plain text holds that of another."""
    return option != text and re.search(_text_pattern(option), text) is not None


def _text_pattern(option: str) -> str:
    """As whole words and whole numbers; letters of scripts without spaces may touch."""
    words = r"\s+".join(map(re.escape, option.split()))
    after = _edge(option[-1], _WORD_AFTER, _NUMBER_AFTER)
    if option in tables()["bare_only"]:
        after = r"(?=\s*(?:[^\w\s\ue000-\ue080]|\Z))"
    return _edge(option[0], _WORD_BEFORE, _NUMBER_BEFORE) + words + after


def _edge(character: str, word: str, number: str) -> str:
    if "0" <= character <= "9":
        return word + number
    return word if character.isascii() else ""


_JOINED = "\u2063"
"""Stands behind a mark that has its text already, until marks are joined."""


def mark_texts(text: str, options: Sequence[str]) -> str:
    """Every option's text that stands in `text` becomes a mark; of two that overlap the longer, else a mixed one."""
    plain = [plain_text(option) for option in options]
    spans: list[tuple[int, int, str]] = []
    for index, option in enumerate(plain):
        if not option or re.fullmatch("[a-z]", option):
            continue
        which = mark(Naming.TEXT, index) if plain.count(option) == 1 else mark(Naming.MIXED)
        pattern = _text_pattern(option)
        spans += [(*match.span(), which) for match in re.finditer(pattern, text, re.IGNORECASE)]
        # With its own letter before it, a text is that option's even where another has the same.
        labelled = rf"(?<![A-Za-z0-9(\[])[(\[]?(?-i:{LETTERS[index]})[.):\]]+\s*{pattern}"
        named = mark(Naming.NAMED, index) + _JOINED
        spans += [(*match.span(), named) for match in re.finditer(labelled, text, re.IGNORECASE)]
    return _replaced(text, spans)


def _replaced(text: str, spans: list[tuple[int, int, str]]) -> str:
    """The text with a mark for each span; for one within another none, for two that overlap a mixed one."""
    kept: list[tuple[int, int, str]] = []
    for begin, end, which in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or begin >= kept[-1][1]:
            kept.append((begin, end, which))
        elif end > kept[-1][1] or ((begin, end) == kept[-1][:2] and which != kept[-1][2]):
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]), mark(Naming.MIXED))
    ends = [0, *(end for _, end, _ in kept)]
    return (
        "".join(text[end:begin] + which for end, (begin, _, which) in zip(ends, kept, strict=False)) + text[ends[-1] :]
    )


QUOTES = "\"'‘’“”„«»「」『』‹›"
_ANY = "(?P<letter>[A-Za-z])"
_BEFORE = r"(?<![A-Za-z0-9_'’À-ɏ-])(?<!\d )(?<![A-Za-z]\.)"
_AFTER = r"(?![A-Za-z0-9_À-ɏ]|['’][A-Za-z\ue000-\ue080]|-[A-Za-z]|\.[A-Za-z])"
_BLANK = r"[^\w\n\ue000-\ue080]*"
_SMALL_LISTS = 3


def _words(*lists: str) -> str:
    return f"(?i:{any_of(*lists)})"


# "A" before a word is an article; so may be what a text that was cut off ends with.
_NO_ARTICLE = rf"(?!(?<=[AIai])[ \t]+(?:{_TEXT}|(?!{_words('after_letters', 'denied_by', 'affirms')})[A-Za-z]{{2}}))"
_END = rf"(?=[ \t]*(?:[.,;:!?)\]。，；：、{QUOTES}]|\n)|\s+{_words('after_letters')}|[^\x00-\u02ff]|(?<![ai])\Z)"
_A_END = rf"(?![ \t]+{_TEXT})(?=\s*(?:\Z|[^\w\s{QUOTES}]|\n)|\s+{_words('after_letters')}|\s+[A-Z]\b|[^\x00-\u052f])"
_I_END = rf"(?=\s*(?:\Z|[^\w\s{QUOTES}])|\s+(?:because|since|is)\b)"
_CLAIM = (
    rf"(?:{_words('nouns')}[^.;!?\n\ue000-\ue080]{{0,60}}?(?:{_words('links')}|[:=])|{_words('verbs', 'pronouns')})"
    rf"(?:\s*{_words('fillers')}){{0,6}}\s*[(\[{QUOTES}]*\s*"
)
_NAMED = rf"(?!['’]s\b)\s*[:#]?\s*[{QUOTES}(]*{_ANY}{_AFTER}{_NO_ARTICLE}[{QUOTES}]*\)?"
_SMALL_IN_LIST = (
    rf"{MARK}[)\].{QUOTES}]*\s*(?:[,/&、，]|{_words('joins')})\s*[(]?(?P<mark>(?P<letter>[a-z])){_AFTER}{_END}"
)
# In this order; what stands in the group `mark` becomes one.
_LETTER_FORMS = tuple(
    (re.compile(pattern, re.MULTILINE), naming)
    for pattern, naming in (
        (
            rf"(?<![A-Za-z0-9])(?P<mark>[(\[{{（【「<]\s*[{QUOTES}]?{_ANY}[.]?[{QUOTES}]?\s*[)\]}}）】」>])(?![A-Za-z])",
            Naming.NAMED,
        ),
        (rf"(?P<mark>{_words('naming')}{_NAMED})", Naming.NAMED),
        (rf"(?P<mark>{_words('naming_answers')}(?!\s*:){_NAMED})(?!(?<=[ai])\Z)", Naming.NAMED),
        (rf"(?<![A-Za-z0-9])(?P<mark>[{QUOTES}]+\s*\(?{_ANY}\)?[.,]?\s*[{QUOTES}]+)(?!\s*:|[A-Za-z])", Naming.NAMED),
        (rf"^{_BLANK}(?P<mark>{_ANY})(?={_BLANK}$)", Naming.LETTER),
        (rf"{_CLAIM}(?P<mark>(?P<letter>[a-z])){_AFTER}{_END}", Naming.LETTER),
        (rf"^[ \t]*(?P<mark>(?P<letter>[a-z]))(?=\)|\.[ \t]*(?:\Z|{_TEXT}))", Naming.LETTER),
        *((_SMALL_IN_LIST, Naming.LETTER) for _ in range(_SMALL_LISTS)),
        (rf"{_BEFORE}(?P<mark>(?P<letter>A)){_AFTER}{_A_END}", Naming.LETTER),
        (rf"{_BEFORE}(?P<mark>(?P<letter>I)){_AFTER}{_I_END}", Naming.LETTER),
        (rf"{_BEFORE}(?P<mark>(?P<letter>[B-HJ-Z])){_AFTER}", Naming.LETTER),
    )
)


def mark_letters(text: str) -> str:
    """Letters that stand for options become marks: in brackets, behind "option", or alone and capital.

    "A" before a word is an article, and "I" a person. A small letter counts in brackets and where an answer is named.
    """

    def marked(match: re.Match[str], naming: Naming) -> str:
        before, after = text[match.start() : match.start("mark")], text[match.end("mark") : match.end()]
        return before + mark(naming, LETTERS.index(match["letter"].upper())) + after

    for pattern, naming in _LETTER_FORMS:
        text = pattern.sub(functools.partial(marked, naming=naming), text)
    return text


_BETWEEN_BOTH = rf"[ \t.):：、,\-–—=|{QUOTES}(\[]*\n?[ \t]*[{QUOTES}(\[]*"
_LETTER_THEN_TEXT = re.compile(rf"({_ANY_LETTER}){_BETWEEN_BOTH}([\ue040-\ue05f])[{QUOTES})\]]*")
_TEXT_THEN_LETTER = re.compile(
    rf"([\ue040-\ue05f])(?:[ \t]*[,\-–—:=][ \t]*({_ANY_LETTER})|[ \t]*({_ANY_NAMED}))(?![.):])"
)


_LETTER_THEN_LETTER = re.compile(rf"({_ANY_LETTER})[.):：][ \t]*({_ANY_LETTER})(?![.):])")


def join_marks(text: str, options: Sequence[str]) -> str:
    """A letter beside a text is one mark where both are the same option ("B. a cat"), else a mixed one.

    A text may itself be a letter: "B. D" is one mark where D is what the option B says.
    """

    def joined(match: re.Match[str]) -> str:
        letter, words = sorted(filter(None, match.groups()))
        same = option_of(letter) == option_of(words)
        return mark(Naming.NAMED, option_of(letter) or 0) if same else mark(Naming.MIXED)

    def joined_letters(match: re.Match[str]) -> str:
        label, letter = option_of(match[1]), option_of(match[2])
        if label is None or letter is None or label >= len(options):
            return match[0]
        is_text = plain_text(options[label]) == LETTERS[letter].casefold()
        return mark(Naming.NAMED, label) if is_text else match[0]

    text = _LETTER_THEN_LETTER.sub(joined_letters, text)
    return _TEXT_THEN_LETTER.sub(joined, _LETTER_THEN_TEXT.sub(joined, text)).replace(_JOINED, "")
