"""What a text says of each option in it: claimed, named, denied, or left open. Texts come with their options marked.

A sentence is read around each group of options ("A, B or C" is one): what stands before it in its clause, and what
follows. The words are in `words.toml`; chains of them are bounded, so that no text takes long.
"""

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from lensmith.evaluate.choice.answers.marks import MARK, QUOTES, Naming, naming_of, option_of
from lensmith.evaluate.choice.answers.words import any_of


class Stance(enum.Enum):
    """What a text says of an option."""

    CLAIMED = enum.auto()
    NAMED = enum.auto()
    DENIED = enum.auto()
    OPEN = enum.auto()


class Strength(enum.IntEnum):
    """How a claim is made: FINAL by a word that says so, FORMAL by its form (a tag, a box, "Answer: B" on a line)."""

    HEDGED = enum.auto()
    PLAIN = enum.auto()
    FINAL = enum.auto()
    FORMAL = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Mention:
    """Where options are named together. `options` holds None for one that cannot be told."""

    begin: int
    end: int
    options: frozenset[int | None]
    naming: Naming
    stance: Stance
    strength: Strength = Strength.PLAIN
    is_loose: bool = False
    """Claimed by "it is" alone: no claim where the sentence has other options too."""

    @property
    def option(self) -> int | None:
        return next(iter(self.options)) if len(self.options) == 1 else None


def is_turn(between: str) -> bool:
    """Whether what stands between two claims says that the later one replaces the earlier ("wait", "so")."""
    return _TURN.search(between) is not None


# --- Patterns ---------------------------------------------------------------------------------------------------------


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


_BLANK = r"[^\w\ue000-\ue080]"
_SAME_SENTENCE = r"[^.;!?。；\n\ue000-\ue080]"
_CLOSING = rf"\s*[)\].:{QUOTES}]*\s*"
_JOIN = rf"[)\]{QUOTES}]*(?:\s*(?:[,/&+、，]|{any_of('joins')})\s*(?:{any_of('between')}\s+){{0,4}}|[ \t]+){{1,4}}"
_OPTIONS = f"{MARK}(?:{_JOIN}{MARK})*"
_FILLERS = rf"(?:\s*(?:{any_of('fillers')}|[:：({QUOTES}])){{0,6}}\s*\Z"
_PAUSED_FILLERS = _FILLERS.replace("[:：(", "[:：,，(")
_VERBS = rf"(?:\s*{any_of('verbs_after')}){{0,6}}"
# "B, not A" denies A.
_DENIES_ANOTHER = rf"{any_of('bare_only', 'denied_by')}\s*(?:{any_of('fillers')}\s*){{0,4}}{MARK}"

