"""Reads the chosen option out of what a model wrote: the letter where it gives one, else the option's own words.

Rules are tried from the surest to the least sure, and the first that names exactly one option decides. What names
several, or none, is unparsable: that is counted and listed, never guessed. VLMEvalKit's exact matching
(`can_infer_option`) takes any lone capital for a letter, so that "A dog" is option A; here a letter needs its
punctuation, the word "answer" or brackets around it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from lensmith.evaluate.choice.question import LETTERS

_LONE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_AT_START = re.compile(
    r"\s*[(\[*（【\s]*([A-Z])(?:\s*[)\]*.:,;、．：）】]|\s*\n|\s*$|\s+(?:because|since|as|for|due)\b)"
)
_LISTED = re.compile(r"^\s*[(\[（【]?([A-Z])[.):、．：）】\]]", re.MULTILINE)
_AFTER_WORD = re.compile(
    r"(?i:\banswer|\boption|\bchoice|答案|选项|选择|选)\s*(?i:is|are|would be|:|=|：|是|为)*\s*"
    r"(?i:option\b|choice\b|the\b|\s)*[(\[*（【\"'\s]*([A-Z])(?![A-Za-z0-9])(?=([^\n]{0,12}))"
)
_BRACKETED = re.compile(r"[(\[（【]\s*([A-Z])\s*[)\]）】]")
_ALTERNATIVE = re.compile(r"[)\]）】*\s]*(?:or\b|and\b|/|,|或|和)[\s(\[（【]*[A-Z](?![A-Za-z0-9])")
_ARTICLE_REST = re.compile(r"\s+(?!(?:because|since|as|for|due|and|but|which)\b)[a-z]")

_MARKS = " .,;:!?\"'()[]*。，！？"
_POINT_FIRST = re.compile(r"(?:.*[^.])?\.[0-9]")
"""The point of ".5" is the number's."""
_WORD_BEFORE, _WORD_AFTER = r"(?<![a-z0-9])", r"(?![a-z0-9])"
# A number is no part of another (1.5, 1,500, 1/2, 1:2, 3-5), and -5 is not 5; the dash of "covid-19" is no sign.
_NUMBER_BEFORE = r"(?<![0-9][.,:/])(?<![^a-z]\.)(?<!^\.)(?<![^a-z][-–])(?<!^[-–])"
_NUMBER_AFTER = r"(?![.,:/–-][0-9])"


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """The index of the option that the text names; None where that cannot be told."""
    text = unicodedata.normalize("NFC", text).strip()
    letters = LETTERS[: len(options)]
    lone = _LONE.fullmatch(text)
    if lone and lone[1].upper() in letters:
        return letters.index(lone[1].upper())
    start = _AT_START.match(text)
    # An answer that begins by listing the options has not chosen the first of them.
    if start and start[1] in letters and len({match[1] for match in _LISTED.finditer(text)}) < 2:
        return None if _ALTERNATIVE.match(text, start.end(1)) else letters.index(start[1])
    after = [match for match in _AFTER_WORD.finditer(text) if not _is_article(match[1], match[2])]
    if any(_ALTERNATIVE.match(match[2]) for match in after):
        return None
    for found in ([match[1] for match in after], [match[1] for match in _BRACKETED.finditer(text)]):
        named = {letter for letter in found if letter in letters}
        if len(named) == 1:
            return letters.index(named.pop())
        if named:
            return None
    return _by_words(text, options)


def _is_article(letter: str, rest: str) -> bool:
    """ "The answer is A dog" names no letter."""
    return letter in "AI" and bool(_ARTICLE_REST.match(rest))


def _by_words(text: str, options: Sequence[str]) -> int | None:
    said = _plain(text)
    plain = [_plain(option) for option in options]
    equal = [index for index, option in enumerate(plain) if option and option == said]
    if equal:
        return equal[0] if len(equal) == 1 else None
    found = [index for index, option in enumerate(plain) if option and _stands_in(option, said)]
    # "black cat" contains "cat": what is part of another option that was found does not count.
    whole = [
        index for index in found if not _is_part(plain[index], (plain[other] for other in found if other != index))
    ]
    return whole[0] if len(whole) == 1 else None


def _plain(text: str) -> str:
    plain = " ".join(text.casefold().split()).replace("\u2212", "-").rstrip(_MARKS)
    bare = plain.lstrip(_MARKS)
    return f".{bare}" if _POINT_FIRST.match(plain.removesuffix(bare) + bare[:1]) else bare


def _stands_in(option: str, said: str) -> bool:
    """As whole words and whole numbers; letters of scripts without spaces may touch."""
    before, after = _edge(option[0], _WORD_BEFORE, _NUMBER_BEFORE), _edge(option[-1], _WORD_AFTER, _NUMBER_AFTER)
    return re.search(before + re.escape(option) + after, said) is not None


def _edge(character: str, word: str, number: str) -> str:
    if "0" <= character <= "9":
        return word + number
    return word if character.isascii() else ""


def _is_part(option: str, others: Iterable[str]) -> bool:
    return any(option != other and _stands_in(option, other) for other in others)
