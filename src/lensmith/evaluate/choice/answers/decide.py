"""Reads the chosen option out of what a model wrote: the letter where it gives one, else the option's own words.

The text without its thoughts is marked (`marks`: each option that it names is one character), cut into sentences, and
each option in them is found to be *claimed* ("the answer is B", or B alone at the start, on a line, at the end), only
*named*, *denied* ("not B", "B is wrong"), or left *open* (in a question, behind "if", said by others). A claim decides;
a later one replaces it where that is plain: a turn stands between ("wait", "so"), or it is the answer by its form (a
tag, a box, "final answer"). Without claims, the one option that is named and not denied is taken: in brackets or behind
"option" first, then by its words. What is left in doubt is unreadable: that is counted and shown, never guessed.

VLMEvalKit's `can_infer` takes any lone capital for a letter ("A dog" is option A), MMMU's
`parse_multi_choice_response` the last one, and where there is none it rolls dice; neither knows denials or thoughts.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lensmith.evaluate.choice.answers.marks import (
    Naming,
    contains,
    join_marks,
    mark_forms,
    mark_letters,
    mark_texts,
    plain_text,
    without_marks,
)
from lensmith.evaluate.choice.answers.mentions import Mention, Stance, Strength, is_turn, mentions_in
from lensmith.evaluate.choice.answers.spoken import plain_format, spoken_part

READING_VERSION = 2
"""Counts up where answers are read otherwise, so that what was read before is not counted together with it."""


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """The index of the option that the text names; None where that cannot be told."""
    spoken = spoken_part(without_marks(text))
    read = _Reader(options).read
    return None if spoken is None else read(mark_forms(spoken, read))


class _Reader:
    """Reads texts about these options."""

    def __init__(self, options: Sequence[str]) -> None:
        self.options = options
        self.plain = [plain_text(option) for option in options]

    def read(self, text: str) -> int | None:
        """The option that a text names once its thoughts are left out."""
        equal = [index for index, option in enumerate(self.plain) if option and option == plain_text(text)]
        if equal and not re.fullmatch("[a-z]", plain_text(text)):
            return equal[0] if len(equal) == 1 else None
        marked = join_marks(mark_letters(mark_texts(plain_format(text), self.options)), self.options)
        return self._decide(marked, list(mentions_in(marked)))

    def _decide(self, text: str, mentions: Sequence[Mention]) -> int | None:
        claims = [mention for mention in mentions if mention.stance is Stance.CLAIMED]
        if claims:
            return self._in_range(_last_claim(text, claims, mentions))
        denied = {option for mention in mentions if mention.stance is Stance.DENIED for option in mention.options}
        named = [mention for mention in mentions if mention.stance is Stance.NAMED]
        letters = self._options_of(named, Naming.NAMED) - denied
        words = self._without_parts(self._options_of(named, Naming.TEXT, Naming.MIXED) - denied)
        if letters:
            return self._in_range(_only(letters)) if not words or words == letters else None
        return self._in_range(_only(words))

    def _options_of(self, mentions: Sequence[Mention], *namings: Naming) -> set[int | None]:
        found = {option for mention in mentions if mention.naming in namings for option in mention.options}
        return {option for option in found if option is None or option < len(self.options)}

    def _without_parts(self, options: set[int | None]) -> set[int | None]:
        """ "black cat" contains "cat": what is part of another option that was found does not count."""
        found = [option for option in options if option is not None]
        parts = {one for one in found for other in found if contains(self.plain[other], self.plain[one])}
        return options - parts

    def _in_range(self, option: int | None) -> int | None:
        return option if option is not None and option < len(self.options) else None


def _only(options: set[int | None]) -> int | None:
    return next(iter(options)) if len(options) == 1 else None


def _last_claim(text: str, claims: Sequence[Mention], mentions: Sequence[Mention]) -> int | None:
    """The option that is claimed at last, where it is plain that it replaces what was claimed before."""
    current, is_doubtful = claims[0], claims[0].option is None
    for claim in claims[1:]:
        narrows = claim.options < current.options and claim.strength > Strength.HEDGED
        if claim.option == current.option and claim.option is not None and not is_doubtful:
            current = replace(claim, strength=max(claim.strength, current.strength))
        elif claim.strength > current.strength or narrows or is_turn(text[current.end : claim.begin]):
            current, is_doubtful = claim, claim.option is None
        else:
            current, is_doubtful = claim, True
    taken_back = any(
        mention.stance is Stance.DENIED and mention.begin > current.begin and current.option in mention.options
        for mention in mentions
    )
    return None if is_doubtful or taken_back else current.option