_GROUP = _compiled(_OPTIONS)
_SENTENCE_END = _compiled(rf"[!?。！？;；]+[{QUOTES})\]]*|\.+(?=[\s{QUOTES})\]]|\Z)[{QUOTES})\]]*|\n+")
_CLAIM_BEFORE = _compiled(
    rf"(?:{any_of('nouns')}{_SAME_SENTENCE}{{0,80}}?(?:{any_of('links')}|[:：=–—→>-])|{any_of('nouns')}\s*[】\]]"
    rf"|{any_of('nouns', 'labels')}[{QUOTES})\]]*\s*[:：=–—→>-]+){_FILLERS}"
)
_LOOSE_BEFORE = _compiled(any_of("verbs", "pronouns") + _PAUSED_FILLERS)
_LINK_BEFORE = _compiled(rf"(?:{any_of('links')}|[:：])\s*[({QUOTES}]*\Z")
_CLAUSE_BEFORE = _compiled(
    rf"(?:[,，;—:]|{any_of('breaks')})\s*(?:{any_of('pronouns', 'speaks')}{_BLANK}*){{0,6}}[({QUOTES}]*\Z"
)
_ENDS = _compiled(rf"[\s)\]*{QUOTES}]*\Z")
_CLAIM_AFTER = _compiled(
    rf"{_CLOSING}(?P<verb>(?:{any_of('follows')}\s*){{1,6}})?{any_of('affirms')}(?!\s*{any_of('not_affirms')})"
)
_START_AFTER = _compiled(rf"\s*(?:[.):,;、．：，；）\]\-–—|]|\Z|\n|{any_of('after_start')}|[^\x00-\u02ff])")
_LETTER_END = _compiled(
    rf"\s*(?:\Z|[^\w\s]|\n)|[^\x00-\u02ff]"
    rf"|\s+{any_of('after_letters', 'after_other_letters', 'affirms', 'copulas_after')}"
)
_ALONE = _compiled(
    rf"{_BLANK}*(?:{any_of('pronouns', 'speaks')}{_BLANK}*){{0,6}}{_OPTIONS}{_BLANK}*"
    rf"(?:{any_of('copulas_after')}{_BLANK}*)?"
)
_ANSWER_LINE = _compiled(rf"{_BLANK}*(?:\w+\s+){{0,3}}{any_of('nouns')}{_BLANK}*[:：]{_BLANK}*{_OPTIONS}{_BLANK}*")
_LABEL = _compiled(rf"^[^\w\n\ue000-\ue080]*({MARK})(?:[ \t]*[.):、．：）\]]|[ \t]+[-–—=|])")
_JUDGED_LABEL = _compiled(rf"({MARK})[ \t]*[.):][ \t]*(?={_VERBS}\s*{any_of('denied_by', 'affirms')})")
_ECHO = _compiled(rf"{_BLANK}*([\ue020-\ue03f]){_BLANK}*")
_DENIED_BEFORE = _compiled(rf"{any_of('denials')}|(?<![^\W_])no(?:\s+(?=\w)|\s*\Z)")
_DENIED_AFTER = _compiled(
    rf"{_CLOSING}[–—-]?\s*(?:\s*{any_of('verbs_after', 'affirms', 'nouns')}){{0,6}}"
    rf"\s*(?!{_DENIES_ANOTHER})(?:{any_of('denied_by')}|no(?=\s*(?:[.,;!]|\Z)))"
)
_NO_DENIAL = _compiled(any_of("not_denials"))
_ALL_BUT = _compiled(any_of("all_but"))
# "The one that is not shown is B" denies nothing of B.
_RELATIVE = _compiled(rf"{any_of('relatives')}[^,]*{any_of('denials')}\s+\S[^,]*\s{any_of('finite_links')}\s*\Z")
_CONTRAST = _compiled(rf"[\s,;，、]*{any_of('contrasts')}[\s,，、]*(?:{any_of('fillers')}\s*){{0,4}}")
_BREAK = _compiled(any_of("breaks"))
_AND = _compiled(any_of("ands"))
_OPEN = _compiled(any_of("open_if", "said_by_others"))
_NOT_OPEN = _compiled(any_of("not_open_if"))
_HEDGE = _compiled(any_of("hedges"))
_FINAL = _compiled(any_of("final"))
_TURN = _compiled(any_of("turns"))
_QUOTED = _compiled(r"[\"“„«「『]([^\"”“»」』\n]*)[\"”“»」』]|(?<!\w)['‘]([^'’\n]*)['’](?!\w)")
_GOES_ON = _compiled(rf"(?:[:：=]|{any_of('links', 'denials')})[ \t]*\n+(?={_BLANK}*{MARK})")

# --- Sentences --------------------------------------------------------------------------------------------------------


