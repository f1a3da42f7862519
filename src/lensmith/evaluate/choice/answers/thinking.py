"""What a model says once it has thought: its text without thoughts, and without what follows its turn.

Models that reason write their thoughts first, each family between marks of its own (`words.toml` lists them). Some
begin inside the prompt, so that a text holds only the end of them. Thoughts that never end leave no answer.
"""

import functools
import re

from lensmith.evaluate.choice.answers.words import tables, tag_names


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
