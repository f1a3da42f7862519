"""Tokens to text as they come: whole characters only, and nothing that may be the start of a stop string.

Legend: T tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_UNFINISHED_CHARACTER = "\ufffd"
_MOST_CONTEXT = 16
_MOST_UNFINISHED = 3
"""A character has at most four bytes, and its last is not there."""

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, kw_only=True)
class Released:
    """Text that may be shown, and how many further tokens it comes from. `stopped`: a stop string was met."""

    text: str
    tokens: int
    stopped: bool = False


class TextStream:
    """The text of one answer. The pieces that it releases, joined, are the answer's text.

    A token's text can depend on the one before it, and a character can take several tokens, so a window of tokens is
    decoded twice, without and with the newest. `stops` end the text before any of them. `before`: tokens that the
    answer goes on from (`context_of`), which have no part in its text.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = (), before: Sequence[int] = ()) -> None:
        self._decode, self._stops = decode, stops
        self._tokens = list(before)
        self._window, self._read = 0, len(self._tokens)
        self._text = ""
        self._starts: list[int] = []
        self._released_characters, self._released_tokens = 0, 0

    @property
    def length(self) -> int:
        """How many characters are known, released or not: where the next token begins."""
        return len(self._text)

    def push(self, token: int) -> Released:
        """The text that is certain now."""
        self._tokens.append(token)
        self._starts.append(len(self._text))
        piece = self._unread()
        if not piece or piece.endswith(_UNFINISHED_CHARACTER):
            return Released(text="", tokens=0)
        self._window, self._read = self._read, len(self._tokens)
        return self._grown(piece, final=False)

    def finish(self) -> Released:
        """What was held back, at the end of the answer."""
        return self._grown(self._unread(), final=True)

    def _unread(self) -> str:
        """The text of the tokens behind those that were read."""
        before = self._decode(self._tokens[self._window : self._read])
        now = self._decode(self._tokens[self._window :])
        if now.startswith(before):
            return now[len(before) :]
        # Of bytes in a row some decoders read all or none: broken ones take whole characters before them along.
        return self._decode(self._tokens[self._read :])

    def _grown(self, piece: str, *, final: bool) -> Released:
        unseen_from = max(0, len(self._text) - max(map(len, self._stops), default=1) + 1)
        self._text += piece
        found = [place for stop in self._stops if (place := self._text.find(stop, unseen_from)) >= 0]
        if found:
            tokens = sum(start < min(found) for start in self._starts)
            return self._release(min(found), max(tokens, self._released_tokens), stopped=True)
        certain = len(self._text) if final else len(self._text) - self._held_back()
        if final:
            return self._release(certain, len(self._starts))
        # A token is told with the last of its characters: where the next one starts.
        ends = [*self._starts[1:], len(self._text)]
        tokens = sum(end <= certain for end in ends)
        return self._release(certain, max(tokens, self._released_tokens))

    def _held_back(self) -> int:
        """How many characters at the end may be the start of a stop string."""
        longest = min(len(self._text) - self._released_characters, max(map(len, self._stops), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stops):
                return length
        return 0

    def _release(self, characters: int, tokens: int, *, stopped: bool = False) -> Released:
        text = self._text[self._released_characters : characters]
        new = tokens - self._released_tokens
        self._released_characters, self._released_tokens = characters, tokens
        return Released(text=text, tokens=new, stopped=stopped)


def context_of(decode: Decode, prompt_ids: Sequence[int]) -> list[int]:
    """The prompt's last tokens that are whole characters: what an answer's text goes on from.

    Decoders of sentencepiece's kind take the first space off a text, which is not the answer's where the prompt has
    text. Empty where no token at the prompt's end can be read; bytes of a character that the prompt leaves unfinished
    are left out.
    """
    for unfinished in range(_MOST_UNFINISHED + 1):
        tail = list(prompt_ids[max(0, len(prompt_ids) - _MOST_CONTEXT) : len(prompt_ids) - unfinished])
        for count in range(1, len(tail) + 1):
            text = decode(tail[-count:])
            if text and _UNFINISHED_CHARACTER not in text:
                return tail[-count:]
        if tail and not decode(tail):
            return tail  # a space that is taken off already, or special tokens alone
    return []