def mentions_in(text: str) -> Iterator[Mention]:
    """All options in a marked text, with what is said of them."""
    text = _without_hearsay(text)
    text = _JUDGED_LABEL.sub(lambda match: f"{match[1]} ", _without_echo(text))
    text = _GOES_ON.sub(lambda match: match[0].replace("\n", " "), text)
    labels = {match.start(1): match[1] for match in _LABEL.finditer(text)}
    is_list = len(set(labels.values())) > 1
    begin = 0
    for end in [*_SENTENCE_END.finditer(text), None]:
        until = end.start() if end else len(text)
        sentence = _Sentence(
            text=text[begin:until],
            begin=begin,
            is_question=end is not None and "?" in end[0].replace("？", "?"),
            is_first=not text[:begin].strip(" \n\t.*-"),
            is_last=not text[until:].strip(" \n\t.*!?？。\"'"),
            is_list=is_list,
            ends_line=not text[until:].partition("\n")[0].strip(" \t.*!。\"'"),
            begins_line=begin == 0 or text[begin - 1] == "\n",
        )
        yield from sentence.mentions()
        begin = end.end() if end else until


@dataclass(frozen=True, kw_only=True)
class _Sentence:
    """A sentence of a marked text, and where it stands."""

    text: str
    begin: int
    is_question: bool
    is_first: bool
    is_last: bool
    is_list: bool
    begins_line: bool
    ends_line: bool

    def mentions(self) -> Iterator[Mention]:
        found = [self._mention(group) for group in _GROUP.finditer(self.text)]
        for place, mention in enumerate(found):
            others = {
                option
                for other in found
                if other is not mention and other.naming is Naming.TEXT and other.stance is not Stance.DENIED
                for option in other.options
            }
            if mention.is_loose and mention.naming is Naming.TEXT and others - mention.options:
                yield replace(mention, stance=Stance.NAMED)
            elif mention.stance is Stance.NAMED and place and self._is_instead(found[place - 1], mention):
                yield replace(mention, stance=Stance.CLAIMED)
            else:
                yield mention

    def _is_instead(self, before: Mention, mention: Mention) -> bool:
        """ "Not A but B"."""
        between = self.text[before.end - self.begin : mention.begin - self.begin]
        return before.stance is Stance.DENIED and _CONTRAST.fullmatch(between) is not None

    def _mention(self, group: re.Match[str]) -> Mention:
        before, after = self.text[: group.start()], self.text[group.end() :]
        marks = re.findall(MARK, group[0])
        mention = Mention(
            begin=self.begin + group.start(),
            end=self.begin + group.end(),
            options=frozenset(map(option_of, marks)),
            naming=max(map(naming_of, marks)),
            stance=Stance.NAMED,
        )
        clause, is_alone = _clause(before), _ALONE.fullmatch(self.text) is not None
        if _is_denied(clause, after):
            return replace(mention, stance=Stance.DENIED)
        is_asked = self.is_question and not (is_alone and self.is_first and self.is_last)
        if is_asked or _OPEN.search(_NOT_OPEN.sub(" ", clause)):
            return replace(mention, stance=Stance.OPEN)
        is_claimed = self._stands_out(group, after, is_alone=is_alone) or _is_claimed(mention.naming, before, after)
        if not is_claimed and not _is_loosely_claimed(mention.naming, before, after):
            return mention
        strength = Strength.PLAIN
        is_line = self.begins_line and self.ends_line and _ANSWER_LINE.fullmatch(self.text)
        if mention.naming is Naming.FINAL or is_line:
            strength = Strength.FORMAL
        elif _FINAL.search(before):
            strength = Strength.FINAL
        elif _HEDGE.search(clause) or _OPEN.search(before):
            strength = Strength.HEDGED
        return replace(mention, stance=Stance.CLAIMED, strength=strength, is_loose=not is_claimed)

    def _stands_out(self, group: re.Match[str], after: str, *, is_alone: bool) -> bool:
        """Whether the option stands at the start with its punctuation, alone on a line, or alone at the end."""
        if is_alone and (self.is_first or self.is_last or (self.begins_line and self.ends_line)):
            return not (self.is_list and self.is_first and not self.ends_line)
        is_at_start = self.is_first and not re.search(r"[^\W_]", self.text[: group.start()])
        return is_at_start and not self.is_list and bool(_START_AFTER.match(after))


def _clause(before: str) -> str:
    """What stands before an option in its own clause: commas end one only where what follows them says something."""
    before = _ALL_BUT.sub(" except ", _NO_DENIAL.sub(" ", before))
    *_, begin = (0, *(match.end() for match in _BREAK.finditer(before)))
    clause = before[begin:]
    *_, marked = (0, *(match.end() for match in re.finditer(MARK, clause)))
    if marked and (denied := _DENIED_AFTER.match(clause, marked)):
        clause = clause[denied.end() :]
    elif marked and (join := _AND.search(clause, marked)):
        clause = clause[join.end() :]
    elif marked and _says_so(clause[marked:]):
        clause = clause[marked:]
    parts = re.split(r"[,，、:：—(]|\s[-–]\s", clause)
    taken = parts.pop()
    while (
        parts and not re.search(MARK, parts[-1]) and not (len(taken.split()) > 2 or len(taken) > 8 or _says_so(taken))
    ):
        taken = f"{parts.pop()}, {taken}"
    return taken


def _says_so(part: str) -> bool:
    return bool(_CLAIM_BEFORE.search(part) or _LOOSE_BEFORE.search(part))


def _is_denied(clause: str, after: str) -> bool:
    if _DENIED_AFTER.match(after) and not _NO_DENIAL.match(after.lstrip()):
        return True
    denial = _DENIED_BEFORE.search(clause)
    if not denial:
        return False
    relative = _RELATIVE.search(clause)
    return not (relative and relative.start() <= denial.start())


_NEAR = 200
"""How far before an option the words of a claim are looked for, in characters."""


def _is_claimed(naming: Naming, before: str, after: str) -> bool:
    if naming is Naming.FINAL or (_CLAIM_BEFORE.search(before[-_NEAR:]) and _ends_well(after, naming)):
        return True
    found = _CLAIM_AFTER.match(after)
    # "The right answer": behind the text of an option ("right") a verb is needed.
    return found is not None and (naming is not Naming.TEXT or found["verb"] is not None)


def _is_loosely_claimed(naming: Naming, before: str, after: str) -> bool:
    """By "it is", or as the last word after any "is", or of its clause."""
    near = before[-_NEAR:]
    if _LOOSE_BEFORE.search(near) and _ends_well(after, naming):
        return True
    is_last = naming is not Naming.TEXT and _ENDS.match(after) is not None
    return is_last and bool(_LINK_BEFORE.search(near) or _CLAUSE_BEFORE.search(near))


def _ends_well(after: str, naming: Naming) -> bool:
    """Whether a letter ends there: "B cells" is no B."""
    if naming is not Naming.LETTER:
        return True
    return _LETTER_END.match(after) is not None


# --- What is no statement of the writer's -----------------------------------------------------------------------------


def _without_hearsay(text: str) -> str:
    """Quoted claims say what others said, and lines behind ">" too, where there is more than them."""
    lines = text.split("\n")
    own = [line for line in lines if not line.lstrip().startswith(">")]
    text = "\n".join(own) if any(re.search(rf"\w|{MARK}", line) for line in own) else re.sub(r"(?m)^\s*>+", "", text)

    def unquoted(match: re.Match[str]) -> str:
        said = match[1] if match[1] is not None else match[2]
        found = re.search(MARK, said)
        outside = text[: match.start()] + text[match.end() :]
        if not found or not _says_so(said[: found.start()]) or not re.search(rf"[^\W_]|{MARK}", outside):
            return match[0]
        return re.sub(MARK, " ", match[0])

    return _QUOTED.sub(unquoted, text)


def _without_echo(text: str) -> str:
    """Without lines that repeat the options of the question: each is named alone, and the line beside is the next."""
    lines = [line for line in text.split("\n") if line.strip()]
    alone = [None, *map(_echoed, lines), None]
    steps = [None if one is None or other is None else abs(other - one) for one, other in pairwise(alone)]
    kept = [line for place, line in enumerate(lines) if 1 not in steps[place : place + 2]]
    return text if len(kept) == len(lines) else "\n".join(kept)


def _echoed(line: str) -> int | None:
    found = _ECHO.fullmatch(line)
    return option_of(found[1]) if found else None
